package io.pocketticket.android;

import io.pocketticket.Artifact;
import io.pocketticket.CorruptCheckpointException;
import io.pocketticket.FitListener;
import io.pocketticket.FitOptions;
import io.pocketticket.FitReport;
import io.pocketticket.NonNull;
import io.pocketticket.Nullable;
import io.pocketticket.Progress;
import io.pocketticket.Trainer;
import io.pocketticket.TrainerOptions;
import java.io.File;
import java.io.IOException;

/**
 * A ticket that learns from one user: lessons that survive being killed, and are rolled back where they did harm.
 *
 * <p>Until a lesson is finished and found good, nothing of it is kept: what the user had stays in its own file. One
 * instance for a directory at a time. Like its {@link Trainer} it serves one thread; {@link #cancel} and {@link #close}
 * may come from any.
 */
public final class PersonalModel implements AutoCloseable {
  private final Trainer trainer;
  private final CheckpointStore store;
  private volatile CheckpointStore.Begun begun; // that learn is at work on

  private PersonalModel(Trainer trainer, CheckpointStore store) {
    this.trainer = trainer;
    this.store = store;
  }

  /**
   * Opens the artifact with what was kept in {@code directory} for this very ticket; another ticket there has files of
   * its own.
   *
   * <p>A lesson saves its state every {@code saveEverySteps} steps: a kill costs at most so many, and none of the
   * result. Throws ModelInUseException while another instance has the directory, IOException, and what Trainer.open and
   * restore throw: CorruptCheckpointException where all that was kept is damaged, which {@link #forget} gives up.
   */
  public static @NonNull PersonalModel open(@NonNull Artifact artifact, @NonNull TrainerOptions options,
      @NonNull File directory, int saveEverySteps) throws IOException {
    CheckpointStore store = CheckpointStore.open(new File(directory, artifact.info().ticketHash()), saveEverySteps);
    Trainer trainer = null;
    try {
      trainer = Trainer.open(artifact, options);
      PersonalModel model = new PersonalModel(trainer, store);
      model.restoreKept();
      return model;
    } catch (IOException | RuntimeException | Error failure) {
      if (trainer != null) trainer.close();
      store.close();
      throw failure;
    }
  }

  /**
   * What {@link #reset} does, without opening: for what was kept for this ticket but cannot be restored. Throws
   * ModelInUseException, IOException.
   */
  public static void forget(@NonNull Artifact artifact, @NonNull File directory) throws IOException {
    try (CheckpointStore store = CheckpointStore.open(new File(directory, artifact.info().ticketHash()), 1)) {
      store.deleteAll();
    }
  }

  /** For predict, evaluate and everything else; between lessons it has the values that are kept. */
  public @NonNull Trainer trainer() {
    return trainer;
  }

  /** Whether a lesson was begun and not yet finished, perhaps in an earlier life of the app. */
  public boolean hasLesson() {
    return store.hasLesson();
  }

  /** How far the lesson under way is at {@code progress}, in [0, 1]; for a listener of {@link #learn}. */
  public double shareDone(@NonNull Progress progress) {
    CheckpointStore.Begun lesson = begun;
    if (lesson == null) return 0;
    int count = lesson.lesson.training().count();
    double left = lesson.goalEpochs - progress.epoch() - (double) progress.position() / count;
    return 1 - Math.max(0, Math.min(1, left / lesson.lesson.epochs()));
  }

  /** Freezes the lesson and scores what is kept; {@link #learn} does the work. Instead of one that was not finished. */
  public synchronized void begin(@NonNull Lesson lesson) throws IOException {
    store.deleteLesson();
    restoreKept();
    store.begin(lesson, Score.of(trainer, lesson), trainer.progress().epoch() + lesson.epochs());
  }

  /**
   * Goes on with the lesson until it is finished or told to stop, then keeps what was learnt or rolls it back.
   *
   * <p>The listener is asked after each step. Null where no lesson was begun, or its file is damaged. Throws
   * NonFiniteLossException, after which the lesson can only be given up by {@link #abandon}; IOException.
   */
  public synchronized @Nullable LessonReport learn(@NonNull Rollback rollback, @Nullable FitListener listener)
      throws IOException {
    begun = store.hasLesson() ? store.readLesson() : null;
    if (begun == null) return null;
    if (!restoreLesson()) restoreKept();
    Samples training = begun.lesson.training();
    FitReport fit = trainer.fit(training.values(), training.labels(), options(begun.goalEpochs, listener));
    if (fit.cancelled()) return new LessonReport(fit, begun.before, null, null);
    Score after = Score.of(trainer, begun.lesson);
    Rollback.Decision decision = rollback.decide(begun.before, after);
    if (decision.isKept()) {
      trainer.save(store.kept().file()); // what was kept stays beside it, as the generation before
      store.deleteLesson();
    } else {
      abandon();
    }
    return new LessonReport(fit, begun.before, after, decision);
  }

  /** Gives up the lesson under way; what is kept stays. */
  public synchronized void abandon() throws IOException {
    store.deleteLesson();
    restoreKept();
  }

  /** Back to the ticket: what was kept is deleted, and the lesson under way. */
  public synchronized void reset() throws IOException {
    store.deleteAll();
    trainer.reset();
  }

  /**
   * Ends a {@link #learn} that is at work after its present step; no effect where none is, so let its listener say no
   * too.
   */
  public void cancel() {
    trainer.cancel();
  }

  /** Cancels a lesson that is at work and waits for it. Any number of times. */
  @Override
  public void close() throws IOException {
    trainer.close();
    synchronized (this) { // what follows a fit has the files until it is done
      store.close();
    }
  }

  /** False where nothing of it is there, or all of that damaged: from its beginning it comes to the same. */
  private boolean restoreLesson() throws IOException {
    if (!store.lesson().exists()) return false;
    try {
      trainer.restore(store.lesson().file());
      return true;
    } catch (CorruptCheckpointException damaged) {
      return false;
    }
  }

  private void restoreKept() throws IOException {
    if (store.kept().exists()) {
      trainer.restore(store.kept().file());
    } else {
      trainer.reset();
    }
  }

  private FitOptions options(long goalEpochs, @Nullable FitListener listener) {
    return FitOptions.builder().epochs((int) goalEpochs).checkpoint(store.lesson()).listener(listener).build();
  }
}
