package io.pocketticket;

import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.FileOutputStream;
import java.io.IOException;

/**
 * Checkpoint files that outlive a kill, a full disk and a flipped bit: two generations, {@code NAME} and {@code
 * NAME.previous}, the protocol of device_runtime/checkpoint.py, file by file.
 *
 * <p>A new one is written beside ({@code NAME.partial}), synced, and renamed over {@code NAME}, whose old content was
 * copied before and becomes {@code NAME.previous} (apps on Android may not make hard links). Knows nothing of what is
 * inside.
 */
final class CheckpointFiles {
  /** Takes the bytes of a checkpoint, or refuses them by CorruptCheckpointException. */
  interface Reader {
    void read(byte[] content);
  }

  private CheckpointFiles() {}

  static File previous(File file) {
    return new File(file.getPath() + ".previous");
  }

  /** Whether there is a generation to restore from, good or not. */
  static boolean exists(File file) {
    return file.exists() || previous(file).exists();
  }

  static void remove(File file) {
    for (File each : new File[] {file, previous(file), partial(file), kept(file)}) each.delete();
  }

  static byte[] read(File file) throws IOException {
    try (DataInputStream stream = new DataInputStream(new FileInputStream(file))) {
      byte[] content = new byte[(int) Math.min(file.length(), Integer.MAX_VALUE - 8)];
      stream.readFully(content);
      return content;
    }
  }

  /** Writes the file whole or not at all. */
  static void write(File file, byte[] content) throws IOException {
    boolean done = false;
    try {
      writeSynced(partial(file), content);
      rename(partial(file), file);
      done = true;
    } finally {
      if (!done) removeLeftovers(file);
    }
    syncFolder(file);
  }

  /** Makes the content the newest generation and the present one the previous. */
  static void save(File file, byte[] content) throws IOException {
    boolean done = false;
    try {
      writeSynced(partial(file), content);
      if (file.exists()) {
        writeSynced(kept(file), read(file));
        rename(partial(file), file);
        syncFolder(file); // the new one is safe before the previous one, perhaps the only good one, goes
        rename(kept(file), previous(file));
      } else {
        rename(partial(file), file);
      }
      done = true;
    } finally {
      if (!done) removeLeftovers(file);
    }
    syncFolder(file);
  }

  /** Hands the newest generation that the reader accepts to it and returns its file. */
  static File load(File file, Reader reader) throws IOException {
    StringBuilder refused = new StringBuilder();
    for (File candidate : new File[] {file, previous(file)}) {
      try {
        reader.read(read(candidate));
        return candidate;
      } catch (IOException | CorruptCheckpointException error) {
        refused.append('\'').append(candidate).append("': ").append(error.getMessage()).append("; ");
      }
    }
    if (!exists(file)) throw new FileNotFoundException("'" + file + "': no checkpoint there; train first");
    throw new CorruptCheckpointException(refused + "remove them to start anew");
  }

  private static File partial(File file) {
    return new File(file.getPath() + ".partial");
  }

  private static File kept(File file) {
    return new File(file.getPath() + ".kept");
  }

  private static void removeLeftovers(File file) {
    partial(file).delete();
    kept(file).delete();
  }

  private static void writeSynced(File file, byte[] content) throws IOException {
    try (FileOutputStream stream = new FileOutputStream(file)) {
      stream.write(content);
      stream.getFD().sync();
    }
  }

  private static void rename(File from, File to) throws IOException {
    if (!from.renameTo(to)) throw new IOException("'" + from + "' cannot be renamed to '" + to + "'");
  }

  private static void syncFolder(File file) throws IOException {
    File folder = file.getAbsoluteFile().getParentFile();
    byte[] path = (folder.getPath() + '\0').getBytes(Native.UTF_8);
    if (!Native.syncFolder(path)) throw new IOException("'" + folder + "' cannot be synced; check the disk");
  }
}
