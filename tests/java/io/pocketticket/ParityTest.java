package io.pocketticket;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;

import java.io.File;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** Every verb gives the bits of the Python trainer, for each kind of loss; files go from one to the other. */
public class ParityTest {
  private static final String[] LOSSES = {"labels", "mse", "bce"};

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void aWholeFitGivesTheLossesAndTheValuesOfPython() throws Exception {
    for (String loss : LOSSES) {
      Fixtures fixtures = Fixtures.of(loss);
      try (Trainer trainer = fixtures.open()) {
        FitReport report = fit(trainer, fixtures, FitOptions.RECIPE);
        assertBits(fixtures.losses, report.losses());
        assertEquals(fixtures.losses.length, report.steps());
        assertEquals(fixtures.number("epochs"), report.epochs());
        assertEquals(fixtures.losses.length, report.progress().step());
        assertBits(fixtures.values, trainer.values());
      }
    }
  }

  @Test
  public void evaluatePredictAndExportAreThoseOfPython() throws Exception {
    for (String loss : LOSSES) {
      Fixtures fixtures = Fixtures.of(loss);
      try (Trainer trainer = fixtures.open()) {
        fit(trainer, fixtures, FitOptions.RECIPE);
        Evaluation evaluation = loss.equals("labels") ? trainer.evaluate(fixtures.x, fixtures.labels())
                                                      : trainer.evaluate(fixtures.x, fixtures.targets());
        assertEquals(fixtures.real("loss"), evaluation.loss(), 0);
        assertEquals(fixtures.number("correct"), evaluation.correct());
        assertEquals(fixtures.x.length / trainer.info().inputElements(), evaluation.count());
        assertEquals((double) evaluation.correct() / evaluation.count(), evaluation.accuracy(), 0);
        assertBits(fixtures.outputs, trainer.predict(fixtures.x));
        assertArrayEquals(Fixtures.bytes(fixtures.file("trained.tkt")), trainer.export());
        File exported = new File(folder.getRoot(), loss + ".tkt");
        trainer.export(exported);
        assertArrayEquals(trainer.export(), Fixtures.bytes(exported));
      }
    }
  }

  @Test
  public void aCheckpointOfPythonGoesOnHereAndEndsInTheSameBytes() throws Exception {
    for (String loss : LOSSES) {
      Fixtures fixtures = Fixtures.of(loss);
      File end = new File(folder.getRoot(), loss + ".tkc");
      try (Trainer trainer = fixtures.open()) {
        assertEquals(fixtures.file("half.tkc"), trainer.restore(fixtures.file("half.tkc")));
        assertEquals(Fixtures.HALF_WAY, trainer.progress().step());
        float[] losses = fit(trainer, fixtures, FitOptions.RECIPE).losses();
        for (int i = 0; i < losses.length; ++i) {
          assertEquals(fixtures.losses[Fixtures.HALF_WAY + i], losses[i], 0);
        }
        trainer.save(end);
      }
      assertArrayEquals(Fixtures.bytes(fixtures.file("end.tkc")), Fixtures.bytes(end));
    }
  }

  @Test
  public void threadsABudgetAndOtherKernelsChangeNoBit() throws Exception {
    Fixtures fixtures = Fixtures.of("labels");
    long arena = fixtures.number("arena_bytes");
    TrainerOptions[] choices = {
        options().threads(3).build(), options().kernels(Fixtures.KERNELS).build(), options().recompute(true).build()};
    for (TrainerOptions choice : choices) {
      try (Trainer trainer = Trainer.open(fixtures.artifact(), choice)) {
        assertBits(fixtures.losses, trainer.fit(fixtures.x, fixtures.labels(), FitOptions.RECIPE).losses());
      }
    }
    TrainerOptions tight = options().budgetBytes(arena - 1).build();
    MemoryPlan plan = Trainer.plan(fixtures.artifact(), tight);
    assertEquals(true, plan.totalBytes() < arena && plan.microBatch() < 8);
    try (Trainer trainer = Trainer.open(fixtures.artifact(), tight)) {
      float[] losses = trainer.fit(fixtures.x, fixtures.labels(), FitOptions.RECIPE).losses();
      assertArrayEquals(fixtures.losses, losses, 1e-5f); // sums in another order
    }
  }

  @Test
  public void aTrainStepIsTheStepOfAFit() throws Exception {
    Fixtures fixtures = Fixtures.of("labels");
    int elements = fixtures.artifact().info().inputElements();
    float[] x = java.util.Arrays.copyOf(fixtures.x, 8 * elements);
    int[] y = java.util.Arrays.copyOf(fixtures.labels(), 8);
    try (Trainer one = fixtures.open(); Trainer other = fixtures.open()) {
      float loss = one.trainStep(x, y);
      assertEquals(loss, (float) other.evaluate(x, y).loss(), 1e-6f);
      assertEquals(1, one.progress().step());
      assertEquals(0, one.progress().epoch());
      one.reset();
      assertBits(other.values(), one.values());
      assertEquals(0, one.progress().step());
      assertEquals(loss, one.trainStep(x, y), 0);
    }
  }

  private static TrainerOptions.Builder options() {
    return TrainerOptions.builder().seed(Fixtures.SEED);
  }

  private static FitReport fit(Trainer trainer, Fixtures fixtures, FitOptions options) throws Exception {
    return trainer.info().loss() == Loss.CROSS_ENTROPY ? trainer.fit(fixtures.x, fixtures.labels(), options)
                                                       : trainer.fit(fixtures.x, fixtures.targets(), options);
  }

  private static void assertBits(float[] expected, float[] actual) {
    assertEquals(expected.length, actual.length);
    for (int i = 0; i < expected.length; ++i) {
      assertEquals("element " + i, Float.floatToRawIntBits(expected[i]), Float.floatToRawIntBits(actual[i]));
    }
  }
}
