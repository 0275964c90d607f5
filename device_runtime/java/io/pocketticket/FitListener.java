package io.pocketticket;

/** Is told of every step of a fit, between steps, in the thread that fits. */
public interface FitListener {
  /**
   * @param progress after the step
   * @param loss of the step's samples, before it
   * @return false to stop here; then the checkpoint is saved and the report says cancelled
   */
  boolean onStep(@NonNull Progress progress, float loss);
}
