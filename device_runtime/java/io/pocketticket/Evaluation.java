package io.pocketticket;

/** How good a network is on some samples. */
public final class Evaluation {
  private final double loss;
  private final double accuracy;
  private final int correct;
  private final int count;

  Evaluation(double loss, double accuracy, int correct, int count) {
    this.loss = loss;
    this.accuracy = accuracy;
    this.correct = correct;
    this.count = count;
  }

  /** Mean loss a sample; of cross-entropy in nats. */
  public double loss() {
    return loss;
  }

  /** {@code correct / count}. */
  public double accuracy() {
    return accuracy;
  }

  /** Samples whose best class is the label (ties: the lowest); see tkt_evaluate for the other losses. */
  public int correct() {
    return correct;
  }

  /** Samples looked at. */
  public int count() {
    return count;
  }
}
