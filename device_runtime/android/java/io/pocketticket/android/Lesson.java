package io.pocketticket.android;

import io.pocketticket.NonNull;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

/**
 * One training on the device, with its samples frozen, so that it can be broken off at any step and go on exactly.
 *
 * <p>What is drawn or deleted meanwhile belongs to the next lesson. Refuses to train on nothing.
 */
public final class Lesson {
  private final Samples training;
  private final Samples heldOut;
  private final Samples shipped;
  private final int epochs;

  /**
   * Trains on {@code training} for {@code epochs}; {@code heldOut}, the user's own, and {@code shipped} decide whether
   * it was for the better, and either may be empty.
   */
  public Lesson(@NonNull Samples training, @NonNull Samples heldOut, @NonNull Samples shipped, int epochs) {
    if (training.count() == 0)
      throw new IllegalArgumentException("a lesson without samples to train on; collect some first");
    if (epochs < 1) throw new IllegalArgumentException("epochs " + epochs + " must be at least 1");
    this.training = training;
    this.heldOut = heldOut;
    this.shipped = shipped;
    this.epochs = epochs;
  }

  public @NonNull Samples training() {
    return training;
  }

  public @NonNull Samples heldOut() {
    return heldOut;
  }

  public @NonNull Samples shipped() {
    return shipped;
  }

  public int epochs() {
    return epochs;
  }

  void write(DataOutputStream out) throws IOException {
    out.writeInt(epochs);
    write(out, training);
    write(out, heldOut);
    write(out, shipped);
  }

  static Lesson read(DataInputStream in) throws IOException {
    int epochs = in.readInt();
    return new Lesson(readSamples(in), readSamples(in), readSamples(in), epochs);
  }

  private static void write(DataOutputStream out, Samples samples) throws IOException {
    out.writeInt(samples.elements());
    out.writeInt(samples.count());
    for (int label : samples.labels()) out.writeInt(label);
    ByteBuffer bytes = ByteBuffer.allocate(4 * samples.values().length);
    bytes.asFloatBuffer().put(samples.values());
    out.write(bytes.array());
  }

  private static Samples readSamples(DataInputStream in) throws IOException {
    int elements = in.readInt();
    int[] labels = new int[in.readInt()];
    for (int at = 0; at < labels.length; ++at) labels[at] = in.readInt();
    byte[] bytes = new byte[4 * elements * labels.length];
    in.readFully(bytes);
    FloatBuffer floats = ByteBuffer.wrap(bytes).asFloatBuffer();
    float[] values = new float[floats.remaining()];
    floats.get(values);
    return new Samples(values, labels, elements);
  }
}
