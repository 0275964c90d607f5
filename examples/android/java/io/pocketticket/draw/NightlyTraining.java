package io.pocketticket.draw;

import io.pocketticket.android.PersonalModel;
import io.pocketticket.android.Rollback;
import io.pocketticket.android.TrainingJobService;
import java.io.IOException;

/** Learns at night, while the device charges, what the user drew by day. */
public final class NightlyTraining extends TrainingJobService {
  static final int JOB_ID = 1;

  @Override
  protected PersonalModel prepare() throws IOException {
    try (Classroom classroom = Classroom.open(this)) {
      PersonalModel model = classroom.model();
      boolean isReady = false;
      try {
        if (!model.hasLesson() && classroom.store.count() > 0) model.begin(classroom.lesson());
        isReady = model.hasLesson();
        return isReady ? model : null;
      } finally {
        if (!isReady) model.close();
      }
    }
  }

  @Override
  protected Rollback rollback() {
    return new Rollback(Settings.MAY_FORGET);
  }
}
