package io.pocketticket;

/** How gradients become updates. */
public enum Optimizer {
  /** Stochastic gradient descent, with momentum or without. */
  SGD(1),
  /** Adam (Kingma and Ba 2015). */
  ADAM(2),
  /** Adam with decoupled weight decay (Loshchilov and Hutter 2019). */
  ADAMW(3);

  final int code;

  Optimizer(int code) {
    this.code = code;
  }
}
