package io.pocketticket;

/**
 * How a trainer trains. What is not set comes from the recipe inside the artifact, so that most apps set nothing.
 *
 * <p>The names are those of {@code tkt_options} in ticket_runtime.h, which tells more. Values are checked when a
 * trainer is planned or opened.
 */
public final class TrainerOptions {
  /** Everything as the recipe says, seed 0, one thread, no budget. */
  public static final @NonNull TrainerOptions RECIPE = new Builder().build();

  static final int COUNT = 24;
  static final int BATCH = 0;

  private final long[] values;
  private final int isSet; // a bit an option

  private TrainerOptions(long[] values, int isSet) {
    this.values = values;
    this.isSet = isSet;
  }

  public static @NonNull Builder builder() {
    return new Builder();
  }

  /** Puts what is set over the recipe's options, in the order of the native side. */
  void overlay(long[] recipe) {
    for (int option = 0; option < COUNT; ++option) {
      if ((isSet & 1 << option) != 0) recipe[option] = values[option];
    }
  }

  /** Collects options; {@link #build} may be called any number of times. */
  public static final class Builder {
    private final long[] values = new long[COUNT];
    private int isSet;

    private Builder() {}

    /** Samples a step, 1..65536. */
    public @NonNull Builder batch(int batch) {
      return set(0, count("batch", batch));
    }

    /** How gradients become updates. */
    public @NonNull Builder optimizer(@NonNull Optimizer optimizer) {
      return set(1, optimizer.code);
    }

    /** Which kernels compute; all give the same bits. */
    public @NonNull Builder kernels(@NonNull Kernels kernels) {
      return set(2, kernels.code);
    }

    /** Which values the trainer starts from and resets to. */
    public @NonNull Builder start(@NonNull Start start) {
      return set(3, start.code);
    }

    /** Finite, at least 0. */
    public @NonNull Builder learningRate(float learningRate) {
      return set(4, Float.floatToRawIntBits(learningRate));
    }

    /** SGD, in [0, 1); 0 stores no velocity. */
    public @NonNull Builder momentum(float momentum) {
      return set(5, Float.floatToRawIntBits(momentum));
    }

    /** At least 0; L2, or decoupled for AdamW. */
    public @NonNull Builder weightDecay(float weightDecay) {
      return set(6, Float.floatToRawIntBits(weightDecay));
    }

    /** Adam and AdamW, in [0, 1). */
    public @NonNull Builder beta1(float beta1) {
      return set(7, Float.floatToRawIntBits(beta1));
    }

    /** Adam and AdamW, in [0, 1). */
    public @NonNull Builder beta2(float beta2) {
      return set(8, Float.floatToRawIntBits(beta2));
    }

    /** Adam and AdamW, above 0. */
    public @NonNull Builder epsilon(float epsilon) {
      return set(9, Float.floatToRawIntBits(epsilon));
    }

    /** SGD with momentum. */
    public @NonNull Builder nesterov(boolean nesterov) {
      return set(10, nesterov ? 1 : 0);
    }

    /** Cross-entropy, in [0, 1). */
    public @NonNull Builder labelSmoothing(float labelSmoothing) {
      return set(11, Float.floatToRawIntBits(labelSmoothing));
    }

    /** Larger gradients are scaled down to this norm; 0 for never. */
    public @NonNull Builder clipNorm(float clipNorm) {
      return set(12, Float.floatToRawIntBits(clipNorm));
    }

    /** How the learning rate goes on after its warm-up. */
    public @NonNull Builder schedule(@NonNull Schedule schedule) {
      return set(13, schedule.code);
    }

    /** Steps in which the learning rate rises to its value. */
    public @NonNull Builder warmupSteps(int warmupSteps) {
      return set(14, count("warmupSteps", warmupSteps));
    }

    /** The n of the schedule. */
    public @NonNull Builder scheduleSteps(int scheduleSteps) {
      return set(15, count("scheduleSteps", scheduleSteps));
    }

    /** The f of the schedule, in [0, 1]. */
    public @NonNull Builder scheduleFactor(float scheduleFactor) {
      return set(16, Float.floatToRawIntBits(scheduleFactor));
    }

    /** Samples computed at a time; 0 for the whole batch, or what the budget allows. */
    public @NonNull Builder microBatch(int microBatch) {
      return set(17, count("microBatch", microBatch));
    }

    /** Keep gradients where plain SGD needs none; then an error changes nothing. */
    public @NonNull Builder storeGradients(boolean storeGradients) {
      return set(18, storeGradients ? 1 : 0);
    }

    /** Compute activations twice wherever that saves memory; the same bits. */
    public @NonNull Builder recompute(boolean recompute) {
      return set(19, recompute ? 1 : 0);
    }

    /** Keep activations for the backward pass as half floats; rounds the gradients. */
    public @NonNull Builder halfActivations(boolean halfActivations) {
      return set(20, halfActivations ? 1 : 0);
    }

    /** That share a step, the caller's among them, 1..64; results do not depend on it. */
    public @NonNull Builder threads(int threads) {
      return set(21, count("threads", threads));
    }

    /** Of the sample order and of dropout. */
    public @NonNull Builder seed(long seed) {
      return set(22, seed);
    }

    /** Refuse a larger arena; 0 for no limit. Over it a batch is worked through in parts, then nodes are recomputed. */
    public @NonNull Builder budgetBytes(long budgetBytes) {
      return set(23, count("budgetBytes", budgetBytes));
    }

    public @NonNull TrainerOptions build() {
      return new TrainerOptions(values.clone(), isSet);
    }

    private Builder set(int option, long value) {
      values[option] = value;
      isSet |= 1 << option;
      return this;
    }

    private static long count(String name, long value) {
      if (value < 0) throw new InvalidInputException(name + " " + value + " is below 0; give a whole number from 0 on");
      return value;
    }
  }
}
