package io.pocketticket.android;

/** A personal model that is open already, in this process of the app or another one: close that, or come back later. */
public final class ModelInUseException extends IllegalStateException {
  private static final long serialVersionUID = 1L;

  ModelInUseException(String message) {
    super(message);
  }
}
