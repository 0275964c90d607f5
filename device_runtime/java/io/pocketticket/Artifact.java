package io.pocketticket;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/**
 * The bytes of one native artifact, {@code .tkt}, checked as a whole when it is made.
 *
 * <p>Any number of trainers may share one, in any threads. Refuses what is damaged or of a version unknown here, and
 * with a {@link SignatureKey} what that key did not sign, before anything else reads it.
 */
public final class Artifact implements AutoCloseable {
  private final TicketInfo info;
  private volatile ByteBuffer content; // direct, read-only, at a multiple of 8; null once closed

  private Artifact(ByteBuffer content) {
    this.content = content.asReadOnlyBuffer();
    this.info = InfoReader.read(content);
  }

  /**
   * Maps the file, so that what is not at work takes no memory. It may be replaced by rename, as {@link Trainer#export}
   * does, but must not be written in place while in use.
   */
  public static @NonNull Artifact of(@NonNull File file) throws IOException {
    try (FileInputStream stream = new FileInputStream(file)) {
      FileChannel channel = stream.getChannel();
      return new Artifact(channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()));
    }
  }

  /** Of a copy of the bytes. */
  public static @NonNull Artifact of(@NonNull byte[] content) {
    return new Artifact(copied(ByteBuffer.wrap(content)));
  }

  /**
   * Of the bytes between position and limit, which stay the caller's and must not change: in place if the buffer is
   * direct and they begin at a multiple of 8, as an asset may be mapped; else of a copy.
   */
  public static @NonNull Artifact of(@NonNull ByteBuffer content) {
    boolean inPlace = content.isDirect() && Native.isAligned(content.slice());
    return new Artifact(inPlace ? content.slice() : copied(content));
  }

  /**
   * Of a file, with its signature beside it, {@code NAME.tkt.sig}; read as a whole, so that no later write changes it.
   */
  public static @NonNull Artifact verified(@NonNull File file, @NonNull SignatureKey key) throws IOException {
    return verified(file, CheckpointFiles.read(new File(file.getPath() + ".sig")), key);
  }

  /** Of a file, with a signature from elsewhere; read as a whole. */
  public static @NonNull Artifact verified(@NonNull File file, @NonNull byte[] signature, @NonNull SignatureKey key)
      throws IOException {
    return verified(CheckpointFiles.read(file), signature, key);
  }

  /** Of a copy of the bytes. Throws BadSignatureException. */
  public static @NonNull Artifact verified(
      @NonNull byte[] content, @NonNull byte[] signature, @NonNull SignatureKey key) {
    ByteBuffer copy = copied(ByteBuffer.wrap(content));
    key.check(copy, signature);
    return new Artifact(copy);
  }

  public @NonNull TicketInfo info() {
    return info;
  }

  /** The bytes, read-only. */
  public @NonNull ByteBuffer content() {
    return direct().asReadOnlyBuffer();
  }

  /** Lets go of the bytes; trainers that are open keep them until they are closed. Any number of times. */
  @Override
  public void close() {
    content = null;
  }

  ByteBuffer direct() {
    ByteBuffer bytes = content;
    if (bytes == null) throw new IllegalStateException("the artifact is closed; open it again");
    return bytes;
  }

  private static ByteBuffer copied(ByteBuffer content) {
    ByteBuffer copy = ByteBuffer.allocateDirect(content.remaining());
    copy.put(content.duplicate()).flip();
    return copy;
  }
}
