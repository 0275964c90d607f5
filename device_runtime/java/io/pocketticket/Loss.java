package io.pocketticket;

/** What a network is trained on. */
public enum Loss {
  /** Labels, whole numbers in [0, classCount). */
  CROSS_ENTROPY(1),
  /** Floats, classCount a sample. */
  MEAN_SQUARED_ERROR(2),
  /** Floats in [0, 1], classCount a sample. */
  BINARY_CROSS_ENTROPY(3);

  final int code;

  Loss(int code) {
    this.code = code;
  }
}
