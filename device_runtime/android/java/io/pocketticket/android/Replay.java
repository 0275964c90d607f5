package io.pocketticket.android;

import io.pocketticket.NonNull;

/**
 * A few shipped samples, trained along with the user's own so that the network does not forget what those lack.
 *
 * <p>Deterministic: the same samples give the same mixture, so a training that was broken off goes on exactly.
 */
public final class Replay {
  /** Beyond this a handful of own samples would be learnt by heart. */
  private static final int MAX_REPEATS = 8;

  private final Samples shipped;

  public Replay(@NonNull Samples shipped) {
    this.shipped = shipped;
  }

  /**
   * All shipped samples and all own ones, which are repeated as a whole, up to 8 times, while they stay the smaller
   * part. So a user's first samples are not drowned, and when they have become many they outweigh the shipped ones by
   * themselves.
   */
  public @NonNull Samples mixedWith(@NonNull Samples own) {
    Samples mixed = shipped.plus(own);
    for (int times = 2; times <= repeats(own.count(), shipped.count()); ++times) mixed = mixed.plus(own);
    return mixed;
  }

  static int repeats(int own, int shipped) {
    return own == 0 ? 1 : Math.max(1, Math.min(MAX_REPEATS, shipped / own));
  }
}
