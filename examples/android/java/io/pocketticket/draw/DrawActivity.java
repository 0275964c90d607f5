package io.pocketticket.draw;

import android.app.Activity;
import android.app.AlertDialog;
import android.content.DialogInterface;
import android.content.Intent;
import io.pocketticket.FitListener;
import io.pocketticket.NonNull;
import io.pocketticket.Progress;
import io.pocketticket.Trainer;
import io.pocketticket.android.LessonReport;
import io.pocketticket.android.PersonalData;
import io.pocketticket.android.PersonalModel;
import io.pocketticket.android.Rollback;
import io.pocketticket.android.Score;
import io.pocketticket.android.TrainingJobService;
import java.io.IOException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Draw a character, see what the network thinks, tell it what is right, and let it learn.
 *
 * <p>The model is open from onStart to onStop, otherwise the nightly job may have it, and belongs to the worker's
 * thread, which outlives activities: an old one has closed before a new one opens.
 */
public final class DrawActivity extends Activity implements DrawScreen.Listener {
  private static final int SHOW_EVERY_MS = 50;
  private static final ExecutorService WORKER = Executors.newSingleThreadExecutor();

  /** What the worker's thread does; what it returns is shown afterwards. */
  private abstract class Task implements Runnable {
    abstract Runnable work() throws IOException;

    @Override
    public final void run() {
      try {
        show(work());
      } catch (IOException | RuntimeException failure) {
        show(news(failure.getMessage()));
      }
    }
  }

  /** What needs the model, which after a failure is not there. */
  private abstract class ModelTask extends Task {
    abstract Runnable workOn(PersonalModel model) throws IOException;

    @Override
    final Runnable work() throws IOException {
      return model == null ? both(news("Nothing is open; leave the app and come back."), trained()) : workOn(model);
    }
  }

  private Classroom classroom; // of the worker's thread, as is the model
  private volatile PersonalModel model;
  private boolean hasNews; // of the worker's thread: samples that no lesson has seen
  private volatile boolean isTold; // to stop
  private boolean isTraining; // of the main thread
  private DrawScreen screen;

  @Override
  protected void onStart() {
    super.onStart();
    TrainingJobService.cancel(this, NightlyTraining.JOB_ID);
    WORKER.execute(new Task() {
      @Override
      Runnable work() throws IOException {
        open();
        return opened();
      }
    });
  }

  @Override
  protected void onStop() {
    stopTraining();
    WORKER.execute(new Task() {
      @Override
      Runnable work() throws IOException {
        boolean hasMore = model != null && (hasNews || model.hasLesson());
        close();
        if (hasMore) TrainingJobService.schedule(DrawActivity.this, NightlyTraining.class, NightlyTraining.JOB_ID);
        return null;
      }
    });
    super.onStop();
  }

  @Override
  public void onDrawn(final float[] picture) {
    if (isTraining) return;
    WORKER.execute(new ModelTask() {
      @Override
      Runnable workOn(PersonalModel model) {
        return probabilities(model.trainer().predict(picture));
      }
    });
  }

  @Override
  public void onClass(final int label, final float[] picture) {
    screen.taken();
    WORKER.execute(new ModelTask() {
      @Override
      Runnable workOn(PersonalModel model) {
        boolean heldOut = classroom.store.isHeldOut(classroom.store.add(picture, label));
        hasNews = true;
        String name = classroom.artifact.info().labels().get(label);
        return both(news(Sentences.taught(name, heldOut)), scores());
      }
    });
  }

  @Override
  public void onTrain() {
    if (isTraining) {
      stopTraining();
      return;
    }
    isTraining = true;
    isTold = false;
    screen.showTraining(0);
    WORKER.execute(new ModelTask() {
      @Override
      Runnable workOn(PersonalModel model) throws IOException {
        try {
          if (!model.hasLesson()) {
            model.begin(classroom.lesson());
            hasNews = false;
          }
          LessonReport report = model.learn(new Rollback(Settings.MAY_FORGET), new Watching());
          return both(
              news(report == null ? "The lesson was damaged; train again." : Sentences.lesson(report)), scores());
        } finally {
          show(trained());
        }
      }
    });
  }

