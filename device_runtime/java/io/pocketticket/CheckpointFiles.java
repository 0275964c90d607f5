package io.pocketticket;

import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.FileOutputStream;
import java.io.IOException;
import java.util.Arrays;

/**
 * Checkpoint files that outlive a kill, a full disk and a flipped bit: two generations, {@code NAME} and {@code
 * NAME.previous}, the protocol of device_runtime/checkpoint.py, file by file.
 *
 * <p>A new one is written beside ({@code NAME.partial}), synced, and renamed over {@code NAME}, whose old content was
 * copied before to {@code NAME.kept} (apps on Android may not make hard links) and becomes {@code NAME.previous}.
 * Killed before that, {@code NAME.kept} is the generation between the two. Knows nothing of what is inside.
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
    for (File generation : newestFirst(file)) {
      if (generation.exists()) return true;
    }
    return false;
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

  /**
   * Writes the file whole or not at all. On an IOException it is as it was, unless that tells of the folder: then the
   * new content is there, but a loss of power may take it back.
   */
  static void write(File file, byte[] content) throws IOException {
    boolean isReplaced = false;
    try {
      replace(file, content, partial(file));
      isReplaced = true;
    } finally {
      if (!isReplaced) partial(file).delete();
    }
    syncFolder(file);
  }

  /**
   * Makes the content the newest generation and the present one the previous. On an IOException no generation is lost:
   * the new one is there too if it tells of the folder.
   */
  static void save(File file, byte[] content) throws IOException {
    finishLastSave(file);
    boolean isReplaced = false;
    try {
      if (file.exists()) replace(kept(file), read(file), partial(file));
      replace(file, content, partial(file));
      isReplaced = true;
    } finally {
      if (!isReplaced) removeLeftovers(file);
    }
    syncFolder(file); // the new one is safe before the previous one, perhaps the only good one, goes
    if (!kept(file).exists()) return;
    rename(kept(file), previous(file));
    syncFolder(file);
  }

  /**
   * Hands the newest generation that the reader accepts to it and returns its file. Throws FileNotFoundException if
   * there is none, IOException if one that there is cannot be read, CorruptCheckpointException if all are damaged.
   */
  static File load(File file, Reader reader) throws IOException {
    StringBuilder refused = new StringBuilder();
    IOException unreadable = null; // perhaps for now only, so nobody is told to remove it
    for (File candidate : newestFirst(file)) {
      if (!candidate.exists()) continue;
      try {
        reader.read(read(candidate));
        return candidate;
      } catch (IOException error) {
        unreadable = new IOException("'" + candidate + "' cannot be read: " + error.getMessage(), error);
      } catch (CorruptCheckpointException error) {
        refused.append('\'').append(candidate).append("': ").append(error.getMessage()).append("; ");
      }
    }
    if (unreadable != null) throw unreadable;
    if (refused.length() == 0) throw new FileNotFoundException("'" + file + "': no checkpoint there; train first");
    throw new CorruptCheckpointException(refused + "remove them to start anew");
  }

  private static File[] newestFirst(File file) {
    return new File[] {file, kept(file), previous(file)};
  }

  private static File partial(File file) {
    return new File(file.getPath() + ".partial");
  }

  private static File kept(File file) {
    return new File(file.getPath() + ".kept");
  }

  private static void removeLeftovers(File file) {
    partial(file).delete();
    if (file.exists()) kept(file).delete(); // its copy
  }

  /** What a kill left is a copy of the newest generation, or the one before it and was to be the previous. */
  private static void finishLastSave(File file) throws IOException {
    if (!kept(file).exists() || !file.exists()) return;
    if (Arrays.equals(read(kept(file)), read(file))) return; // which is made again
    syncFolder(file);
    rename(kept(file), previous(file));
  }

  /** Through the partial file, so that a kill never leaves half of it. */
  private static void replace(File file, byte[] content, File partial) throws IOException {
    writeSynced(partial, content);
    rename(partial, file);
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
