package io.pocketticket.draw;

import io.pocketticket.Artifact;
import io.pocketticket.FitListener;
import io.pocketticket.FitOptions;
import io.pocketticket.FitReport;
import io.pocketticket.Trainer;
import io.pocketticket.android.Lesson;
import io.pocketticket.android.Samples;
import io.pocketticket.android.Score;
import java.io.IOException;

/**
 * Trains one rival on a lesson from its initial weights, and keeps nothing of it. The same samples, order, steps for
 * each.
 */
final class Comparison {
  /** What stands beside the ticket, by the name of its asset. */
  static final String[] ASSETS = {"ticket.tkt", "reinit.tkt", "dense.tkt"};
  static final String[] NAMES = {"The ticket", "Its mask, fresh weights", "The whole network"};

  private Comparison() {}

  /** Null where the listener stopped it. */
  static Rival run(String name, Artifact artifact, Lesson lesson, FitListener listener) throws IOException {
    try (Trainer trainer = Trainer.open(artifact, Settings.options())) {
      Score before = Score.of(trainer, lesson);
      Samples training = lesson.training();
      FitReport fit = trainer.fit(training.values(), training.labels(),
          FitOptions.builder().epochs(lesson.epochs()).listener(listener).build());
      if (fit.cancelled()) return null;
      double stepMs = 1e3 * fit.seconds() / fit.steps();
      int bytes = artifact.content().remaining();
      return new Rival(name, bytes, trainer.memory().totalBytes(), stepMs, before, Score.of(trainer, lesson));
    }
  }
}
