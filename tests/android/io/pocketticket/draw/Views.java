package io.pocketticket.draw;

import io.pocketticket.Artifact;
import io.pocketticket.android.Lesson;
import io.pocketticket.android.PersonalModel;
import io.pocketticket.android.Rollback;
import java.io.File;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;

/**
 * Draws the app's own views as pictures on a JVM, by the code that draws them on Android and with what the network
 * says: pad and bars before and after a lesson, and the comparison. Buttons and texts are Android's widgets and not to
 * be seen here.
 */
final class Views {
  private static final int WIDTH = 720; // of a phone with two pixels a dp

  private Views() {}

  public static void main(String[] arguments) throws Exception {
    File output = new File(arguments[0]);
    List<Rival> rivals = new ArrayList<>();
    for (int at = 0; at < Comparison.ASSETS.length; ++at) {
      File file = ComparisonTest.file(Comparison.ASSETS[at]);
      try (Artifact artifact = Artifact.of(file)) {
        Lesson lesson = ComparisonTest.lesson(PictureFormat.of(artifact.info().inputShape()));
        Rival rival = Comparison.run(Comparison.NAMES[at], artifact, lesson, null);
        System.out.println(rival.name + ": before " + rival.before + "; after " + rival.after);
        rivals.add(rival);
        if (at == 0) pads(artifact, lesson, output);
      }
    }
    float line = 44;
    AwtInk ink = new AwtInk(WIDTH, (int) Math.ceil(ComparisonPainter.height(line, rivals.size())));
    ComparisonPainter.paint(ink, WIDTH, line, rivals);
    ink.write(new File(output, "comparison.png"));
  }

  private static void pads(Artifact artifact, Lesson lesson, File output) throws Exception {
    PictureFormat format = PictureFormat.of(artifact.info().inputShape());
    File directory = Files.createTempDirectory("views").toFile();
    try (PersonalModel model = PersonalModel.open(artifact, Settings.options(), directory, 50)) {
      AwtInk ink = new AwtInk(2 * WIDTH, WIDTH + 400);
      pad(ink, 0, model, artifact, format);
      model.begin(lesson);
      model.learn(new Rollback(1), null);
      pad(ink, WIDTH, model, artifact, format);
      ink.write(new File(output, "pad.png"));
    }
  }

  private static void pad(AwtInk ink, int left, PersonalModel model, Artifact artifact, PictureFormat format) {
    Drawing drawing = Handwriting.digit(3, 10);
    float[] picture = format.render(drawing);
    PadPainter.paint(ink.at(left, 0), WIDTH - 24, drawing, picture, format);
    float[] probabilities = model.trainer().predict(picture);
    int best = 0;
    for (int at = 1; at < probabilities.length; ++at) {
      if (probabilities[at] > probabilities[best]) best = at;
    }
    for (int at = 0; at < probabilities.length; ++at) {
      ink.at(left + at % 2 * (WIDTH / 2 - 12), WIDTH - 10 + at / 2 * 80);
      BarPainter.paint(ink, WIDTH / 2 - 12, 80, artifact.info().labels().get(at), probabilities[at], at == best);
    }
  }
}
