package io.pocketticket;

/** Not an artifact, cut short, or damaged. */
public class CorruptArtifactException extends TicketException {
  private static final long serialVersionUID = 1L;

  CorruptArtifactException(@NonNull String message) {
    super(message);
  }
}
