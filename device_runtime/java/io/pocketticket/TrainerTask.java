package io.pocketticket;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

/** A fit in another thread: waits for it, or stops it between two steps. Made by {@link Trainer#fitAsync}. */
public final class TrainerTask {
  final AtomicBoolean cancelled = new AtomicBoolean();

  private final FitCallback callback;
  private final CountDownLatch ended = new CountDownLatch(1);
  private FitReport report; // these two are written before `ended` is counted down, and read after it
  private Throwable error;

  TrainerTask(@Nullable FitCallback callback) {
    this.callback = callback;
  }

  /** Stops after the step under way, or before the first; the report then says cancelled. From any thread. */
  public void cancel() {
    cancelled.set(true);
  }

  public boolean isDone() {
    return ended.getCount() == 0;
  }

  /** Waits for the end; the cause of an ExecutionException is what the fit threw. */
  public @NonNull FitReport get() throws InterruptedException, ExecutionException {
    ended.await();
    return result();
  }

  /** The same, but not for ever. */
  public @NonNull FitReport get(long timeout, @NonNull TimeUnit unit)
      throws InterruptedException, ExecutionException, TimeoutException {
    if (!ended.await(timeout, unit)) throw new TimeoutException("the fit goes on");
    return result();
  }

  void succeed(FitReport report) {
    this.report = report;
    ended.countDown();
    if (callback != null) callback.onDone(report);
  }

  void fail(Throwable error) {
    this.error = error;
    ended.countDown();
    if (callback != null) callback.onError(error);
  }

  private FitReport result() throws ExecutionException {
    if (error != null) throw new ExecutionException(error);
    return report;
  }
}
