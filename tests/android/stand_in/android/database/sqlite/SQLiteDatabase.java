package android.database.sqlite;

import android.database.Cursor;
import java.io.File;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;

/**
 * Stands in for Android's class on a host's JVM: the same methods, as far as the library calls them, over SQLite itself
 * by JDBC. Like Android's it executes a query only when a row of it is read.
 */
public final class SQLiteDatabase {
  /** Stands in for Android's. */
  public interface CursorFactory {}

  private final Connection connection;
  private final File file;
  private boolean isSuccessful;

  private SQLiteDatabase(Connection connection, File file) {
    this.connection = connection;
    this.file = file;
  }

  public static SQLiteDatabase openOrCreateDatabase(File file, CursorFactory factory) {
    try {
      SQLiteDatabase database = new SQLiteDatabase(DriverManager.getConnection("jdbc:sqlite:" + file), file);
      database.execSQL("PRAGMA journal_mode = WAL", new Object[0]); // as Android may choose by itself
      return database;
    } catch (SQLException error) {
      throw new IllegalStateException(error);
    }
  }

  public static boolean deleteDatabase(File file) {
    boolean any = false;
    for (String end : new String[] {"", "-journal", "-wal", "-shm"}) any |= new File(file.getPath() + end).delete();
    return any;
  }

  public void disableWriteAheadLogging() {
    execSQL("PRAGMA journal_mode = TRUNCATE", new Object[0]);
  }

  public String getPath() {
    return file.getPath();
  }

  public int getVersion() {
    try (Cursor rows = rawQuery("PRAGMA user_version", new String[0])) {
      rows.moveToFirst();
      return rows.getInt(0);
    }
  }

  public void setVersion(int version) {
    execSQL("PRAGMA user_version = " + version, new Object[0]);
  }

  public void beginTransaction() {
    isSuccessful = false;
    execSQL("BEGIN", new Object[0]);
  }

  public void setTransactionSuccessful() {
    isSuccessful = true;
  }

  public void endTransaction() {
    execSQL(isSuccessful ? "COMMIT" : "ROLLBACK", new Object[0]);
  }

  public void execSQL(String sql, Object[] arguments) {
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      for (int at = 0; at < arguments.length; ++at) statement.setObject(at + 1, arguments[at]);
      statement.execute();
    } catch (SQLException error) {
      throw new IllegalStateException(sql, error);
    }
  }

  public Cursor rawQuery(final String sql, final String[] arguments) {
    InvocationHandler rows = new InvocationHandler() {
      private List<Object[]> read;
      private int at = -1;

      @Override
      public Object invoke(Object proxy, Method method, Object[] given) {
        if (method.getName().equals("close")) return null;
        if (read == null) read = rows(sql, arguments);
        switch (method.getName()) {
          case "getCount":
            return read.size();
          case "moveToNext":
            return ++at < read.size();
          case "moveToFirst":
            at = 0;
            return !read.isEmpty();
          case "isNull":
            return read.get(at)[(Integer) given[0]] == null;
          case "getInt":
            return ((Number) read.get(at)[(Integer) given[0]]).intValue();
          case "getLong":
            return ((Number) read.get(at)[(Integer) given[0]]).longValue();
          case "getBlob":
            return read.get(at)[(Integer) given[0]];
          default:
            throw new UnsupportedOperationException(method.getName());
        }
      }
    };
    return (Cursor) Proxy.newProxyInstance(Cursor.class.getClassLoader(), new Class<?>[] {Cursor.class}, rows);
  }

  private List<Object[]> rows(String sql, String[] arguments) {
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      for (int at = 0; at < arguments.length; ++at) statement.setString(at + 1, arguments[at]);
      List<Object[]> rows = new ArrayList<>();
      if (!statement.execute()) return rows;
      try (ResultSet result = statement.getResultSet()) {
        int columns = result.getMetaData().getColumnCount();
        while (result.next()) {
          Object[] row = new Object[columns];
          for (int at = 0; at < columns; ++at) row[at] = result.getObject(at + 1);
          rows.add(row);
        }
      }
      return rows;
    } catch (SQLException error) {
      throw new IllegalStateException(sql, error);
    }
  }

  public void close() {
    try {
      connection.close();
    } catch (SQLException error) {
      throw new IllegalStateException(error);
    }
  }
}
