package io.pocketticket.android;

import io.pocketticket.NonNull;
import io.pocketticket.Trainer;

/** How many held-out samples a network gets right: the user's own, and those that came with the app. */
public final class Score {
  private final int own;
  private final int ownCount;
  private final int shipped;
  private final int shippedCount;

  public Score(int own, int ownCount, int shipped, int shippedCount) {
    if (own < 0 || own > ownCount || shipped < 0 || shipped > shippedCount) {
      throw new IllegalArgumentException(
          own + " of " + ownCount + " and " + shipped + " of " + shippedCount + " right cannot be");
    }
    this.own = own;
    this.ownCount = ownCount;
    this.shipped = shipped;
    this.shippedCount = shippedCount;
  }

  /** Of the trainer's present values. */
  public static @NonNull Score of(@NonNull Trainer trainer, @NonNull Lesson lesson) {
    Samples own = lesson.heldOut();
    Samples shipped = lesson.shipped();
    return new Score(correct(trainer, own), own.count(), correct(trainer, shipped), shipped.count());
  }

  private static int correct(Trainer trainer, Samples samples) {
    return samples.count() == 0 ? 0 : trainer.evaluate(samples.values(), samples.labels()).correct();
  }

  public int own() {
    return own;
  }

  public int ownCount() {
    return ownCount;
  }

  public int shipped() {
    return shipped;
  }

  public int shippedCount() {
    return shippedCount;
  }

  @Override
  public @NonNull String toString() {
    return "own " + own + "/" + ownCount + ", shipped " + shipped + "/" + shippedCount;
  }
}
