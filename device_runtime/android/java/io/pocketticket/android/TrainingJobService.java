package io.pocketticket.android;

import android.app.job.JobInfo;
import android.app.job.JobParameters;
import android.app.job.JobScheduler;
import android.app.job.JobService;
import android.content.ComponentName;
import android.content.Context;
import io.pocketticket.FitListener;
import io.pocketticket.NonNull;
import io.pocketticket.Nullable;
import java.io.IOException;

/**
 * Trains while the device charges and nobody uses it: a lesson, in slices, over as many nights as it takes.
 *
 * <p>Extend it, and declare it in the manifest with {@code android.permission.BIND_JOB_SERVICE}. A slice ends when the
 * policy says so or Android wants the time back, within one step; the next one goes on from there with the same losses.
 * Nothing is scheduled unless the app calls {@link #schedule}, which after a reboot it must do again.
 */
public abstract class TrainingJobService extends JobService {
  private Work work; // of the main thread, which alone calls onStartJob and onStopJob

  /**
   * Opens the model and, unless one is under way, begins a lesson. In the thread that trains, which then closes the
   * model. Null: there is nothing to learn.
   */
  protected abstract @Nullable PersonalModel prepare() throws IOException;

  /** When to train. */
  protected @NonNull TrainingPolicy policy() {
    return TrainingPolicy.DEFAULT;
  }

  /** What may be forgotten: 5 points of the accuracy on the shipped samples, unless overridden. */
  protected @NonNull Rollback rollback() {
    return new Rollback(0.05);
  }

  /** Is told of each step, in the thread that trains. */
  protected @Nullable FitListener listener() {
    return null;
  }

  /** The end of a slice, in the thread that trained; the lesson may or may not be finished. */
  protected void onSlice(@NonNull LessonReport report, @NonNull TrainingPolicy.Decision decision) {}

  /** What went wrong, in the thread that trains. The job is not scheduled again. */
  protected void onFailure(@NonNull Exception failure) {}

  /** Asks for slices until the lesson is finished. Replaces a job of the same id. */
  public static boolean schedule(
      @NonNull Context context, @NonNull Class<? extends TrainingJobService> service, int jobId) {
    JobScheduler scheduler = (JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE);
    JobInfo job = new JobInfo.Builder(jobId, new ComponentName(context, service))
                      .setRequiresCharging(true)
                      .setRequiresDeviceIdle(true)
                      .build();
    return scheduler.schedule(job) == JobScheduler.RESULT_SUCCESS;
  }

  /** Takes {@link #schedule} back; a slice at work stops after its step, and gives the model back. */
  public static void cancel(@NonNull Context context, int jobId) {
    ((JobScheduler) context.getSystemService(Context.JOB_SCHEDULER_SERVICE)).cancel(jobId);
  }

  @Override
  public boolean onStartJob(JobParameters parameters) {
    work = new Work(parameters, new Slice(policy(), device(), listener()));
    Thread thread = new Thread(work, "pocket-ticket");
    thread.setPriority(Thread.MIN_PRIORITY);
    thread.start();
    return true;
  }

  /** Returns at once; the step under way is finished and saved by the thread that trains. */
  @Override
  public boolean onStopJob(JobParameters parameters) {
    if (work != null) work.stop();
    return true; // schedule it again
  }

  Slice.Device device() {
    return new AndroidDevice(this);
  }

  /** One slice. */
  private final class Work implements Runnable {
    private final JobParameters parameters;
    private final Slice slice;
    private volatile PersonalModel model;

    Work(JobParameters parameters, Slice slice) {
      this.parameters = parameters;
      this.slice = slice;
    }

    void stop() {
      slice.stop();
      PersonalModel open = model;
      if (open != null) open.cancel(); // or its listener asks the slice after the next step
    }

    @Override
    public void run() {
      boolean again = false;
      try {
        again = !slice.mayGoOn() || train();
      } catch (ModelInUseException inUse) {
        again = true; // the app itself has the model open
      } catch (IOException | RuntimeException failure) {
        onFailure(failure);
      }
      jobFinished(parameters, again);
    }

    /** Whether something is left to do. */
    private boolean train() throws IOException {
      try (PersonalModel open = prepare()) {
        if (open == null) return false;
        model = open;
        LessonReport report = open.learn(rollback(), slice);
        if (report == null) return false;
        onSlice(report, slice.decision());
        return !report.isFinished();
      } finally {
        model = null;
      }
    }
  }
}
