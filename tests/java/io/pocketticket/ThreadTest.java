package io.pocketticket;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.After;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.function.ThrowingRunnable;
import org.junit.rules.TemporaryFolder;

/** Other threads: cancels, closes and calls that come while a fit runs. Nothing here waits for a clock. */
public class ThreadTest {
  private static final long ENDLESS = Long.MAX_VALUE;

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private final ExecutorService executor = Executors.newFixedThreadPool(4);
  private final CountDownLatch running = new CountDownLatch(3);
  private final FitListener atWork = (progress, loss) -> {
    running.countDown();
    return true;
  };
  private Fixtures fixtures;
  private Trainer trainer;
  private int[] y;

  @Before
  public void open() throws Exception {
    fixtures = Fixtures.of("labels");
    trainer = fixtures.open();
    y = fixtures.labels();
  }

  @After
  public void close() throws Exception {
    trainer.close();
    executor.shutdown();
    assertTrue(executor.awaitTermination(60, TimeUnit.SECONDS));
  }

  @Test
  public void cancelStopsBetweenStepsAndLeavesTheCheckpoint() throws Exception {
    Checkpoint checkpoint = Checkpoint.of(new File(folder.getRoot(), "run.tkc"), 1_000_000);
    trainer.cancel(); // no fit is there to hear it
    TrainerTask task = begin(checkpoint);
    running.await();
    trainer.cancel();
    FitReport report = task.get();
    assertTrue(report.cancelled());
    assertTrue(report.steps() >= 3);
    assertEquals(report.steps(), trainer.progress().step());
    float[] values = trainer.values();
    try (Trainer other = fixtures.open()) {
      other.restore(checkpoint.file());
      assertEquals(report.steps(), other.progress().step());
      assertArrayEquals(values, other.values(), 0);
      float next = other.fit(fixtures.x, y, Fixtures.steps(report.steps() + 1)).losses()[0];
      assertEquals(trainer.fit(fixtures.x, y, Fixtures.steps(report.steps() + 1)).losses()[0], next, 0);
    }
  }

  @Test
  public void aTaskThatIsCancelledBeforeItBeginsMakesNoStep() throws Exception {
    AtomicReference<Runnable> held = new AtomicReference<>();
    TrainerTask task = trainer.fitAsync(fixtures.x, y, FitOptions.RECIPE, held::set, null);
    assertFalse(task.isDone());
    assertThrows(TimeoutException.class, () -> task.get(1, TimeUnit.MILLISECONDS));
    task.cancel();
    held.get().run();
    assertTrue(task.isDone());
    assertTrue(task.get().cancelled());
    assertEquals(0, task.get(1, TimeUnit.SECONDS).steps());
  }

  @Test
  public void everyVerbOfAnotherThreadIsRefusedByName() throws Exception {
    TrainerTask task = begin(null);
    running.await();
    File file = new File(folder.getRoot(), "x");
    ThrowingRunnable[] verbs = {()
                                    -> trainer.fit(fixtures.x, y, FitOptions.RECIPE),
        ()
            -> trainer.trainStep(new float[12], new int[1]),
        ()
            -> trainer.evaluate(fixtures.x, y),
        ()
            -> trainer.predict(fixtures.x),
        ()
            -> trainer.save(file),
        ()
            -> trainer.restore(file),
        ()
            -> trainer.reset(),
        ()
            -> trainer.export(),
        ()
            -> trainer.export(file),
        () -> trainer.progress(), () -> trainer.values(), () -> trainer.setLearningRate(0.1f), () -> trainer.kernels()};
    for (ThrowingRunnable verb : verbs) {
      IllegalStateException error = assertThrows(IllegalStateException.class, verb);
      assertTrue(error.getMessage(), error.getMessage().contains("while fit runs in thread 'pool-"));
    }
    assertEquals(4, trainer.info().classCount()); // what never changes is told
    assertEquals(8, trainer.batch());
    task.cancel();
    assertTrue(task.get().cancelled());
    trainer.close();
    for (ThrowingRunnable verb : verbs) {
      IllegalStateException error = assertThrows(IllegalStateException.class, verb);
      assertTrue(error.getMessage(), error.getMessage().contains("closed"));
    }
    assertFalse(file.exists());
  }

