package io.pocketticket.android;

import android.database.Cursor;
import android.database.sqlite.SQLiteDatabase;
import io.pocketticket.NonNull;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Map;
import java.util.TreeMap;

/**
 * The user's own samples in a SQLite file, as many as fit, with a part that is held out for ever.
 *
 * <p>Which part a sample belongs to is decided when it is added and never changes; the same sample is kept once. A full
 * part loses the oldest sample of its largest class. What is deleted is overwritten with zeros in the file
 * (secure_delete), and no write-ahead log keeps it; what a flash chip keeps is Android's encryption of the file's to
 * guard. Safe for several threads. Take a directory of {@code Context.getNoBackupFilesDir()}.
 */
public final class ExampleStore implements AutoCloseable {
  private static final int MAX_ELEMENTS = 1 << 18; // a row must fit into the 2 MB window of a cursor
  private static final int HELD_OUT_EVERY = 4;
  private static final int VERSION = 1;
  private static final String NAME = "examples.db";

  private final SQLiteDatabase database;
  private final int elements;
  private final int classCount;
  private final int capacity;

  private ExampleStore(SQLiteDatabase database, int elements, int classCount, int capacity) {
    this.database = database;
    this.elements = elements;
    this.classCount = classCount;
    this.capacity = capacity;
  }

  /**
   * Opens or makes the file in {@code directory}: samples of {@code elements} values, labels in [0, classCount), at
   * most {@code capacity} samples, of which a quarter is held out. Throws IllegalArgumentException where the file is of
   * other samples.
   */
  public static @NonNull ExampleStore open(@NonNull File directory, int elements, int classCount, int capacity)
      throws IOException {
    if (elements < 1 || elements > MAX_ELEMENTS) {
      throw new IllegalArgumentException("elements " + elements + " must be in [1, " + MAX_ELEMENTS + "]");
    }
    if (capacity < HELD_OUT_EVERY) {
      throw new IllegalArgumentException("capacity " + capacity + " must be at least " + HELD_OUT_EVERY);
    }
    if (!directory.isDirectory() && !directory.mkdirs()) throw new IOException("'" + directory + "' cannot be made");
    SQLiteDatabase database = SQLiteDatabase.openOrCreateDatabase(new File(directory, NAME), null);
    try {
      ExampleStore store = new ExampleStore(database, elements, classCount, capacity);
      store.prepare();
      return store;
    } catch (RuntimeException failure) {
      database.close();
      throw failure;
    }
  }

  /** Deletes the file and all beside it; the store must be closed. Throws IOException where something is left. */
  public static void delete(@NonNull File directory) throws IOException {
    File file = new File(directory, NAME);
    SQLiteDatabase.deleteDatabase(file);
    if (file.exists()) throw new IOException("'" + file + "' cannot be deleted; close the store first");
  }

  /** Keeps a sample and returns its number. One that is there already only takes the label. */
  public synchronized long add(@NonNull float[] sample, int label) {
    check(sample, label);
    byte[] content = bytes(sample);
    String hash = hash(content);
    database.beginTransaction();
    try {
      long there = number("SELECT max(id) FROM examples WHERE hash = ?", hash);
      long id = there > 0 ? there : insert(content, hash, label);
      if (there > 0) execute("UPDATE examples SET label = ? WHERE id = ?", label, id);
      database.setTransactionSuccessful();
      return id;
    } finally {
      database.endTransaction();
    }
  }

  /** Whether the sample is for tests alone; false where it is no longer there. */
  public synchronized boolean isHeldOut(long id) {
    return number("SELECT held_out FROM examples WHERE id = ?", "" + id) == 1;
  }

  /** Another label for a sample; no effect where it is no longer there. */
  public synchronized void relabel(long id, int label) {
    checkLabel(label);
    execute("UPDATE examples SET label = ? WHERE id = ?", label, id);
  }

  /**
   * Overwrites a sample with zeros and removes it; no effect where it is no longer there. A lesson under way has a copy
   * until it ends or is abandoned.
   */
  public synchronized void remove(long id) {
    execute("DELETE FROM examples WHERE id = ?", id);
  }

  /** The samples to train on, oldest first. */
  public synchronized @NonNull Samples training() {
    return read(0);
  }

  /** The samples for tests alone, oldest first. */
  public synchronized @NonNull Samples heldOut() {
    return read(1);
  }

  /** How many samples there are. */
  public synchronized int count() {
    return (int) number("SELECT count(*) FROM examples");
  }

  @Override
  public synchronized void close() {
    database.close();
  }

