import io.pocketticket.Artifact;
import io.pocketticket.FitOptions;
import io.pocketticket.FitReport;
import io.pocketticket.Start;
import io.pocketticket.Trainer;
import io.pocketticket.TrainerOptions;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The device's part of benchmarks/handwriting.py: for each person and each trial opens a trainer, trains it on the
 * first digits of that person (unless the learning rate is 0), and tells its accuracy on the others, on other people's,
 * the milliseconds of a step, and the steps. Arguments: people, others, epochs, batch, seed, and the trials, {@code
 * NAME|ARTIFACT|init or trained|RATE}.
 */
public final class Handwriting {
  private static final int PIXELS = 784;

  /** Digits of one person; the first {@code training} of them are trained on. */
  private static final class Person {
    final int training;
    final float[] x;
    final int[] y;

    Person(ByteBuffer from) {
      from.getInt(); // who
      int count = from.getInt();
      training = from.getInt();
      y = new int[count];
      x = new float[count * PIXELS];
      for (int i = 0; i < count; ++i) y[i] = from.get();
      for (int i = 0; i < x.length; ++i) x[i] = from.get() & 255;
    }

    float[] samples(int first, int end) {
      return Arrays.copyOfRange(x, first * PIXELS, end * PIXELS);
    }
  }

  public static void main(String[] arguments) throws IOException {
    List<Person> people = read(new File(arguments[0]));
    Person others = read(new File(arguments[1])).get(0);
    FitOptions fit = FitOptions.builder().epochs(Integer.parseInt(arguments[2])).build();
    for (String trial : Arrays.asList(arguments).subList(5, arguments.length)) {
      String[] words = trial.split("\\|");
      float rate = Float.parseFloat(words[3]);
      TrainerOptions options = TrainerOptions.builder()
                                   .batch(Integer.parseInt(arguments[3]))
                                   .seed(Long.parseLong(arguments[4]))
                                   .start(words[2].equals("init") ? Start.INIT : Start.TRAINED)
                                   .learningRate(rate)
                                   .build();
      try (Artifact artifact = Artifact.of(new File(words[1]))) {
        for (Person person : people) {
          System.out.println(words[0] + serve(person, others, artifact, options, rate > 0 ? fit : null));
        }
      }
    }
  }

  private static String serve(Person person, Person others, Artifact artifact, TrainerOptions options, FitOptions fit)
      throws IOException {
    int count = person.y.length;
    try (Trainer trainer = Trainer.open(artifact, options)) {
      double milliseconds = 0;
      int steps = 0;
      if (fit != null) {
        FitReport report =
            trainer.fit(person.samples(0, person.training), Arrays.copyOf(person.y, person.training), fit);
        steps = report.steps();
        milliseconds = 1000 * report.seconds() / steps;
      }
      int[] labels = Arrays.copyOfRange(person.y, person.training, count);
      double own = trainer.evaluate(person.samples(person.training, count), labels).accuracy();
      return "|" + own + "|" + trainer.evaluate(others.x, others.y).accuracy() + "|" + milliseconds + "|" + steps;
    }
  }

  private static List<Person> read(File file) throws IOException {
    byte[] content = new byte[(int) file.length()];
    try (InputStream stream = new FileInputStream(file)) {
      int read = 0;
      while (read < content.length) read += stream.read(content, read, content.length - read);
    }
    ByteBuffer from = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
    List<Person> people = new ArrayList<>();
    while (from.hasRemaining()) people.add(new Person(from));
    return people;
  }
}