  @Test
  public void closeWhileAFitRunsCancelsAndWaitsForIt() throws Exception {
    Checkpoint checkpoint = Checkpoint.of(new File(folder.getRoot(), "run.tkc"), 1_000_000);
    TrainerTask task = begin(checkpoint);
    running.await();
    trainer.close();
    assertTrue(task.get().cancelled());
    assertTrue(checkpoint.file().exists());
    trainer.close();
    assertThrows(IllegalStateException.class, () -> trainer.progress());
    trainer.cancel();
  }

  @Test
  public void closeInAListenerTakesEffectWhenTheFitEnds() throws Exception {
    FitReport report = trainer.fit(fixtures.x, y,
        FitOptions.builder()
            .steps(ENDLESS)
            .listener((progress, loss) -> {
              trainer.close();
              assertThrows(IllegalStateException.class, () -> trainer.evaluate(fixtures.x, y));
              return true;
            })
            .build());
    assertEquals(1, report.steps());
    assertTrue(report.cancelled());
    assertThrows(IllegalStateException.class, () -> trainer.values());
  }

  @Test
  public void manyThreadsMayCloseAtOnceWhileOthersCall() throws Exception {
    for (int time = 0; time < 200; ++time) {
      Trainer shared = fixtures.open();
      CountDownLatch start = new CountDownLatch(1);
      CountDownLatch end = new CountDownLatch(4);
      AtomicInteger unexpected = new AtomicInteger();
      for (int thread = 0; thread < 4; ++thread) {
        boolean closes = thread % 2 == 0;
        executor.execute(() -> {
          try {
            start.await();
            if (closes)
              shared.close();
            else
              shared.predict(fixtures.x);
          } catch (IllegalStateException expected) {
            // busy or closed
          } catch (Throwable error) {
            unexpected.incrementAndGet();
          } finally {
            end.countDown();
          }
        });
      }
      start.countDown();
      end.await();
      assertEquals(0, unexpected.get());
      assertThrows(IllegalStateException.class, () -> shared.progress());
    }
  }

  @Test
  public void trainersInDifferentThreadsShareNothingButTheArtifact() throws Exception {
    Artifact artifact = fixtures.artifact();
    TrainerTask[] tasks = new TrainerTask[4];
    Trainer[] trainers = new Trainer[tasks.length];
    for (int i = 0; i < tasks.length; ++i) {
      trainers[i] = Trainer.open(artifact, TrainerOptions.builder().seed(Fixtures.SEED).threads(1 + i % 2).build());
      tasks[i] = trainers[i].fitAsync(fixtures.x, y, FitOptions.RECIPE, executor, null);
    }
    for (int i = 0; i < tasks.length; ++i) {
      assertArrayEquals(fixtures.losses, tasks[i].get().losses(), 0);
      trainers[i].close();
    }
  }

  @Test
  public void theCallbackHearsOfTheEndOnce() throws Exception {
    AtomicReference<FitReport> done = new AtomicReference<>();
    AtomicReference<Throwable> failed = new AtomicReference<>();
    AtomicInteger calls = new AtomicInteger();
    FitCallback callback = new FitCallback() {
      @Override
      public void onDone(FitReport report) {
        calls.incrementAndGet();
        done.set(report);
        throw new ArithmeticException("of the callback: the executor's to handle");
      }

      @Override
      public void onError(Throwable error) {
        calls.incrementAndGet();
        failed.set(error);
      }
    };
    AtomicReference<Runnable> held = new AtomicReference<>();
    TrainerTask task = trainer.fitAsync(fixtures.x, y, FitOptions.RECIPE, held::set, callback);
    assertThrows(ArithmeticException.class, () -> held.get().run());
    assertSame(task.get(), done.get());
    assertEquals(1, calls.get());
    float[] bad = fixtures.x.clone();
    Arrays.fill(bad, Float.NaN);
    TrainerTask failing = trainer.fitAsync(bad, y, Fixtures.steps(ENDLESS), held::set, callback);
    held.get().run();
    ExecutionException error = assertThrows(ExecutionException.class, failing::get);
    assertSame(failed.get(), error.getCause());
    assertTrue(failed.get() instanceof InvalidInputException);
    assertEquals(2, calls.get());
  }

  private TrainerTask begin(Checkpoint checkpoint) {
    FitOptions options = FitOptions.builder().steps(ENDLESS).listener(atWork).checkpoint(checkpoint).build();
    return trainer.fitAsync(fixtures.x, y, options, executor, null);
  }
}
