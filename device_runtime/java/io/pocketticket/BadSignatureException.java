package io.pocketticket;

/**
 * A signature that does not fit: artifact or signature was changed, or another key signed it. Do not use the artifact.
 */
public final class BadSignatureException extends CorruptArtifactException {
  private static final long serialVersionUID = 1L;

  BadSignatureException(@NonNull String message) {
    super(message);
  }
}
