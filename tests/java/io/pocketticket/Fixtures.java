package io.pocketticket;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Properties;

/** What fixtures.py wrote, by name: tickets, samples, and what the Python trainer made of them. */
final class Fixtures {
  static final File FOLDER = new File(System.getProperty("fixtures"));
  /** Kernels that the library has, beside those it chooses; the Android library for ARM has no plain ones. */
  static final Kernels KERNELS = Kernels.valueOf(System.getProperty("kernels", "SCALAR"));
  static final long SEED = 7;
  static final int HALF_WAY = 5;

  final File folder;
  final float[] x;
  final float[] losses;
  final float[] values;
  final float[] outputs;
  final Properties facts = new Properties();

  private Fixtures(String loss) throws IOException {
    folder = new File(FOLDER, loss);
    x = floats("x.f32");
    losses = floats("losses.f32");
    values = floats("values.f32");
    outputs = floats("outputs.f32");
    try (Reader reader =
             new InputStreamReader(new FileInputStream(new File(folder, "facts.properties")), StandardCharsets.UTF_8)) {
      facts.load(reader);
    }
  }

  /** The run with the loss labels, mse or bce. */
  static Fixtures of(String loss) throws IOException {
    return new Fixtures(loss);
  }

  File file(String name) {
    return new File(folder, name);
  }

  Artifact artifact() throws IOException {
    return Artifact.of(file("net.tkt"));
  }

  /** A trainer as Python opened it. */
  Trainer open() throws IOException {
    return Trainer.open(artifact(), TrainerOptions.builder().seed(SEED).build());
  }

  int[] labels() throws IOException {
    ByteBuffer bytes = little(bytes(file("y.bin")));
    int[] labels = new int[bytes.remaining() / 4];
    bytes.asIntBuffer().get(labels);
    return labels;
  }

  float[] targets() throws IOException {
    return floats("y.bin");
  }

  int number(String name) {
    return Integer.parseInt(facts.getProperty(name));
  }

  double real(String name) {
    return Double.parseDouble(facts.getProperty(name));
  }

  static byte[] bytes(File file) throws IOException {
    try (InputStream stream = new FileInputStream(file)) {
      byte[] content = new byte[(int) file.length()];
      int read = 0;
      while (read < content.length) read += stream.read(content, read, content.length - read);
      return content;
    }
  }

  static void write(File file, byte[] content) throws IOException {
    try (FileOutputStream stream = new FileOutputStream(file)) {
      stream.write(content);
    }
  }

  static FitOptions steps(long steps) {
    return FitOptions.builder().steps(steps).build();
  }

  private float[] floats(String name) throws IOException {
    ByteBuffer bytes = little(bytes(file(name)));
    float[] floats = new float[bytes.remaining() / 4];
    bytes.asFloatBuffer().get(floats);
    return floats;
  }

  private static ByteBuffer little(byte[] content) {
    return ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
  }
}
