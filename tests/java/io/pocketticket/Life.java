package io.pocketticket;

import java.io.File;
import java.io.FileOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * One life of the training of benchmarks/kill_resume.py: goes on from the checkpoint, appends step and loss of each
 * step, and is killed, or ends by exporting. Arguments: folder, steps (0: some more than there are), seed, steps
 * between checkpoints, last steps.
 */
public final class Life {
  public static void main(String[] arguments) throws Exception {
    final File folder = new File(arguments[0]);
    long steps = Long.parseLong(arguments[1]);
    TrainerOptions options = TrainerOptions.builder().seed(Long.parseLong(arguments[2])).build();
    Checkpoint checkpoint = Checkpoint.of(new File(folder, "run.tkc"), Integer.parseInt(arguments[3]));
    ByteBuffer x = little(Fixtures.bytes(new File(folder, "x.f32")));
    ByteBuffer y = little(Fixtures.bytes(new File(folder, "y.i32")));
    float[] samples = new float[x.remaining() / 4];
    int[] labels = new int[y.remaining() / 4];
    x.asFloatBuffer().get(samples);
    y.asIntBuffer().get(labels);
    final ByteBuffer entry = little(new byte[16]);
    try (FileOutputStream losses = new FileOutputStream(new File(folder, "losses"), true);
        Artifact artifact = Artifact.of(new File(folder, "net.tkt"));
        Trainer trainer = Trainer.open(artifact, options)) {
      if (checkpoint.exists()) {
        File read = trainer.restore(checkpoint.file());
        if (!read.equals(checkpoint.file())) throw new AssertionError("a kill damaged the newest generation");
      }
      System.out.println("ready");
      System.out.flush();
      long goal = steps > 0 ? steps : trainer.progress().step() + Long.parseLong(arguments[4]);
      FitListener listener = (progress, loss) -> {
        entry.putLong(0, progress.step()).putFloat(8, loss);
        try {
          losses.write(entry.array());
        } catch (java.io.IOException error) {
          throw new AssertionError(error);
        }
        return true;
      };
      trainer.fit(samples, labels, FitOptions.builder().steps(goal).checkpoint(checkpoint).listener(listener).build());
      trainer.export(new File(folder, "trained.tkt"));
    }
  }

  private static ByteBuffer little(byte[] content) {
    return ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
  }
}
