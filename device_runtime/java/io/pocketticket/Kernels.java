package io.pocketticket;

/** Which build of the computing kernels runs. All of them give the same bits. */
public enum Kernels {
  /** The fastest that the processor has. */
  AUTO(0),
  /** Plain C++, the reference. */
  SCALAR(1),
  /** x86-64. */
  AVX2(2),
  /** x86-64. */
  AVX512(3),
  /** ARM, 64 bits. */
  NEON(4);

  final int code;

  Kernels(int code) {
    this.code = code;
  }
}