  @Override
  public void onReset() {
    WORKER.execute(new ModelTask() {
      @Override
      Runnable workOn(PersonalModel model) throws IOException {
        model.reset();
        return both(news("Back to the ticket; your samples are kept."), scores());
      }
    });
  }

  @Override
  public void onCompare() {
    startActivity(new Intent(this, CompareActivity.class));
  }

  @Override
  public void onDelete() {
    new AlertDialog.Builder(this)
        .setMessage("Delete all that you drew and what was learnt from it?")
        .setNegativeButton(android.R.string.cancel, null)
        .setPositiveButton(android.R.string.ok,
            new DialogInterface.OnClickListener() {
              @Override
              public void onClick(DialogInterface dialog, int which) {
                delete();
              }
            })
        .show();
  }

  private void delete() {
    WORKER.execute(new Task() {
      @Override
      Runnable work() throws IOException {
        close();
        PersonalData.delete(Classroom.directory(DrawActivity.this));
        open();
        return both(news("Deleted."), scores());
      }
    });
  }

  private void stopTraining() {
    isTold = true;
    PersonalModel open = model;
    if (open != null) open.cancel();
  }

  private void open() throws IOException {
    classroom = Classroom.open(this);
    model = classroom.modelSoon();
  }

  private void close() throws IOException {
    if (model != null) model.close();
    if (classroom != null) classroom.close();
    model = null;
    classroom = null;
  }

  /** Told of the steps of a lesson; shows how far it is. */
  private final class Watching implements FitListener {
    private long shownMs;

    @Override
    public boolean onStep(@NonNull Progress progress, float loss) {
      long now = System.currentTimeMillis();
      if (now - shownMs >= SHOW_EVERY_MS) {
        shownMs = now;
        show(training(model.shareDone(progress))); // the lesson's own thread, so the model is there
      }
      return !isTold;
    }
  }

  private void show(Runnable what) {
    if (what != null) runOnUiThread(what);
  }

  private Runnable opened() {
    final PictureFormat format = PictureFormat.of(classroom.artifact.info().inputShape());
    final Trainer trainer = model.trainer();
    final String facts = Sentences.facts(trainer.info(), classroom.artifact.content().remaining(), trainer.memory());
    final Runnable scores = scores();
    return new Runnable() {
      @Override
      public void run() {
        if (screen == null) {
          screen = new DrawScreen(DrawActivity.this, format, trainer.info().labels(), DrawActivity.this);
          setContentView(screen.root);
        }
        screen.showFacts(facts);
        scores.run();
      }
    };
  }

  private Runnable scores() {
    final String text =
        Sentences.scores(Score.of(model.trainer(), classroom.lesson()), classroom.store.training().count());
    return new Runnable() {
      @Override
      public void run() {
        screen.showScores(text);
      }
    };
  }

  private Runnable news(final String text) {
    return new Runnable() {
      @Override
      public void run() {
        if (screen != null) {
          screen.showNews(text);
        } else {
          setTitle(text); // what went wrong before there was a screen
        }
      }
    };
  }

  private Runnable probabilities(final float[] probabilities) {
    return new Runnable() {
      @Override
      public void run() {
        screen.showProbabilities(probabilities);
      }
    };
  }

  private Runnable training(final double share) {
    return new Runnable() {
      @Override
      public void run() {
        if (isTraining) screen.showTraining(share);
      }
    };
  }

  private Runnable trained() {
    return new Runnable() {
      @Override
      public void run() {
        isTraining = false;
        if (screen != null) screen.showTraining(-1);
      }
    };
  }

  private static Runnable both(final Runnable first, final Runnable second) {
    return new Runnable() {
      @Override
      public void run() {
        first.run();
        second.run();
      }
    };
  }
}
