package io.pocketticket;

import java.nio.ByteBuffer;

/** The native library. */
final class Native {
  private Native() {}

  static native boolean isAligned(ByteBuffer content);

  static native int syncFolder(String path);
}
