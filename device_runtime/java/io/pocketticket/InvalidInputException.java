package io.pocketticket;

/** Samples, labels or an option that cannot be worked with. */
public final class InvalidInputException extends TicketException {
  private static final long serialVersionUID = 1L;

  InvalidInputException(@NonNull String message) {
    super(message);
  }
}
