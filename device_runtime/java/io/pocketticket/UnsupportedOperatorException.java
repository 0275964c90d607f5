package io.pocketticket;

/** An operator, loss or optimizer that this runtime does not know. */
public final class UnsupportedOperatorException extends TicketException {
  private static final long serialVersionUID = 1L;

  UnsupportedOperatorException(@NonNull String message) {
    super(message);
  }
}
