package io.pocketticket;

/**
 * What this package refuses, one subclass a kind, the same kinds as in Python and C.
 *
 * <p>The text is one line that names the thing, the value and the remedy. Failures of the disk stay {@link
 * java.io.IOException}, a trainer that is busy or closed is an {@link IllegalStateException}.
 */
public class TicketException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  TicketException(@NonNull String message) {
    super(message);
  }
}
