package io.pocketticket.draw;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import io.pocketticket.Artifact;
import io.pocketticket.FitOptions;
import io.pocketticket.Trainer;
import io.pocketticket.android.IdxReader;
import io.pocketticket.android.Lesson;
import io.pocketticket.android.PersonalModel;
import io.pocketticket.android.Replay;
import io.pocketticket.android.Rollback;
import io.pocketticket.android.Samples;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** The app without its screens, on real digits: a network that learns the shipped samples knows what is drawn. */
public class ComparisonTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  static File file(String name) {
    return new File(System.getProperty("digits"), name);
  }

  static Samples samples(String name) throws IOException {
    try (InputStream images = new FileInputStream(file(name + "-images-idx3-ubyte"));
        InputStream labels = new FileInputStream(file(name + "-labels-idx1-ubyte"))) {
      return IdxReader.read(images, labels);
    }
  }

  /** What some writers draw, each digit once. */
  static Samples drawn(PictureFormat format, int firstWriter, int writers) {
    int elements = format.side() * format.side();
    Samples all = Samples.none(elements);
    for (int writer = firstWriter; writer < firstWriter + writers; ++writer) {
      for (int digit = 0; digit < 10; ++digit) {
        float[] picture = format.render(Handwriting.digit(digit, writer));
        all = all.plus(new Samples(picture, new int[] {digit}, elements));
      }
    }
    return all;
  }

  static Lesson lesson(PictureFormat format) throws IOException {
    Samples training = new Replay(samples("replay")).mixedWith(drawn(format, 100, 3));
    return new Lesson(training, drawn(format, 200, 1), samples("shipped"), Settings.EPOCHS);
  }

  @Test
  public void whatIsDrawnLooksToTheNetworkLikeTheDataSet() throws Exception {
    try (Artifact artifact = Artifact.of(file("ticket.tkt"));
        Trainer trainer = Trainer.open(artifact, Settings.options())) {
      PictureFormat format = PictureFormat.of(artifact.info().inputShape());
      Samples replay = samples("replay");
      trainer.fit(replay.values(), replay.labels(), FitOptions.builder().epochs(Settings.EPOCHS).build());
      Samples shipped = samples("shipped");
      assertTrue(trainer.evaluate(shipped.values(), shipped.labels()).accuracy() > 0.8);
      Samples drawn = drawn(format, 0, 20); // it has seen no drawing yet
      double accuracy = trainer.evaluate(drawn.values(), drawn.labels()).accuracy();
      assertTrue("accuracy on drawings " + accuracy, accuracy > 0.5);
    }
  }

  @Test
  public void aRivalTellsWhatItTakesAndWhatItLearnt() throws Exception {
    try (Artifact artifact = Artifact.of(file("ticket.tkt"))) {
      Lesson lesson = lesson(PictureFormat.of(artifact.info().inputShape()));
      Rival rival = Comparison.run("ticket", artifact, lesson, null);
      assertEquals(file("ticket.tkt").length(), rival.artifactBytes);
      assertEquals(Trainer.plan(artifact, Settings.options()).totalBytes(), rival.memoryBytes);
      assertTrue(rival.stepMs > 0);
      assertTrue(rival.after.own() > rival.before.own());
      assertTrue(rival.after.shipped() > rival.before.shipped());
      Rival again = Comparison.run("ticket", artifact, lesson, null);
      assertEquals(rival.after.toString(), again.after.toString()); // nothing is kept
      assertEquals(rival.before.toString(), again.before.toString());
      assertNull(Comparison.run("ticket", artifact, lesson, (progress, loss) -> false));
    }
  }

  @Test
  public void aLessonOfDrawingsIsKept() throws Exception {
    try (Artifact artifact = Artifact.of(file("ticket.tkt"));
        PersonalModel model =
            PersonalModel.open(artifact, Settings.options(), folder.getRoot(), Settings.SAVE_EVERY_STEPS)) {
      model.begin(lesson(PictureFormat.of(artifact.info().inputShape())));
      String told = Sentences.lesson(model.learn(new Rollback(Settings.MAY_FORGET), null));
      assertTrue(told, told.startsWith("Learnt: yours "));
      assertTrue(Sentences.facts(artifact.info(), 20_012, model.trainer().memory()).contains("file 20,012 bytes"));
    }
  }
}
