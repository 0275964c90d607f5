package io.pocketticket.android;

import android.content.Context;
import android.content.res.AssetFileDescriptor;
import io.pocketticket.Artifact;
import io.pocketticket.NonNull;
import io.pocketticket.SignatureKey;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.channels.FileChannel;

/**
 * Where an app has artifacts from: its assets, which its own signature covers, or a file that it downloaded by itself,
 * which is read only with the signature of a key that the app knows. Nothing here downloads.
 */
public final class AssetArtifacts {
  private AssetArtifacts() {}

  /** Mapped where the asset is stored uncompressed ({@code noCompress "tkt"}), read where it is not. */
  public static @NonNull Artifact fromAssets(@NonNull Context context, @NonNull String name) throws IOException {
    try (AssetFileDescriptor asset = context.getAssets().openFd(name);
        FileInputStream stream = asset.createInputStream()) {
      FileChannel channel = stream.getChannel();
      return Artifact.of(channel.map(FileChannel.MapMode.READ_ONLY, asset.getStartOffset(), asset.getLength()));
    } catch (FileNotFoundException compressedOrMissing) {
      return Artifact.of(bytes(context, name));
    }
  }

  /**
   * The downloaded {@code file}, with {@code NAME.sig} beside it. Throws BadSignatureException before anything reads
   * it.
   */
  public static @NonNull Artifact downloaded(@NonNull File file, @NonNull SignatureKey key) throws IOException {
    return Artifact.verified(file, key);
  }

  /** Replay or shipped samples of {@code NAME-images-idx3-ubyte} and {@code NAME-labels-idx1-ubyte} in the assets. */
  public static @NonNull Samples samples(@NonNull Context context, @NonNull String name) throws IOException {
    try (InputStream images = context.getAssets().open(name + "-images-idx3-ubyte");
        InputStream labels = context.getAssets().open(name + "-labels-idx1-ubyte")) {
      return IdxReader.read(images, labels);
    }
  }

  private static byte[] bytes(Context context, String name) throws IOException {
    try (InputStream in = context.getAssets().open(name)) {
      ByteArrayOutputStream all = new ByteArrayOutputStream();
      byte[] part = new byte[1 << 14];
      for (int count = in.read(part); count >= 0; count = in.read(part)) all.write(part, 0, count);
      return all.toByteArray();
    }
  }
}
