package io.pocketticket;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.util.Arrays;
import org.junit.After;
import org.junit.Before;
import org.junit.Test;
import org.junit.function.ThrowingRunnable;

/** What is refused of samples and options, in which words; and that the trainer is then as it was. */
public class InputTest {
  private Fixtures fixtures;
  private Trainer trainer;
  private float[] x;
  private int[] y;

  @Before
  public void open() throws Exception {
    fixtures = Fixtures.of("labels");
    trainer = fixtures.open();
    x = fixtures.x.clone();
    y = fixtures.labels();
  }

  @After
  public void close() {
    trainer.close();
  }

  @Test
  public void samplesThatDoNotFitAreNamed() throws Exception {
    refused("samples is empty", () -> trainer.predict(new float[0]));
    refused("13 floats, but the network takes 12", () -> trainer.predict(new float[13]));
    refused("labels has 49 elements, but 50 samples take 50", () -> trainer.evaluate(x, Arrays.copyOf(y, 49)));
    refused("50 samples are more than the batch of 8", () -> trainer.trainStep(x, y));
    refused("floats do not fit the loss CROSS_ENTROPY", () -> trainer.evaluate(x, new float[50]));
    x[12 * 33 + 5] = Float.NaN;
    refused("sample 33 is NaN at element 5", () -> trainer.evaluate(x, y));
    refused("sample 33 is NaN at element 5", () -> trainer.predict(x));
    refused("sample 33 is NaN at element 5", () -> trainer.fit(x, y, FitOptions.RECIPE));
    trainer.reset();
    y[44] = 4;
    refused("labels[44] is 4, but the labels of this network are in 0..3", () -> trainer.evaluate(fixtures.x, y));
    y[44] = -1;
    refused("labels[44] is -1", () -> trainer.fit(fixtures.x, y, FitOptions.RECIPE));
    asBefore();
  }

  @Test
  public void targetsOfFloatsAreCounted() throws Exception {
    Fixtures mse = Fixtures.of("mse");
    try (Trainer floats = mse.open()) {
      refused("targets has 199 elements, but 50 samples take 200", () -> floats.evaluate(mse.x, new float[199]));
      refused("labels do not fit the loss MEAN_SQUARED_ERROR", () -> floats.evaluate(mse.x, y));
    }
  }

  @Test
  public void anotherErrorIsNotTakenForThatOfASample() throws Exception {
    x[12 * 33 + 5] = Float.NaN;
    FitOptions options = FitOptions.builder().checkpoint(Checkpoint.of(fixtures.file("half.tkc"), 1)).build();
    try (Trainer sgd = Trainer.open(fixtures.artifact(), TrainerOptions.builder().optimizer(Optimizer.SGD).build())) {
      refused("optimizer", () -> sgd.fit(x, y, options));
    }
    Fixtures mse = Fixtures.of("mse");
    float[] targets = mse.targets();
    targets[0] = Float.NaN;
    try (Trainer floats = mse.open()) {
      refused("targets[0]", () -> floats.evaluate(x, targets));
    }
  }

  @Test
  public void optionsThatTheCoreRefusesHaveItsWords() throws Exception {
    refused("batch", () -> Trainer.open(fixtures.artifact(), TrainerOptions.builder().batch(0).build()));
    refused("batch -1 is below 0", () -> TrainerOptions.builder().batch(-1));
    refused("learning_rate", () -> open(TrainerOptions.builder().learningRate(Float.NaN)));
    refused("momentum", () -> open(TrainerOptions.builder().optimizer(Optimizer.SGD).momentum(1f)));
    refused("threads", () -> open(TrainerOptions.builder().threads(65)));
    refused("start", () -> open(TrainerOptions.builder().start(Start.TRAINED))); // it has no trained values
    refused("learning_rate", () -> trainer.setLearningRate(-1f));
    refused("everySteps 0", () -> Checkpoint.of(fixtures.file("x"), 0));
    refused("epochs 0", () -> FitOptions.builder().epochs(0));
    refused("steps -1", () -> FitOptions.builder().steps(-1));
    refused("both given", () -> FitOptions.builder().steps(1).epochs(1).build());
  }

  @Test
  public void kernelsThatAreNotHereAreRefusedForOnesThatAre() throws Exception {
    boolean hasScalar = Fixtures.KERNELS == Kernels.SCALAR;
    Kernels absent = hasScalar ? Kernels.NEON : Kernels.SCALAR;
    String words = hasScalar ? "take 0 (AUTO) or 1 (SCALAR)" : "take 0 (AUTO)";
    InvalidInputException error =
        assertThrows(InvalidInputException.class, () -> open(TrainerOptions.builder().kernels(absent)));
    assertTrue(error.getMessage(), error.getMessage().endsWith(words));
  }

