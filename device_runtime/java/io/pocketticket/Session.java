package io.pocketticket;

import java.nio.ByteBuffer;

/**
 * One open trainer of the native side, and the small arrays through which it answers, so that a step makes no garbage.
 * For one thread at a time and not after {@link #close}: {@link Trainer} sees to both.
 */
final class Session {
  private final ByteBuffer artifact; // read by the native side until it is closed
  private final byte[] text = new byte[Native.TEXT_BYTES];
  private final long[] state = new long[4];
  private final double[] sums = new double[2];
  private long handle;

  Session(ByteBuffer artifact, long[] options) {
    this.artifact = artifact;
    long[] opened = new long[1];
    Native.check(Native.open(artifact, options, opened, text), text);
    handle = opened[0];
  }

  static MemoryPlan plan(ByteBuffer artifact, long[] options) {
    byte[] text = new byte[Native.TEXT_BYTES];
    long[] m = new long[11];
    Native.check(Native.memoryPlan(artifact, options, m, text), text);
    return new MemoryPlan(m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], (int) m[8], (int) m[9], (int) m[10]);
  }

  boolean isOpen() {
    return handle != 0;
  }

  void close() {
    Native.close(handle);
    handle = 0;
  }

  /** One update with the next batch of these samples; its loss. Then {@link #step}, {@link #epoch} are up to date. */
  float fitStep(Samples data) {
    check(Native.fitStep(handle, data.samples, data.targets, data.count, state, text), data);
    return loss();
  }

  float trainStep(Samples data) {
    check(Native.trainStep(handle, data.samples, data.targets, data.count, state, text), data);
    return loss();
  }

  /** The sum of the losses of `count` samples from `first` on; then {@link #correct} is up to date. */
  double evaluate(Samples data, int first, int count) {
    check(Native.evaluate(handle, data.samples, data.targets, first, count, sums, text), data);
    return sums[0];
  }

  int correct() {
    return (int) sums[1];
  }

  void predict(Samples data, int first, int count, float[] outputs) {
    check(Native.predict(handle, data.samples, first, count, outputs, text), data);
  }

  Progress progress() {
    readProgress();
    return new Progress(step(), epoch(), (int) state[2]);
  }

  /** Brings {@link #step} and {@link #epoch} up to date. */
  void readProgress() {
    check(Native.progress(handle, state, text));
  }

  long step() {
    return state[0];
  }

  long epoch() {
    return state[1];
  }

  float[] values(int count) {
    float[] values = new float[count];
    Native.values(handle, values);
    return values;
  }

  void setLearningRate(float learningRate) {
    check(Native.setLearningRate(handle, learningRate, text));
  }

  void reset() {
    check(Native.reset(handle, text));
  }

  Kernels kernels() {
    int code = Native.kernels(handle);
    for (Kernels kernels : Kernels.values()) {
      if (kernels.code == code) return kernels;
    }
    throw new IllegalStateException("kernels " + code + " of the native library are not known");
  }

  byte[] save() {
    byte[] content = new byte[size(Native.checkpointBytes(handle))];
    check(Native.save(handle, content, text));
    return content;
  }

  void restore(byte[] content) {
    check(Native.restore(handle, content, text));
  }

  byte[] export() {
    byte[] content = new byte[size(Native.exportBytes(handle))];
    check(Native.exportArtifact(handle, content, text));
    return content;
  }

  private float loss() {
    return Float.intBitsToFloat((int) state[3]);
  }

  private void check(int status) {
    Native.check(status, text);
  }

  private void check(int status, Samples data) {
    try {
      check(status);
    } catch (InvalidInputException error) {
      throw data.named(error);
    }
  }

  private static int size(long bytes) {
    if (bytes > Integer.MAX_VALUE - 8) {
      throw new BudgetExceededException("a file of " + bytes + " bytes is longer than an array of Java may be");
    }
    return (int) bytes;
  }
}
