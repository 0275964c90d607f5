package io.pocketticket;

/** The loss is NaN or infinite; the values were not touched. */
public final class NonFiniteLossException extends TicketException {
  private static final long serialVersionUID = 1L;

  NonFiniteLossException(@NonNull String message) {
    super(message);
  }
}
