package io.pocketticket;

import java.nio.ByteBuffer;
import java.nio.charset.Charset;

/**
 * The native methods, device_runtime/jni: calls of ticket_runtime.h. They check no handle, array length or thread;
 * {@link Session} and {@link Trainer} do. What returns an int returns a status, 0 for done, and then has written its
 * text.
 *
 * <p>The library is {@code ticket_runtime_jni}, or the file that the system property {@code io.pocketticket.library}
 * names.
 */
final class Native {
  static final Charset UTF_8 = Charset.forName("UTF-8");
  static final int TEXT_BYTES = 256;

  private static final int CORRUPT_ARTIFACT = 1;
  private static final int INCOMPATIBLE_ARTIFACT = 2;
  private static final int UNSUPPORTED_OPERATOR = 3;
  private static final int CORRUPT_CHECKPOINT = 4;
  private static final int BUDGET_EXCEEDED = 5;
  private static final int NON_FINITE_LOSS = 6;
  private static final int INVALID_INPUT = 7;
  private static final int NO_MEMORY = -1;

  static {
    String file = System.getProperty("io.pocketticket.library");
    if (file == null) {
      System.loadLibrary("ticket_runtime_jni");
    } else {
      System.load(file);
    }
  }

  private Native() {}

  /** Throws what a status other than 0 stands for, with the core's text. */
  static void check(int status, byte[] text) {
    if (status == 0) return;
    String message = status == NO_MEMORY ? "no memory is left for that; take a smaller batch" : decoded(text);
    switch (status) {
      case CORRUPT_ARTIFACT:
        throw new CorruptArtifactException(message);
      case INCOMPATIBLE_ARTIFACT:
        throw new IncompatibleArtifactException(message);
      case UNSUPPORTED_OPERATOR:
        throw new UnsupportedOperatorException(message);
      case CORRUPT_CHECKPOINT:
        throw new CorruptCheckpointException(message);
      case BUDGET_EXCEEDED:
      case NO_MEMORY:
        throw new BudgetExceededException(message);
      case NON_FINITE_LOSS:
        throw new NonFiniteLossException(message);
      case INVALID_INPUT:
        throw new InvalidInputException(message);
      default:
        throw new TicketException("status " + status + " of the native library is unknown: " + message);
    }
  }

  /** It may quote bytes of a damaged file, which become replacement characters. */
  private static String decoded(byte[] text) {
    int length = 0;
    while (length < text.length && text[length] != 0) ++length;
    return new String(text, 0, length, UTF_8);
  }

  // On an artifact, in a direct buffer of nothing else.

  static native boolean isAligned(ByteBuffer content);

  static native int inspect(ByteBuffer artifact, long[] facts, byte[] hash, byte[] text);

  static native int operators(ByteBuffer artifact, int[] codes, byte[] text);

  static native String operatorName(int code);

  static native int defaultOptions(ByteBuffer artifact, long[] options, byte[] text);

  static native int memoryPlan(ByteBuffer artifact, long[] options, long[] parts, byte[] text);

  // On a session.

  static native int open(ByteBuffer artifact, long[] options, long[] handle, byte[] text);

  static native void close(long handle);

  static native int fitStep(long handle, float[] samples, Object targets, int sampleCount, long[] state, byte[] text);

  static native int trainStep(long handle, float[] samples, Object targets, int count, long[] state, byte[] text);

  static native int evaluate(
      long handle, float[] samples, Object targets, int first, int count, double[] sums, byte[] text);

  static native int predict(long handle, float[] samples, int first, int count, float[] outputs, byte[] text);

  static native void values(long handle, float[] values);

  static native int progress(long handle, long[] state, byte[] text);

  static native int setLearningRate(long handle, float learningRate, byte[] text);

  static native int reset(long handle, byte[] text);

  static native int kernels(long handle);

  static native long checkpointBytes(long handle);

  static native int save(long handle, byte[] content, byte[] text);

  static native int restore(long handle, byte[] content, byte[] text);

  static native long exportBytes(long handle);

  static native int exportArtifact(long handle, byte[] content, byte[] text);

  // On a folder of the file system: whether its names are safe now. The path ends with a 0.

  static native boolean syncFolder(byte[] path);
}
