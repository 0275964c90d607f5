package io.pocketticket;

/** Not a checkpoint, cut short, damaged, or made from another ticket. */
public final class CorruptCheckpointException extends TicketException {
  private static final long serialVersionUID = 1L;

  CorruptCheckpointException(@NonNull String message) {
    super(message);
  }
}
