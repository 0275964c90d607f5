package io.pocketticket.draw;

import io.pocketticket.MemoryPlan;
import io.pocketticket.TicketInfo;
import io.pocketticket.android.LessonReport;
import io.pocketticket.android.Rollback;
import io.pocketticket.android.Score;
import java.util.Locale;

/** What the first screen says in words. */
final class Sentences {
  private Sentences() {}

  static String facts(TicketInfo info, long artifactBytes, MemoryPlan memory) {
    return format("Ticket with %.1f %% of the weights: file %,d bytes, memory to train it %,d bytes.",
        100 * info.density(), artifactBytes, memory.totalBytes());
  }

  static String scores(Score score, int toTrain) {
    return format("Your samples: %d to train on, %d of %d held out are right. Shipped samples: %d of %d (%.1f %%).",
        toTrain, score.own(), score.ownCount(), score.shipped(), score.shippedCount(),
        100.0 * score.shipped() / Math.max(1, score.shippedCount()));
  }

  static String taught(String label, boolean heldOut) {
    return heldOut ? "Kept to test with: " + label + "." : "Kept to train on: " + label + ".";
  }

  static String lesson(LessonReport report) {
    if (!report.isFinished()) {
      return format("Stopped at step %d. Train goes on from there.", report.fit().progress().step());
    }
    Rollback.Decision decision = report.decision();
    String result = decision.isKept()                ? "Learnt"
        : decision == Rollback.Decision.WORSE_ON_OWN ? "Rolled back, worse on yours"
                                                     : "Rolled back, forgot too much";
    double stepMs = report.fit().steps() == 0 ? 0 : 1e3 * report.fit().seconds() / report.fit().steps();
    return format("%s: yours %d -> %d of %d, shipped %d -> %d of %d; %d steps, %.2f ms each.", result,
        report.before().own(), report.after().own(), report.after().ownCount(), report.before().shipped(),
        report.after().shipped(), report.after().shippedCount(), report.fit().steps(), stepMs);
  }

  private static String format(String pattern, Object... values) {
    return String.format(Locale.ROOT, pattern, values);
  }
}