  @Test
  public void everyOptionArrives() throws Exception {
    long[] recipe = InfoReader.recipe(fixtures.artifact().direct());
    TrainerOptions all = TrainerOptions.builder()
                             .batch(5)
                             .optimizer(Optimizer.SGD)
                             .kernels(Fixtures.KERNELS)
                             .start(Start.INIT)
                             .learningRate(0.25f)
                             .momentum(0.5f)
                             .weightDecay(0.125f)
                             .beta1(0.75f)
                             .beta2(0.5f)
                             .epsilon(0.5f)
                             .nesterov(true)
                             .labelSmoothing(0.5f)
                             .clipNorm(2f)
                             .schedule(Schedule.COSINE)
                             .warmupSteps(3)
                             .scheduleSteps(9)
                             .scheduleFactor(0.5f)
                             .microBatch(2)
                             .storeGradients(true)
                             .recompute(true)
                             .halfActivations(true)
                             .threads(2)
                             .seed(-1L)
                             .budgetBytes(1L << 40)
                             .build();
    long[] chosen = recipe.clone();
    all.overlay(chosen);
    int half = Float.floatToRawIntBits(0.5f);
    assertArrayEquals(new long[] {5, 1, Fixtures.KERNELS.code, 0, Float.floatToRawIntBits(0.25f), half,
                          Float.floatToRawIntBits(0.125f), Float.floatToRawIntBits(0.75f), half, half, 1, half,
                          Float.floatToRawIntBits(2f), 2, 3, 9, half, 2, 1, 1, 1, 2, -1, 1L << 40},
        chosen);
    TrainerOptions.RECIPE.overlay(recipe);
    assertEquals(8, recipe[0]);
    assertEquals(2, recipe[1]);
    assertEquals(Float.floatToRawIntBits(0.01f), recipe[4]);
    try (Trainer other = Trainer.open(fixtures.artifact(), all)) {
      assertEquals(5, other.batch());
      assertEquals(2, other.memory().microBatch());
      assertEquals(Fixtures.KERNELS, other.kernels());
    }
  }

  @Test
  public void memoryIsExactAndABudgetIsKept() throws Exception {
    MemoryPlan plan = Trainer.plan(fixtures.artifact(), TrainerOptions.RECIPE);
    assertEquals(fixtures.number("arena_bytes"), plan.totalBytes());
    assertEquals(plan.totalBytes(),
        plan.valuesBytes() + plan.gradientsBytes() + plan.optimizerBytes() + plan.activationsBytes() + plan.indexBytes()
            + plan.bookkeepingBytes());
    assertEquals(4L * fixtures.number("value_count"), plan.valuesBytes());
    assertTrue(plan.transferBytes() >= 8 * 4 * (12 + 1 + 4));
    assertEquals(plan.totalBytes(), trainer.memory().totalBytes());
    TrainerOptions none = TrainerOptions.builder().budgetBytes(1000).build();
    assertTrue(Trainer.plan(fixtures.artifact(), none).totalBytes() > 1000); // the least there is
    assertThrows(BudgetExceededException.class, () -> Trainer.open(fixtures.artifact(), none));
    TrainerOptions exact = TrainerOptions.builder().seed(Fixtures.SEED).budgetBytes(plan.totalBytes()).build();
    Trainer.open(fixtures.artifact(), exact).close();
  }

  @Test
  public void aLossThatIsNotFiniteIsTold() throws Exception {
    trainer.setLearningRate(1e30f);
    assertThrows(NonFiniteLossException.class, () -> trainer.fit(x, y, FitOptions.RECIPE));
    trainer.reset();
    asBefore();
  }

  private void open(TrainerOptions.Builder options) throws Exception {
    Trainer.open(fixtures.artifact(), options.build()).close();
  }

  private static void refused(String words, ThrowingRunnable call) {
    InvalidInputException error = assertThrows(InvalidInputException.class, call);
    assertTrue(error.getMessage(), error.getMessage().contains(words));
  }

  private void asBefore() throws Exception {
    try (Trainer fresh = fixtures.open()) {
      assertArrayEquals(fresh.values(), trainer.values(), 0);
    }
  }
}
