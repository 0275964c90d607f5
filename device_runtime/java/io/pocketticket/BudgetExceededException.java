package io.pocketticket;

/** More memory is needed than {@code budgetBytes} allows, or than there is. */
public final class BudgetExceededException extends TicketException {
  private static final long serialVersionUID = 1L;

  BudgetExceededException(@NonNull String message) {
    super(message);
  }
}