  private void prepare() {
    database.disableWriteAheadLogging(); // which would keep what was deleted
    number("PRAGMA secure_delete = ON");
    if (database.getVersion() == 0) {
      execute("CREATE TABLE examples (id INTEGER PRIMARY KEY AUTOINCREMENT, label INTEGER NOT NULL,"
          + " held_out INTEGER NOT NULL, hash TEXT NOT NULL UNIQUE, sample BLOB NOT NULL)");
      execute("CREATE TABLE dealt (label INTEGER PRIMARY KEY, count INTEGER NOT NULL)");
      database.setVersion(VERSION);
    }
    long other = number("SELECT count(*) FROM examples WHERE length(sample) <> CAST(? AS INTEGER)", "" + 4 * elements);
    if (database.getVersion() != VERSION || other > 0) {
      throw new IllegalArgumentException(
          "'" + database.getPath() + "' holds samples of another kind; delete it, or give each network its directory");
    }
  }

  private long insert(byte[] content, String hash, int label) {
    long number = number("SELECT sum(count) FROM dealt WHERE label = ?", "" + label);
    boolean heldOut = Balance.isHeldOut(number, HELD_OUT_EVERY);
    execute("INSERT OR REPLACE INTO dealt (label, count) VALUES (?, ?)", label, number + 1);
    makeRoom(heldOut, label);
    execute("INSERT INTO examples (label, held_out, hash, sample) VALUES (?, ?, ?, ?)", label, heldOut ? 1 : 0, hash,
        content);
    return number("SELECT last_insert_rowid()");
  }

  private void makeRoom(boolean heldOut, int added) {
    String part = heldOut ? "1" : "0";
    while (number("SELECT count(*) FROM examples WHERE held_out = ?", part)
        >= Balance.capacity(capacity, HELD_OUT_EVERY, heldOut)) {
      int label = Balance.fullest(counts(part), added);
      execute("DELETE FROM examples WHERE id = (SELECT min(id) FROM examples WHERE held_out = ? AND label = ?)", part,
          label);
    }
  }

  private Map<Integer, Integer> counts(String part) {
    Map<Integer, Integer> counts = new TreeMap<>();
    String query = "SELECT label, count(*) FROM examples WHERE held_out = ? GROUP BY label";
    try (Cursor rows = database.rawQuery(query, new String[] {part})) {
      while (rows.moveToNext()) counts.put(rows.getInt(0), rows.getInt(1));
    }
    return counts;
  }

  private Samples read(int heldOut) {
    String query = "SELECT label, sample FROM examples WHERE held_out = ? ORDER BY id";
    try (Cursor rows = database.rawQuery(query, new String[] {"" + heldOut})) {
      int[] labels = new int[rows.getCount()];
      float[] values = new float[labels.length * elements];
      for (int at = 0; rows.moveToNext(); ++at) {
        labels[at] = rows.getInt(0);
        ByteBuffer.wrap(rows.getBlob(1))
            .order(ByteOrder.LITTLE_ENDIAN)
            .asFloatBuffer()
            .get(values, at * elements, elements);
      }
      return new Samples(values, labels, elements);
    }
  }

  private void execute(String statement, Object... arguments) {
    database.execSQL(statement, arguments);
  }

  /**
   * The first number of the first row, 0 for NULL and for no row; a row must be read for a statement to be executed at
   * all.
   */
  private long number(String query, String... arguments) {
    try (Cursor rows = database.rawQuery(query, arguments)) {
      return rows.moveToFirst() && !rows.isNull(0) ? rows.getLong(0) : 0;
    }
  }

  private void check(float[] sample, int label) {
    checkLabel(label);
    if (sample.length != elements) {
      throw new IllegalArgumentException("a sample of " + sample.length + " values; the network takes " + elements);
    }
    for (float value : sample) {
      if (Float.isNaN(value) || Float.isInfinite(value)) {
        throw new IllegalArgumentException("a sample with the value " + value + "; leave it out");
      }
    }
  }

  private void checkLabel(int label) {
    if (label < 0 || label >= classCount) {
      throw new IllegalArgumentException("label " + label + " must be in [0, " + classCount + ")");
    }
  }

  private byte[] bytes(float[] sample) {
    ByteBuffer buffer = ByteBuffer.allocate(4 * elements).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asFloatBuffer().put(sample);
    return buffer.array();
  }

  private static String hash(byte[] content) {
    try {
      StringBuilder text = new StringBuilder();
      for (byte one : MessageDigest.getInstance("SHA-256").digest(content)) text.append(String.format("%02x", one));
      return text.toString();
    } catch (NoSuchAlgorithmException impossible) {
      throw new AssertionError(impossible); // every Java has it
    }
  }
}
