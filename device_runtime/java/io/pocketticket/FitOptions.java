package io.pocketticket;

/** How long a fit goes on, who is told, and where its state is kept. */
public final class FitOptions {
  /** The recipe's number of epochs; nobody is told, nothing is kept. */
  public static final @NonNull FitOptions RECIPE = new Builder().build();

  final int epochs; // 0: the recipe's
  final long steps; // -1: by epochs
  final @Nullable FitListener listener;
  final @Nullable Checkpoint checkpoint;

  private FitOptions(Builder builder) {
    epochs = builder.epochs;
    steps = builder.steps;
    listener = builder.listener;
    checkpoint = builder.checkpoint;
  }

  public static @NonNull Builder builder() {
    return new Builder();
  }

  /** Collects options; of epochs and steps at most one. */
  public static final class Builder {
    private int epochs;
    private long steps = -1;
    private FitListener listener;
    private Checkpoint checkpoint;

    private Builder() {}

    /** Until the trainer has completed so many epochs in its whole life, what it did before a restart among them. */
    public @NonNull Builder epochs(int epochs) {
      if (epochs < 1) throw new InvalidInputException("epochs " + epochs + " must be at least 1");
      this.epochs = epochs;
      return this;
    }

    /** Until the trainer has made so many updates in its whole life. */
    public @NonNull Builder steps(long steps) {
      if (steps < 0) throw new InvalidInputException("steps " + steps + " must be at least 0");
      this.steps = steps;
      return this;
    }

    public @NonNull Builder listener(@Nullable FitListener listener) {
      this.listener = listener;
      return this;
    }

    /** Where to keep the state. A trainer that has done nothing yet goes on from the file, if it is there. */
    public @NonNull Builder checkpoint(@Nullable Checkpoint checkpoint) {
      this.checkpoint = checkpoint;
      return this;
    }

    public @NonNull FitOptions build() {
      if (epochs > 0 && steps >= 0) {
        throw new InvalidInputException("epochs " + epochs + " and steps " + steps + " were both given; give one");
      }
      return new FitOptions(this);
    }
  }
}
