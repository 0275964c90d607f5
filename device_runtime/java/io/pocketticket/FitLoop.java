package io.pocketticket;

import java.io.File;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicBoolean;

/** One call of fit: step after step until the goal is met or someone cancels, with the checkpoint saved in between. */
final class FitLoop {
  private static final double NANOSECONDS = 1e9;

  private final Session session;
  private final Samples data;
  private final FitOptions options;
  private final AtomicBoolean cancelled;
  private final long begun = System.nanoTime();
  private float[] losses = new float[64];
  private int made;
  private File resumedFrom;

  FitLoop(Session session, Samples data, FitOptions options, AtomicBoolean cancelled) {
    this.session = session;
    this.data = data;
    this.options = options;
    this.cancelled = cancelled;
  }

  /** Goes on from the checkpoint, if there is one. */
  void resume() throws IOException {
    if (options.checkpoint == null || !options.checkpoint.exists()) return;
    resumedFrom = CheckpointFiles.load(options.checkpoint.file(), new SessionReader(session));
  }

  /** {@code epochs} are the recipe's. */
  FitReport run(int epochs) throws IOException {
    long goal = goal(epochs);
    session.readProgress();
    long firstEpoch = session.epoch();
    boolean stopped = cancelled.get();
    while (!stopped && done() < goal) {
      add(session.fitStep(data));
      if (atCheckpoint()) save();
      stopped = !tell() | cancelled.get();
    }
    if (options.checkpoint != null && (made == 0 || !atCheckpoint())) save();
    Progress progress = session.progress();
    return new FitReport(Arrays.copyOf(losses, made), progress.epoch() - firstEpoch, progress, stopped,
        (System.nanoTime() - begun) / NANOSECONDS, resumedFrom);
  }

  private long goal(int recipe) {
    if (options.steps >= 0) return options.steps;
    if (options.epochs > 0) return options.epochs;
    if (recipe < 1) throw new InvalidInputException("the recipe suggests no number of epochs; give epochs or steps");
    return recipe;
  }

  private long done() {
    return options.steps >= 0 ? session.step() : session.epoch();
  }

  private boolean tell() {
    return options.listener == null || options.listener.onStep(session.progress(), losses[made - 1]);
  }

  private boolean atCheckpoint() {
    return options.checkpoint != null && session.step() % options.checkpoint.everySteps() == 0;
  }

  private void save() throws IOException {
    CheckpointFiles.save(options.checkpoint.file(), session.save());
  }

  private void add(float loss) {
    if (made == losses.length) losses = Arrays.copyOf(losses, 2 * made);
    losses[made++] = loss;
  }

  /** Restores a session from a file's bytes. */
  static final class SessionReader implements CheckpointFiles.Reader {
    private final Session session;

    SessionReader(Session session) {
      this.session = session;
    }

    @Override
    public void read(byte[] content) {
      session.restore(content);
    }
  }
}
