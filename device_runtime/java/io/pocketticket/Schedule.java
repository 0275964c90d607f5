package io.pocketticket;

/** How the learning rate goes on after its warm-up, with n = scheduleSteps and f = scheduleFactor. */
public enum Schedule {
  /** It stays. */
  CONSTANT(0),
  /** Times f every n updates. */
  STEP(1),
  /** Falls to f times itself within n updates along a cosine. */
  COSINE(2),
  /** Falls to f times itself within n updates along a line. */
  LINEAR(3);

  final int code;

  Schedule(int code) {
    this.code = code;
  }
}
