package io.pocketticket;

/** Which values a trainer starts from and resets to. */
public enum Start {
  /** The ticket's initial values. */
  INIT(0),
  /** The trained values, if the artifact carries any. */
  TRAINED(1);

  final int code;

  Start(int code) {
    this.code = code;
  }
}
