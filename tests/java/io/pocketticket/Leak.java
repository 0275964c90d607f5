package io.pocketticket;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileReader;

/**
 * Opens, trains, saves and closes over and over, and opens what is refused; prints resident memory and mappings at the
 * start, after a warm-up, and at the end, and the bytes that each open maps. Arguments: cycles, cycles of the warm-up.
 * Linux alone.
 */
public final class Leak {
  public static void main(String[] arguments) throws Exception {
    int cycles = Integer.parseInt(arguments[0]);
    int warmUp = Integer.parseInt(arguments[1]);
    Fixtures fixtures = Fixtures.of("labels");
    int[] labels = fixtures.labels();
    float[] x = java.util.Arrays.copyOf(fixtures.x, 8 * 12);
    int[] y = java.util.Arrays.copyOf(labels, 8);
    TrainerOptions options = TrainerOptions.builder().batch(64).threads(1).build();
    TrainerOptions tight = TrainerOptions.builder().budgetBytes(1000).build();
    File file = File.createTempFile("leak", ".tkc");
    for (int cycle = 0; cycle <= cycles; ++cycle) {
      if (cycle == warmUp || cycle == cycles) tell(cycle);
      try (Artifact artifact = fixtures.artifact(); Trainer trainer = Trainer.open(artifact, options)) {
        trainer.trainStep(x, y);
        trainer.evaluate(x, y);
        trainer.predict(x);
        trainer.values();
        byte[] exported = trainer.export();
        if (cycle % 100 == 0) {
          trainer.save(file);
          trainer.restore(file);
          Artifact.of(exported).close();
        }
        if (cycle == 0) System.out.println("mapped " + mapped(trainer.memory()));
        try {
          Trainer.open(artifact, tight);
          throw new AssertionError("a budget that cannot be met was met");
        } catch (BudgetExceededException expected) {
          // leaves nothing behind
        }
      }
    }
    Checkpoint.of(file, 1).delete();
  }

  private static long mapped(MemoryPlan plan) {
    return plan.totalBytes() + plan.transferBytes();
  }

  /** After a collection, which lets go of the mapped artifacts. */
  private static void tell(int cycle) throws Exception {
    for (int i = 0; i < 3; ++i) {
      System.gc();
      Thread.sleep(50);
    }
    long resident = 0;
    try (BufferedReader status = new BufferedReader(new FileReader("/proc/self/status"))) {
      for (String line; (line = status.readLine()) != null;) {
        if (line.startsWith("VmRSS:")) resident = Long.parseLong(line.replaceAll("\\D", "")) * 1024;
      }
    }
    int mappings = 0;
    try (BufferedReader maps = new BufferedReader(new FileReader("/proc/self/maps"))) {
      while (maps.readLine() != null) ++mappings;
    }
    System.out.println("cycle " + cycle + " resident " + resident + " mappings " + mappings);
  }
}
