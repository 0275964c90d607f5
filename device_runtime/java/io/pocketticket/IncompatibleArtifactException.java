package io.pocketticket;

/** An artifact of a version that this runtime does not know. */
public final class IncompatibleArtifactException extends TicketException {
  private static final long serialVersionUID = 1L;

  IncompatibleArtifactException(@NonNull String message) {
    super(message);
  }
}
