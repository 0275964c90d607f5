package io.pocketticket.android;

import io.pocketticket.FitReport;
import io.pocketticket.NonNull;
import io.pocketticket.Nullable;

/** What became of a lesson, or of the part of it that was done before it was told to stop. */
public final class LessonReport {
  private final FitReport fit;
  private final Score before;
  private final Score after;
  private final Rollback.Decision decision;

  LessonReport(FitReport fit, Score before, @Nullable Score after, @Nullable Rollback.Decision decision) {
    this.fit = fit;
    this.before = before;
    this.after = after;
    this.decision = decision;
  }

  /** False where it was told to stop; call learn again, now or after a restart, to go on. */
  public boolean isFinished() {
    return decision != null;
  }

  /** Steps and losses of this part. */
  public @NonNull FitReport fit() {
    return fit;
  }

  public @NonNull Score before() {
    return before;
  }

  /** Null while the lesson is not finished. Of what was learnt, even if that was rolled back. */
  public @Nullable Score after() {
    return after;
  }

  /** Null while the lesson is not finished. */
  public @Nullable Rollback.Decision decision() {
    return decision;
  }
}
