package android.app.job;

import android.content.Context;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** Stands in for Android's class on a host's JVM: keeps what a job says at its end. */
public abstract class JobService extends Context {
  /** Whether each job that has ended wants to be scheduled again. */
  public final BlockingQueue<Boolean> finished = new LinkedBlockingQueue<>();

  public abstract boolean onStartJob(JobParameters parameters);

  public abstract boolean onStopJob(JobParameters parameters);

  public final void jobFinished(JobParameters parameters, boolean needsReschedule) {
    finished.add(needsReschedule);
  }
}
