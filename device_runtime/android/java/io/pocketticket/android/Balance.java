package io.pocketticket.android;

import java.util.Map;

/**
 * Which samples a store keeps: every so manieth of a class is held out, and a full store loses of its largest class.
 */
final class Balance {
  private Balance() {}

  /**
   * Whether the sample that is the {@code number}-th of its class, counted from 0 and never again, is for tests alone.
   * The last of every {@code every}, so that a class is trained on before it is tested.
   */
  static boolean isHeldOut(long number, int every) {
    return number % every == every - 1;
  }

  /** How many samples of a part are kept. */
  static int capacity(int all, int every, boolean heldOut) {
    int held = Math.max(1, all / every);
    return heldOut ? held : all - held;
  }

  /**
   * The class with the most samples; of several the one that is added to, else the lowest. {@code counts} is not
   * empty.
   */
  static int fullest(Map<Integer, Integer> counts, int added) {
    int most = 0;
    int best = Integer.MAX_VALUE;
    for (Map.Entry<Integer, Integer> one : counts.entrySet()) {
      int label = one.getKey();
      boolean isBetter = label == added || (best != added && label < best);
      if (one.getValue() > most || (one.getValue() == most && isBetter)) {
        most = one.getValue();
        best = label;
      }
    }
    return best;
  }
}
