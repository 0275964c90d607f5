package io.pocketticket.android;

import io.pocketticket.Checkpoint;
import io.pocketticket.NonNull;
import io.pocketticket.Nullable;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.util.zip.CRC32;

/**
 * The files of one personal model: what is kept, and the lesson under way. One owner at a time, in all processes of the
 * app.
 *
 * <p>{@code kept.tkc}: the checkpoint that predictions come from, with the one before beside it; absent: the ticket
 * itself. {@code lesson}: frozen samples and the score before. {@code lesson.tkc}: how far that is. A file is there
 * whole or not at all; every order of these files that a kill can leave is one to go on from. Take a directory of
 * {@code Context.getNoBackupFilesDir()}: other apps cannot read it, and no backup copies it off the device.
 */
final class CheckpointStore implements AutoCloseable {
  private static final int MAGIC = 0x544B4C31; // "TKL1"

  private final File directory;
  private final RandomAccessFile lockFile;
  private final Checkpoint kept;
  private final Checkpoint lesson;

  private CheckpointStore(File directory, int saveEverySteps, RandomAccessFile lockFile) {
    this.directory = directory;
    this.lockFile = lockFile;
    this.kept = Checkpoint.of(new File(directory, "kept.tkc"), saveEverySteps);
    this.lesson = Checkpoint.of(new File(directory, "lesson.tkc"), saveEverySteps);
  }

  /** Makes the directory where it is missing. Throws ModelInUseException while another owner has it, IOException. */
  static @NonNull CheckpointStore open(@NonNull File directory, int saveEverySteps) throws IOException {
    if (!directory.isDirectory() && !directory.mkdirs()) {
      throw new IOException("'" + directory + "' cannot be made; free some space or give another directory");
    }
    RandomAccessFile file = new RandomAccessFile(new File(directory, "lock"), "rw");
    FileLock lock = null;
    try {
      lock = file.getChannel().tryLock();
    } catch (OverlappingFileLockException held) {
      // by this process; told below
    } finally {
      if (lock == null) file.close();
    }
    if (lock == null) throw new ModelInUseException("'" + directory + "' is in use; close the other model first");
    return new CheckpointStore(directory, saveEverySteps, file);
  }

  Checkpoint kept() {
    return kept;
  }

  Checkpoint lesson() {
    return lesson;
  }

  boolean hasLesson() {
    return lessonFile().exists();
  }

  private File lessonFile() {
    return new File(directory, "lesson");
  }

  /** What an earlier lesson left must have been deleted. */
  void begin(Lesson fresh, Score before, long goalEpochs) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    DataOutputStream out = new DataOutputStream(bytes);
    out.writeInt(MAGIC);
    out.writeLong(goalEpochs);
    out.writeInt(before.own());
    out.writeInt(before.shipped());
    fresh.write(out);
    CRC32 sum = new CRC32();
    sum.update(bytes.toByteArray());
    out.writeLong(sum.getValue());
    replace(lessonFile(), bytes.toByteArray());
  }

  /** Null, and the lesson is given up, where the file is not what was written. */
  @Nullable
  Begun readLesson() throws IOException {
    byte[] content = read(lessonFile());
    CRC32 sum = new CRC32();
    sum.update(content, 0, Math.max(0, content.length - 8));
    DataInputStream in = new DataInputStream(new ByteArrayInputStream(content));
    boolean isWhole = content.length > 8
        && new DataInputStream(new ByteArrayInputStream(content, content.length - 8, 8)).readLong() == sum.getValue()
        && in.readInt() == MAGIC;
    if (!isWhole) {
      deleteLesson();
      return null;
    }
    long goal = in.readLong();
    int own = in.readInt();
    int shipped = in.readInt();
    Lesson begun = Lesson.read(in);
    return new Begun(begun, new Score(own, begun.heldOut().count(), shipped, begun.shipped().count()), goal);
  }

  /** The lesson is as if it had not been. */
  void deleteLesson() throws IOException {
    if (hasLesson()) erase(lessonFile()); // goes first: without it its checkpoint means nothing
    lesson.delete();
  }

  void deleteAll() throws IOException {
    deleteLesson();
    kept.delete();
  }

  @Override
  public void close() throws IOException {
    lockFile.close(); // and the lock with it
  }

  private static void replace(File file, byte[] content) throws IOException {
    File fresh = new File(file.getPath() + ".new");
    try (FileOutputStream out = new FileOutputStream(fresh)) {
      out.write(content);
      out.getFD().sync();
    }
    rename(fresh, file);
  }

  private static byte[] read(File file) throws IOException {
    try (RandomAccessFile in = new RandomAccessFile(file, "r")) {
      byte[] content = new byte[(int) in.length()];
      in.readFully(content);
      return content;
    }
  }

  /** With zeros before it goes, as the user's samples are in it; half erased it is no lesson. */
  private static void erase(File file) throws IOException {
    try (RandomAccessFile out = new RandomAccessFile(file, "rw")) {
      out.write(new byte[(int) out.length()]);
      out.getFD().sync();
    }
    if (!file.delete()) throw new IOException("'" + file + "' cannot be deleted");
  }

  private static void rename(File from, File to) throws IOException {
    if (!from.renameTo(to)) throw new IOException("'" + from + "' cannot be renamed to '" + to.getName() + "'");
  }

  /** A lesson as it was begun. */
  static final class Begun {
    final Lesson lesson;
    final Score before;
    final long goalEpochs;

    Begun(Lesson lesson, Score before, long goalEpochs) {
      this.lesson = lesson;
      this.before = before;
      this.goalEpochs = goalEpochs;
    }
  }
}
