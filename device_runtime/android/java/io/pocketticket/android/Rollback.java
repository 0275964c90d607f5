package io.pocketticket.android;

import io.pocketticket.NonNull;

/**
 * Whether what was learnt stays: a pure function of how many held-out samples were right before and after.
 *
 * <p>Own held-out samples decide first; shipped ones then tell what was forgotten. Where there are none, they decide
 * nothing.
 */
public final class Rollback {
  /** What becomes of a lesson. */
  public enum Decision {
    KEEP,
    /** Fewer of the user's own held-out samples are right than before. */
    WORSE_ON_OWN,
    /** More was forgotten of the shipped samples than is allowed. */
    FORGOT_TOO_MUCH;

    public boolean isKept() {
      return this == KEEP;
    }
  }

  private final double mayForget;

  /** {@code mayForget}: by how much the accuracy on the shipped samples may fall, in [0, 1]. */
  public Rollback(double mayForget) {
    if (!(mayForget >= 0 && mayForget <= 1)) {
      throw new IllegalArgumentException("mayForget " + mayForget + " must be a share in [0, 1]");
    }
    this.mayForget = mayForget;
  }

  /** Decides by the numbers of right answers. */
  public @NonNull Decision decide(@NonNull Score before, @NonNull Score after) {
    if (after.own() < before.own()) return Decision.WORSE_ON_OWN;
    if (before.shipped() - after.shipped() > mayForget * after.shippedCount()) return Decision.FORGOT_TOO_MUCH;
    return Decision.KEEP;
  }
}
