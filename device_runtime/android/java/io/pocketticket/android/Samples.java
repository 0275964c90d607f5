package io.pocketticket.android;

import io.pocketticket.NonNull;
import java.util.Arrays;

/**
 * Labelled samples as a trainer takes them: values one sample after the other, in the raw units of the training data.
 *
 * <p>The arrays are not copied, neither in nor out; change them no more. Refuses arrays that do not fit each other.
 */
public final class Samples {
  private final float[] values; // (count, elements)
  private final int[] labels; // (count,)
  private final int elements;

  /** {@code elements} values for each label. */
  public Samples(@NonNull float[] values, @NonNull int[] labels, int elements) {
    if (elements < 1) throw new IllegalArgumentException("elements " + elements + " must be at least 1");
    if (values.length != (long) labels.length * elements) {
      throw new IllegalArgumentException(
          values.length + " values for " + labels.length + " labels; give " + elements + " for each");
    }
    this.values = values;
    this.labels = labels;
    this.elements = elements;
  }

  public static @NonNull Samples none(int elements) {
    return new Samples(new float[0], new int[0], elements);
  }

  public @NonNull float[] values() {
    return values;
  }

  public @NonNull int[] labels() {
    return labels;
  }

  /** Values of one sample. */
  public int elements() {
    return elements;
  }

  public int count() {
    return labels.length;
  }

  /** These, then the others. */
  public @NonNull Samples plus(@NonNull Samples others) {
    if (others.elements != elements) {
      throw new IllegalArgumentException(
          "samples of " + elements + " and of " + others.elements + " values do not mix; take one artifact's");
    }
    float[] all = Arrays.copyOf(values, values.length + others.values.length);
    System.arraycopy(others.values, 0, all, values.length, others.values.length);
    int[] of = Arrays.copyOf(labels, labels.length + others.labels.length);
    System.arraycopy(others.labels, 0, of, labels.length, others.labels.length);
    return new Samples(all, of, elements);
  }
}
