package io.pocketticket;

import java.io.File;

/**
 * Where a fit keeps its state, so that an app that is killed at any moment loses at most the steps since the last save.
 *
 * <p>The file is that of Python's {@code Trainer.save}. It is replaced whole or not at all, and its former content
 * lives on as {@code NAME.previous}. One writer a file at a time.
 */
public final class Checkpoint {
  private final File file;
  private final int everySteps;

  private Checkpoint(File file, int everySteps) {
    this.file = file;
    this.everySteps = everySteps;
  }

  /** Saved every {@code everySteps} steps, and when the fit ends or is cancelled. */
  public static @NonNull Checkpoint of(@NonNull File file, int everySteps) {
    if (everySteps < 1) throw new InvalidInputException("everySteps " + everySteps + " must be at least 1 step");
    return new Checkpoint(file, everySteps);
  }

  public @NonNull File file() {
    return file;
  }

  public int everySteps() {
    return everySteps;
  }

  /** Whether there is a generation to go on from, good or not. */
  public boolean exists() {
    return CheckpointFiles.exists(file);
  }

  /** Removes every generation and what a killed save left behind. */
  public void delete() {
    CheckpointFiles.remove(file);
  }
}
