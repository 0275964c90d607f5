package io.pocketticket;

/** Is told how a fit that was started by {@link Trainer#fitAsync} ended, in the thread of the executor; once. */
public interface FitCallback {
  void onDone(@NonNull FitReport report);

  /** {@code error} is a {@link TicketException}, an {@link java.io.IOException}, or what a listener threw. */
  void onError(@NonNull Throwable error);
}
