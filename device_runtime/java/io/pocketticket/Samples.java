package io.pocketticket;

/**
 * Samples with their targets, as they were given: {@code inputElements} floats a sample, and a label each or {@code
 * classCount} floats. Refuses arrays that do not fit each other or the network, labels of no class, and nothing at all.
 */
final class Samples {
  final float[] samples;
  final @Nullable Object targets; // int[], float[], or null where none are needed
  final int count;

  private final int elements;
  private final int classCount;

  private Samples(float[] samples, @Nullable Object targets, TicketInfo info) {
    this.samples = samples;
    this.targets = targets;
    elements = info.inputElements;
    classCount = info.classCount;
    count = samples.length / elements;
    if (samples.length == 0) throw new InvalidInputException("samples is empty; give at least one sample");
    if (count * elements != samples.length) {
      throw new InvalidInputException(
          "samples has " + samples.length + " floats, but the network takes " + elements + " a sample");
    }
  }

  static Samples unlabelled(float[] samples, TicketInfo info) {
    return new Samples(samples, null, info);
  }

  static Samples of(float[] samples, int[] labels, TicketInfo info) {
    if (info.loss != Loss.CROSS_ENTROPY) {
      throw new InvalidInputException(
          "labels do not fit the loss " + info.loss + "; give " + info.classCount + " floats a sample");
    }
    Samples data = new Samples(samples, labels, info);
    data.checkTargets("labels", labels.length, 1);
    for (int i = 0; i < labels.length; ++i) {
      if (labels[i] < 0 || labels[i] >= info.classCount) {
        throw new InvalidInputException("labels[" + i + "] is " + labels[i]
            + ", but the labels of this network are in 0.." + (info.classCount - 1));
      }
    }
    return data;
  }

  static Samples of(float[] samples, float[] targets, TicketInfo info) {
    if (info.loss == Loss.CROSS_ENTROPY) {
      throw new InvalidInputException("floats do not fit the loss " + info.loss + "; give a label, an int, a sample");
    }
    Samples data = new Samples(samples, targets, info);
    data.checkTargets("targets", targets.length, info.classCount);
    return data;
  }

  /** Floats of all outputs. */
  int outputCount() {
    long floats = (long) count * classCount;
    if (floats <= Integer.MAX_VALUE - 8) return (int) floats;
    throw new InvalidInputException(count + " samples have more outputs than an array of Java may; split them");
  }

  /**
   * What to throw in the place of an error of the core, which counts samples within a batch: where that is a sample's,
   * the first one that is not finite, named by its place among all.
   */
  InvalidInputException named(InvalidInputException error) {
    if (!error.getMessage().startsWith("samples[")) return error;
    for (int i = 0; i < samples.length; ++i) {
      if (Float.isNaN(samples[i]) || Float.isInfinite(samples[i])) {
        return new InvalidInputException(
            "sample " + i / elements + " is " + samples[i] + " at element " + i % elements + "; give finite values");
      }
    }
    return error;
  }

  private void checkTargets(String what, int length, int each) {
    if (length == (long) count * each) return;
    throw new InvalidInputException(
        what + " has " + length + " elements, but " + count + " samples take " + (long) count * each);
  }
}
