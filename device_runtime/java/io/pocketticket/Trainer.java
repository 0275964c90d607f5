package io.pocketticket;

import java.io.File;
import java.io.IOException;
import java.util.concurrent.Executor;

/**
 * One sparse network with its optimizer and its sample order; an app needs nothing else.
 *
 * <p>Samples are floats in the raw units of the training data, one after the other, {@code inputElements} each. Targets are
 * labels in [0, classCount), or for {@link Loss#MEAN_SQUARED_ERROR} and {@link Loss#BINARY_CROSS_ENTROPY} floats, {@code
 * classCount} a sample. All memory is taken by {@link #open}, outside the Java heap, and given back by {@link #close}.
 * Nothing is sent anywhere: there is no network code.
 *
 * <p>Threads: one at a time. A verb that is called while another thread is in one throws IllegalStateException, and so
 * does any verb after close; {@link #cancel} and {@link #close} may be called from any thread at any time. A {@link
 * FitListener} may call evaluate, predict, save, export, values, progress and setLearningRate of its trainer.
 *
 * <p>After an error the values are as they were before the step that failed, but see {@code store_gradients} in
 * ticket_runtime.h for plain SGD.
 */
public final class Trainer implements AutoCloseable {
  private Trainer() {}

  /** A trainer at step 0. Throws BudgetExceededException, InvalidInputException, or what is wrong with the artifact. */
  public static @NonNull Trainer open(@NonNull Artifact artifact, @NonNull TrainerOptions options) {
    throw new UnsupportedOperationException();
  }

  /** The memory that {@link #open} would take, exactly; nothing is allocated. */
  public static @NonNull MemoryPlan plan(@NonNull Artifact artifact, @NonNull TrainerOptions options) {
    throw new UnsupportedOperationException();
  }

  /**
   * Trains until the trainer has completed the options' epochs or steps in its whole life, or is cancelled.
   *
   * <p>With a checkpoint a trainer that has done nothing since it was opened goes on from the file if there is one, and
   * gives the losses of a fit that was never interrupted. The checkpoint is saved every so many steps, at the end and on a
   * cancel; an exception leaves the one saved last.
   */
  public @NonNull FitReport fit(@NonNull float[] samples, @NonNull int[] labels, @NonNull FitOptions options)
      throws IOException {
    throw new UnsupportedOperationException();
  }

  /** The same for float targets, {@code classCount} a sample. */
  public @NonNull FitReport fit(@NonNull float[] samples, @NonNull float[] targets, @NonNull FitOptions options)
      throws IOException {
    throw new UnsupportedOperationException();
  }

  /** A fit in a thread of the executor; the arrays must not change until it ends. */
  public @NonNull TrainerTask fitAsync(
      @NonNull float[] samples,
      @NonNull int[] labels,
      @NonNull FitOptions options,
      @NonNull Executor executor,
      @Nullable FitCallback callback) {
    throw new UnsupportedOperationException();
  }

  /** The same for float targets. */
  public @NonNull TrainerTask fitAsync(
      @NonNull float[] samples,
      @NonNull float[] targets,
      @NonNull FitOptions options,
      @NonNull Executor executor,
      @Nullable FitCallback callback) {
    throw new UnsupportedOperationException();
  }

  /** Ends a running fit after the step under way; it saves its checkpoint and reports cancelled. No fit: no effect. */
  public void cancel() {
    throw new UnsupportedOperationException();
  }

  /** One update with at most {@link #batch} samples; the mean loss before it. Leaves epoch and position alone. */
  public float trainStep(@NonNull float[] samples, @NonNull int[] labels) {
    throw new UnsupportedOperationException();
  }

  /** The same for float targets. */
  public float trainStep(@NonNull float[] samples, @NonNull float[] targets) {
    throw new UnsupportedOperationException();
  }

  /** Loss and accuracy over any number of samples. */
  public @NonNull Evaluation evaluate(@NonNull float[] samples, @NonNull int[] labels) {
    throw new UnsupportedOperationException();
  }

  /** The same for float targets. */
  public @NonNull Evaluation evaluate(@NonNull float[] samples, @NonNull float[] targets) {
    throw new UnsupportedOperationException();
  }

  /** Probabilities of any number of samples, {@code classCount} each; for MEAN_SQUARED_ERROR the outputs themselves. */
  public @NonNull float[] predict(@NonNull float[] samples) {
    throw new UnsupportedOperationException();
  }

  /** Writes a checkpoint; the file that was there becomes {@code NAME.previous}, and no kill or full disk costs both. */
  public void save(@NonNull File file) throws IOException {
    throw new UnsupportedOperationException();
  }

  /**
   * Goes on from a checkpoint and returns the file that was read: the one given, or {@code NAME.previous} where that is
   * damaged or missing. Throws FileNotFoundException if there is neither, CorruptCheckpointException if none is good;
   * the trainer is then as before.
   */
  public @NonNull File restore(@NonNull File file) throws IOException {
    throw new UnsupportedOperationException();
  }

  /** Back to the values it was opened with, at step 0; the seed stays. */
  public void reset() {
    throw new UnsupportedOperationException();
  }

  /** A new artifact: the same ticket with the present values as its trained ones. */
  public @NonNull byte[] export() {
    throw new UnsupportedOperationException();
  }

  /** The same into a file, which is replaced whole or not at all. */
  public void export(@NonNull File file) throws IOException {
    throw new UnsupportedOperationException();
  }

  public @NonNull Progress progress() {
    throw new UnsupportedOperationException();
  }

  /** A copy of every stored value, in the artifact's order. */
  public @NonNull float[] values() {
    throw new UnsupportedOperationException();
  }

  /** Of all later steps, by which a schedule's factors go; not in a checkpoint. */
  public void setLearningRate(float learningRate) {
    throw new UnsupportedOperationException();
  }

  public @NonNull TicketInfo info() {
    throw new UnsupportedOperationException();
  }

  /** Samples a step. */
  public int batch() {
    throw new UnsupportedOperationException();
  }

  /** The memory this trainer takes, by part. */
  public @NonNull MemoryPlan memory() {
    throw new UnsupportedOperationException();
  }

  /** The kernels that run, never AUTO. */
  public @NonNull Kernels kernels() {
    throw new UnsupportedOperationException();
  }

  /**
   * Gives the memory back. A running fit is cancelled and waited for, any other verb waited for; inside a listener it
   * takes effect when the fit ends. Any number of times, from any thread.
   */
  @Override
  public void close() {
    throw new UnsupportedOperationException();
  }
}
