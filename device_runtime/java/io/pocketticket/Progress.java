package io.pocketticket;

/** Where a trainer stands. */
public final class Progress {
  private final long step;
  private final long epoch;
  private final int position;

  Progress(long step, long epoch, int position) {
    this.step = step;
    this.epoch = epoch;
    this.position = position;
  }

  /** Updates made. */
  public long step() {
    return step;
  }

  /** Epochs completed. */
  public long epoch() {
    return epoch;
  }

  /** Samples of the present epoch already drawn. */
  public int position() {
    return position;
  }

  @Override
  public @NonNull String toString() {
    return "step " + step + ", epoch " + epoch + ", position " + position;
  }
}
