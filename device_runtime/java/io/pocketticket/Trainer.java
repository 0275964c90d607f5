package io.pocketticket;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * One sparse network with its optimizer and its sample order; an app needs nothing else.
 *
 * <p>Samples are floats in the raw units of the training data, one after the other, {@code inputElements} each. Targets
 * are labels in [0, classCount), or for {@link Loss#MEAN_SQUARED_ERROR} and {@link Loss#BINARY_CROSS_ENTROPY} floats,
 * {@code classCount} a sample. All memory is taken by {@link #open}, outside the Java heap, and given back by {@link
 * #close}. Nothing is sent anywhere: there is no network code.
 *
 * <p>Threads: one at a time. A verb that is called while another thread is in one throws IllegalStateException, and so
 * does any verb after close; {@link #cancel} and {@link #close} may be called from any thread at any time. A {@link
 * FitListener} may call evaluate, predict, save, export, values, progress and setLearningRate of its trainer.
 *
 * <p>After an error the values are as they were before the step that failed, but see {@code store_gradients} in
 * ticket_runtime.h for plain SGD.
 */
public final class Trainer implements AutoCloseable {
  private final TicketInfo info;
  private final MemoryPlan memory;
  private final int batch;
  private final Session session; // used by who holds the turn alone
  private final Turn turn = new Turn();
  private boolean isFresh = true; // nothing was done since it was opened; likewise
  private volatile AtomicBoolean fitCancelled = new AtomicBoolean(); // of the fit under way, if any

  private Trainer(Artifact artifact, TrainerOptions options) {
    ByteBuffer content = artifact.direct();
    long[] chosen = chosen(content, options);
    info = artifact.info();
    memory = Session.plan(content, chosen);
    batch = (int) chosen[TrainerOptions.BATCH];
    session = new Session(content, chosen);
  }

  /** A trainer at step 0. Throws BudgetExceededException, InvalidInputException, or what is wrong with the artifact. */
  public static @NonNull Trainer open(@NonNull Artifact artifact, @NonNull TrainerOptions options) {
    return new Trainer(artifact, options);
  }

  /**
   * The memory that {@link #open} would take, exactly; nothing is allocated. Where a budget cannot be met it is the
   * least that is possible, and open refuses.
   */
  public static @NonNull MemoryPlan plan(@NonNull Artifact artifact, @NonNull TrainerOptions options) {
    ByteBuffer content = artifact.direct();
    return Session.plan(content, chosen(content, options));
  }

  /**
   * Trains until the trainer has completed the options' epochs or steps in its whole life, or is cancelled.
   *
   * <p>With a checkpoint a trainer that has done nothing since it was opened goes on from the file if there is one, and
   * gives the losses of a fit that was never interrupted. The checkpoint is saved every so many steps, at the end and
   * on a cancel; an exception leaves the one saved last.
   */
  public @NonNull FitReport fit(@NonNull float[] samples, @NonNull int[] labels, @NonNull FitOptions options)
      throws IOException {
    return fit(Samples.of(samples, labels, info), options, new AtomicBoolean());
  }

  /** The same for float targets, {@code classCount} a sample. */
  public @NonNull FitReport fit(@NonNull float[] samples, @NonNull float[] targets, @NonNull FitOptions options)
      throws IOException {
    return fit(Samples.of(samples, targets, info), options, new AtomicBoolean());
  }

  /** A fit in a thread of the executor; the arrays must not change until it ends. */
  public @NonNull TrainerTask fitAsync(@NonNull float[] samples, @NonNull int[] labels, @NonNull FitOptions options,
      @NonNull Executor executor, @Nullable FitCallback callback) {
    return fitAsync(Samples.of(samples, labels, info), options, executor, callback);
  }

  /** The same for float targets. */
  public @NonNull TrainerTask fitAsync(@NonNull float[] samples, @NonNull float[] targets, @NonNull FitOptions options,
      @NonNull Executor executor, @Nullable FitCallback callback) {
    return fitAsync(Samples.of(samples, targets, info), options, executor, callback);
  }

  /** Ends a running fit after the step under way; it saves its checkpoint and reports cancelled. No fit: no effect. */
  public void cancel() {
    fitCancelled.set(true);
  }

  /** One update with at most {@link #batch} samples; the mean loss before it. Leaves epoch and position alone. */
  public float trainStep(@NonNull float[] samples, @NonNull int[] labels) {
    return trainStep(Samples.of(samples, labels, info));
  }

  /** The same for float targets. */
  public float trainStep(@NonNull float[] samples, @NonNull float[] targets) {
    return trainStep(Samples.of(samples, targets, info));
  }

  /** Loss and accuracy over any number of samples. */
  public @NonNull Evaluation evaluate(@NonNull float[] samples, @NonNull int[] labels) {
    return evaluate(Samples.of(samples, labels, info));
  }

  /** The same for float targets. */
  public @NonNull Evaluation evaluate(@NonNull float[] samples, @NonNull float[] targets) {
    return evaluate(Samples.of(samples, targets, info));
  }

  /** Probabilities of any number of samples, {@code classCount} each; for MEAN_SQUARED_ERROR the outputs themselves. */
  public @NonNull float[] predict(@NonNull float[] samples) {
    Samples data = Samples.unlabelled(samples, info);
    turn.enter("predict");
    try {
      float[] outputs = new float[data.outputCount()];
      for (int first = 0; first < data.count; first += memory.microBatch()) {
        turn.checkOpen();
        session.predict(data, first, Math.min(memory.microBatch(), data.count - first), outputs);
      }
      return outputs;
    } finally {
      leave();
    }
  }

  /**
   * Writes a checkpoint; the file that was there becomes {@code NAME.previous}, and no kill or full disk costs both. An
   * IOException that tells of the folder comes after the new one is in place, though perhaps not yet safe.
   */
  public void save(@NonNull File file) throws IOException {
    turn.enter("save");
    try {
      CheckpointFiles.save(file, session.save());
    } finally {
      leave();
    }
  }

  /**
   * Goes on from a checkpoint and returns the file that was read: the one given, or where that is damaged or missing
   * the one before, {@code NAME.previous}, which a kill may have left as {@code NAME.kept}. Throws
   * FileNotFoundException if there is none, IOException if one cannot be read, CorruptCheckpointException if all are
   * damaged; the trainer is then as before.
   */
  public @NonNull File restore(@NonNull File file) throws IOException {
    turn.enterAlone("restore");
    try {
      File read = CheckpointFiles.load(file, new FitLoop.SessionReader(session));
      isFresh = false;
      return read;
    } finally {
      leave();
    }
  }

  /** Back to the values it was opened with, at step 0; the seed stays. */
  public void reset() {
    turn.enterAlone("reset");
    try {
      session.reset();
      isFresh = false;
    } finally {
      leave();
    }
  }

  /** A new artifact: the same ticket with the present values as its trained ones. */
  public @NonNull byte[] export() {
    turn.enter("export");
    try {
      return session.export();
    } finally {
      leave();
    }
  }

  /** The same into a file, which is replaced whole or not at all. */
  public void export(@NonNull File file) throws IOException {
    byte[] content = export();
    CheckpointFiles.write(file, content);
  }

  public @NonNull Progress progress() {
    turn.enter("progress");
    try {
      return session.progress();
    } finally {
      leave();
    }
  }

  /** A copy of every stored value, in the artifact's order. */
  public @NonNull float[] values() {
    turn.enter("values");
    try {
      return session.values((int) info.valueCount);
    } finally {
      leave();
    }
  }

  /** Of all later steps, by which a schedule's factors go; not in a checkpoint. */
  public void setLearningRate(float learningRate) {
    turn.enter("setLearningRate");
    try {
      session.setLearningRate(learningRate);
    } finally {
      leave();
    }
  }

  public @NonNull TicketInfo info() {
    return info;
  }

  /** Samples a step. */
  public int batch() {
    return batch;
  }

  /** The memory this trainer takes, by part. */
  public @NonNull MemoryPlan memory() {
    return memory;
  }

  /** The kernels that run, never AUTO. */
  public @NonNull Kernels kernels() {
    turn.enter("kernels");
    try {
      return session.kernels();
    } finally {
      leave();
    }
  }

  /**
   * Gives the memory back. A running fit is cancelled and waited for, any other verb waited for; inside a listener it
   * takes effect when the fit ends. Any number of times, from any thread.
   */
  @Override
  public void close() {
    turn.announceEnd();
    cancel();
    if (turn.awaitEnd()) leave();
  }

  private FitReport fit(Samples data, FitOptions options, AtomicBoolean cancelled) throws IOException {
    turn.enterAlone("fit");
    try {
      fitCancelled = cancelled;
      if (turn.isLast()) cancelled.set(true); // close was called before it could see this one
      FitLoop loop = new FitLoop(session, data, options, cancelled);
      if (isFresh) loop.resume();
      isFresh = false;
      return loop.run(info.epochs);
    } finally {
      leave();
    }
  }

  private TrainerTask fitAsync(
      final Samples data, final FitOptions options, Executor executor, final @Nullable FitCallback callback) {
    final TrainerTask task = new TrainerTask(callback);
    executor.execute(new Runnable() {
      @Override
      public void run() {
        FitReport report;
        try {
          report = fit(data, options, task.cancelled);
        } catch (Throwable error) { // whoever waits must hear of any
          task.fail(error);
          return;
        }
        task.succeed(report);
      }
    });
    return task;
  }

  private float trainStep(Samples data) {
    if (data.count > batch) {
      throw new InvalidInputException(data.count + " samples are more than the batch of " + batch + "; split them");
    }
    turn.enterAlone("trainStep");
    try {
      float loss = session.trainStep(data);
      isFresh = false;
      return loss;
    } finally {
      leave();
    }
  }

  /** As many samples at a time as the core takes, so that sums have the bits of a single call of it. */
  private Evaluation evaluate(Samples data) {
    turn.enter("evaluate");
    try {
      double loss = 0;
      int correct = 0;
      for (int first = 0; first < data.count; first += memory.microBatch()) {
        turn.checkOpen();
        loss += session.evaluate(data, first, Math.min(memory.microBatch(), data.count - first));
        correct += session.correct();
      }
      return new Evaluation(loss / data.count, (double) correct / data.count, correct, data.count);
    } finally {
      leave();
    }
  }

  /** Ends a turn, and the session with it if that was the last one. */
  private void leave() {
    try {
      if (turn.isLast() && session.isOpen()) session.close();
    } finally {
      turn.leave();
    }
  }

  private static long[] chosen(ByteBuffer artifact, TrainerOptions options) {
    long[] chosen = InfoReader.recipe(artifact);
    options.overlay(chosen);
    return chosen;
  }
}
