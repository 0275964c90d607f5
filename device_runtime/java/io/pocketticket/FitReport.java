package io.pocketticket;

import java.io.File;

/** What one fit did. */
public final class FitReport {
  private final float[] losses;
  private final long epochs;
  private final Progress progress;
  private final boolean cancelled;
  private final double seconds;
  private final File resumedFrom;

  FitReport(
      float[] losses, long epochs, Progress progress, boolean cancelled, double seconds, @Nullable File resumedFrom) {
    this.losses = losses;
    this.epochs = epochs;
    this.progress = progress;
    this.cancelled = cancelled;
    this.seconds = seconds;
    this.resumedFrom = resumedFrom;
  }

  /** Updates that this fit made. */
  public int steps() {
    return losses.length;
  }

  /** Epochs that this fit completed. */
  public long epochs() {
    return epochs;
  }

  /** The mean loss of each update's samples, before it; a copy. */
  public @NonNull float[] losses() {
    return losses.clone();
  }

  /** Where the trainer stands. */
  public @NonNull Progress progress() {
    return progress;
  }

  /** Whether a listener, {@link Trainer#cancel} or {@link Trainer#close} ended it before its time. */
  public boolean cancelled() {
    return cancelled;
  }

  public double seconds() {
    return seconds;
  }

  /**
   * The checkpoint it went on from: the file given, or the one before where that is damaged; null if it began
   * where the trainer stood.
   */
  public @Nullable File resumedFrom() {
    return resumedFrom;
  }
}
