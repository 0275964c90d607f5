package io.pocketticket;

import java.io.File;
import java.util.zip.CRC32;

/**
 * Trains as the C example does (device_runtime/mcu/example) and prints what it prints: the bits of every loss, and the
 * checksum of the values at the end. Arguments: ticket, samples (a label and its pixels each, as bytes), steps.
 */
public final class Trace {
  public static void main(String[] arguments) throws Exception {
    byte[] rows = Fixtures.bytes(new File(arguments[1]));
    try (Artifact artifact = Artifact.of(new File(arguments[0]));
        Trainer trainer = Trainer.open(artifact, TrainerOptions.builder().batch(1).build())) {
      int width = artifact.info().inputElements();
      int count = rows.length / (width + 1);
      float[] samples = new float[count * width];
      int[] labels = new int[count];
      for (int i = 0; i < count; ++i) {
        labels[i] = rows[i * (width + 1)];
        for (int j = 0; j < width; ++j) samples[i * width + j] = rows[i * (width + 1) + 1 + j] & 255;
      }
      FitReport report = trainer.fit(samples, labels, Fixtures.steps(Long.parseLong(arguments[2])));
      for (float loss : report.losses()) System.out.printf("0x%08x%n", Float.floatToRawIntBits(loss));
      CRC32 checksum = new CRC32();
      for (float value : trainer.values()) {
        int bits = Float.floatToRawIntBits(value);
        for (int shift = 0; shift < 32; shift += 8) checksum.update(bits >> shift & 255);
      }
      System.out.println("values crc " + checksum.getValue());
    }
  }
}
