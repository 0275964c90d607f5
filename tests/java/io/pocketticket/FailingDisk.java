package io.pocketticket;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;

/**
 * Saves on a disk that fails, or dies, at each change in turn (failing_disk.c), as a kill there would leave it; prints
 * how often, and each rule that did not hold. Argument: the folder.
 */
public final class FailingDisk {
  private static final String BROKEN = "generation 0, broken";
  private static final int WHOLE = "generation 0".length();

  private final File file;
  private int failures;

  private FailingDisk(File folder) {
    file = new File(folder, "run.tkc");
  }

  public static void main(String[] arguments) throws Exception {
    FailingDisk disk = new FailingDisk(new File(arguments[0]));
    String[][] scenes = {// NAME, NAME.kept, NAME.previous
        {null, null, null}, {null, BROKEN, "generation 1"}, {null, "generation 2", "generation 1"},
        {"generation 2", null, null}, {"generation 2", null, "generation 1"}, {BROKEN, null, "generation 1"},
        {BROKEN, BROKEN, "generation 1"}, {"generation 2", "generation 2", "generation 1"},
        {"generation 3", "generation 2", "generation 1"}};
    for (String[] scene : scenes) {
      for (String way : new String[] {"", "/dies"}) {
        for (int at = 1; disk.play(scene, at, way); ++at) ++disk.failures;
      }
    }
    System.out.println("failures " + disk.failures);
  }

  /** Whether the disk failed before the save was done. */
  private boolean play(String[] scene, int at, String way) throws IOException {
    CheckpointFiles.remove(file);
    for (int i = 0; i < 3; ++i) {
      if (scene[i] != null) Fixtures.write(file(i), scene[i].getBytes("UTF-8"));
    }
    int before = number(newest());
    boolean failed = false;
    disk("/" + at + way);
    try {
      CheckpointFiles.save(file, "generation 4".getBytes("UTF-8"));
    } catch (IOException told) {
      failed = true;
    } finally {
      disk("/0");
    }
    check(scene, at, way, before, failed);
    return failed;
  }

  private void check(String[] scene, int at, String way, int before, boolean failed) throws IOException {
    String where = java.util.Arrays.toString(scene) + ", change " + at + way;
    if (file(1).exists()) {
      String kept = new String(Fixtures.bytes(file(1)), "UTF-8");
      if (!kept.equals(scene[0]) && !kept.equals(scene[1])) System.out.println(where + ": kept is '" + kept + "'");
    }
    String present = newest();
    int now = number(present);
    if (now != 4 && (!failed || now != before)) System.out.println(where + ": " + before + " became " + now);
    boolean hadAnother = scene[0] != null && !scene[0].equals(BROKEN) && (now == 4 || scene[2] != null);
    if (hadAnother) { // a bit of the newest one flips
      Fixtures.write(file, BROKEN.getBytes("UTF-8"));
      int second = number(newest());
      if (second < (now == 4 ? before : now - 1)) System.out.println(where + ": behind " + now + " is " + second);
      Fixtures.write(file, present.getBytes("UTF-8"));
    }
    CheckpointFiles.save(file, "generation 5".getBytes("UTF-8"));
    String[] names = file.getParentFile().list();
    if (number(newest()) != 5 || names.length > 2 || file(1).exists()) {
      System.out.println(where + ": the next save leaves " + java.util.Arrays.toString(names));
    }
  }

  private File file(int generation) {
    return new File(file.getPath() + new String[] {"", ".kept", ".previous"}[generation]);
  }

  /** The content of the newest generation that is whole, or null. */
  private String newest() throws IOException {
    final String[] read = new String[1];
    try {
      CheckpointFiles.load(file, content -> {
        String text = new String(content);
        if (text.equals(BROKEN) || text.length() != WHOLE) throw new CorruptCheckpointException(text);
        read[0] = text;
      });
    } catch (CorruptCheckpointException | FileNotFoundException none) {
      // null
    }
    return read[0];
  }

  private static int number(String generation) {
    return generation == null ? 0 : generation.charAt("generation ".length()) - '0';
  }

  private static void disk(String order) {
    if (!new File("/failing-disk").renameTo(new File(order))) throw new AssertionError("the disk is as it always was");
  }
}
