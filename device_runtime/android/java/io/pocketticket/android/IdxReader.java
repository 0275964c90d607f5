package io.pocketticket.android;

import io.pocketticket.NonNull;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;

/** Reads the IDX format of MNIST, bytes alone: how replay and shipped test samples come with an app. */
public final class IdxReader {
  private static final int UNSIGNED_BYTES = 0x08;
  private static final int MAX_VALUES = 1 << 26;

  private IdxReader() {}

  /**
   * Pictures (n, height, width) and labels (n,); neither stream is closed. Throws IOException for what is not whole.
   */
  public static @NonNull Samples read(@NonNull InputStream images, @NonNull InputStream labels) throws IOException {
    try {
      DataInputStream pictures = new DataInputStream(images);
      DataInputStream classes = new DataInputStream(labels);
      int[] shape = shape(pictures, 3, "images");
      int count = shape(classes, 1, "labels")[0];
      if (count != shape[0]) {
        throw new IOException("IDX: " + shape[0] + " images but " + count + " labels; take files of one set");
      }
      int elements = shape[1] * shape[2];
      byte[] pixels = new byte[count * elements];
      byte[] numbers = new byte[count];
      pictures.readFully(pixels);
      classes.readFully(numbers);
      return samples(pixels, numbers, elements);
    } catch (EOFException end) {
      throw new IOException("IDX: the file ends too early; put it into the app again");
    }
  }

  private static int[] shape(DataInputStream stream, int rank, String what) throws IOException {
    int magic = stream.readInt();
    if (magic != (UNSIGNED_BYTES << 8 | rank)) {
      throw new IOException("IDX " + what + ": begins with " + magic + ", not as unsigned bytes of rank " + rank
          + "; give MNIST's format");
    }
    int[] shape = new int[rank];
    long values = 1;
    for (int axis = 0; axis < rank; ++axis) {
      shape[axis] = stream.readInt();
      values *= shape[axis];
      if (shape[axis] < 1 || values > MAX_VALUES) {
        throw new IOException("IDX " + what + ": an extent of " + shape[axis] + " is none that fits");
      }
    }
    return shape;
  }

  private static Samples samples(byte[] pixels, byte[] numbers, int elements) {
    float[] values = new float[pixels.length];
    for (int at = 0; at < pixels.length; ++at) values[at] = pixels[at] & 0xFF;
    int[] labels = new int[numbers.length];
    for (int at = 0; at < numbers.length; ++at) labels[at] = numbers[at] & 0xFF;
    return new Samples(values, labels, elements);
  }
}
