package io.pocketticket.android;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertTrue;

import io.pocketticket.Artifact;
import io.pocketticket.FitListener;
import io.pocketticket.TrainerOptions;
import io.pocketticket.android.TrainingPolicy.Decision;
import java.io.File;
import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/**
 * A job from its start to its end, in its real thread with a real trainer: it yields within a step, and goes on
 * exactly.
 */
public class TrainingJobServiceTest {
  private static final int EPOCHS = 6;

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private Artifact artifact;

  @Before
  public void read() throws Exception {
    artifact = Artifact.of(new File(System.getProperty("fixtures"), "labels/net.tkt"));
  }

  private PersonalModel model() throws IOException {
    return PersonalModel.open(artifact, TrainerOptions.builder().batch(8).build(), new File(folder.getRoot(), "m"), 1);
  }

  /** Sixteen samples of noise, two steps an epoch. */
  private Lesson lesson() {
    int elements = artifact.info().inputElements();
    java.util.Random random = new java.util.Random(3);
    float[] values = new float[16 * elements];
    for (int at = 0; at < values.length; ++at) values[at] = random.nextFloat();
    int[] labels = new int[16];
    for (int at = 0; at < labels.length; ++at) labels[at] = at % artifact.info().classCount();
    return new Lesson(new Samples(values, labels, elements), Samples.none(elements), Samples.none(elements), EPOCHS);
  }

  private class Job extends TrainingJobService {
    DeviceState state = new DeviceState(true, false, false, 80, 25, 0);
    FitListener listener;
    LessonReport report;
    Decision decision;
    Exception failure;

    @Override
    Slice.Device device() {
      return new Slice.Device() {
        @Override
        public DeviceState state() {
          return state;
        }

        @Override
        public long nowMs() {
          return System.nanoTime() / 1_000_000;
        }
      };
    }

    @Override
    protected TrainingPolicy policy() {
      return TrainingPolicy.builder().checkEveryMs(0).build();
    }

    @Override
    protected PersonalModel prepare() throws IOException {
      PersonalModel model = model();
      if (!model.hasLesson()) model.begin(lesson());
      return model;
    }

    @Override
    protected FitListener listener() {
      return listener;
    }

    @Override
    protected Rollback rollback() {
      return new Rollback(1);
    }

    @Override
    protected void onSlice(LessonReport report, Decision decision) {
      this.report = report;
      this.decision = decision;
    }

    @Override
    protected void onFailure(Exception failure) {
      this.failure = failure;
    }

    /** Whether it wants to be scheduled again. */
    boolean end() throws InterruptedException {
      Boolean again = finished.poll(60, TimeUnit.SECONDS);
      assertTrue("the job did not end", again != null);
      return again;
    }
  }

  private float[] whole() throws Exception {
    Job job = new Job();
    assertTrue(job.onStartJob(null));
    assertFalse(job.end());
    assertTrue(job.report.isFinished());
    assertEquals(2 * EPOCHS, job.report.fit().steps());
    try (PersonalModel model = model()) {
      float[] values = model.trainer().values();
      model.reset();
      return values;
    }
  }

  @Test
  public void whatItIsToldStopsItWithinOneStepAndTheNextGoesOn() throws Exception {
    float[] values = whole();
    for (int at = 1; at < 2 * EPOCHS; at += 3) {
      Job job = stoppedAt(at);
      assertTrue(job.end());
      assertFalse(job.report.isFinished());
      assertEquals(at, job.report.fit().progress().step()); // not one step more
      Job next = new Job();
      next.onStartJob(null);
      assertFalse(next.end());
      assertEquals(2 * EPOCHS - at, next.report.fit().steps());
      try (PersonalModel model = model()) {
        org.junit.Assert.assertArrayEquals(values, model.trainer().values(), 0);
        model.reset();
      }
    }
  }

  /** A job that Android tells to stop in the middle of a step. */
  private Job stoppedAt(final int step) throws InterruptedException {
    final CountDownLatch reached = new CountDownLatch(1);
    final CountDownLatch told = new CountDownLatch(1);
    Job job = new Job();
    job.listener = (progress, loss) -> {
      if (progress.step() == step) {
        reached.countDown();
        await(told);
      }
      return true;
    };
    job.onStartJob(null);
    await(reached);
    assertTrue("it is scheduled again", job.onStopJob(null));
    told.countDown();
    return job;
  }

  private static void await(CountDownLatch latch) {
    try {
      assertTrue(latch.await(60, TimeUnit.SECONDS));
    } catch (InterruptedException error) {
      throw new AssertionError(error);
    }
  }

  @Test
  public void aStopBeforeTheModelIsOpenCostsOneStepAtMost() throws Exception {
    final CountDownLatch told = new CountDownLatch(1);
    Job job = new Job() {
      @Override
      protected PersonalModel prepare() throws IOException {
        TrainingJobServiceTest.await(told);
        return super.prepare();
      }
    };
    job.onStartJob(null);
    job.onStopJob(null);
    told.countDown();
    assertTrue(job.end());
    assertTrue(job.report == null || job.report.fit().steps() <= 1);
    try (PersonalModel model = model()) {
      assertTrue(job.report == null || model.hasLesson());
    }
  }

  @Test
  public void aDeviceThatGetsHotEndsTheSlice() throws Exception {
    Job job = new Job();
    job.listener = (progress, loss) -> {
      if (progress.step() == 2) job.state = new DeviceState(true, false, false, 80, 25, 3);
      return true;
    };
    job.onStartJob(null);
    assertTrue(job.end());
    assertEquals(Decision.TOO_HOT, job.decision);
    assertEquals(2, job.report.fit().progress().step());
  }

  @Test
  public void aDeviceThatIsNotReadyOpensNothing() throws Exception {
    Job job = new Job();
    job.state = new DeviceState(false, false, false, 80, 25, 0);
    job.onStartJob(null);
    assertTrue(job.end());
    assertNull(job.report);
    assertFalse(new File(folder.getRoot(), "m").exists());
  }

  @Test
  public void withNothingToLearnItEnds() throws Exception {
    Job job = new Job() {
      @Override
      protected PersonalModel prepare() {
        return null;
      }
    };
    job.onStartJob(null);
    assertFalse(job.end());
    assertNull(job.report);
  }

  @Test
  public void whileTheAppHasTheModelItWaitsForAnotherTime() throws Exception {
    try (PersonalModel model = model()) {
      Job job = new Job();
      job.onStartJob(null);
      assertTrue(job.end());
      assertNull(job.failure);
      assertFalse(model.hasLesson());
    }
  }

  @Test
  public void aFailureIsToldAndNotTriedAgain() throws Exception {
    final IOException full = new IOException("the disk is full");
    final IllegalStateException closed = new IllegalStateException("the store is closed"); // and not "in use"
    for (final Exception thrown : new Exception[] {full, closed}) {
      Job job = new Job() {
        @Override
        protected PersonalModel prepare() throws IOException {
          if (thrown == full) throw full;
          throw closed;
        }
      };
      job.onStartJob(null);
      assertFalse(job.end());
      assertSame(thrown, job.failure);
    }
  }

  /** As Android's class from version 10 on. */
  public static final class Power {
    public int getCurrentThermalStatus() {
      return 4;
    }
  }

  @Test
  public void theThermalStatusIsReadWhereAndroidTellsIt() {
    assertEquals(4, AndroidDevice.thermalStatus(new Power()));
    assertEquals(0, AndroidDevice.thermalStatus(new Object()));
  }
}
