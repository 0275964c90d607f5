package io.pocketticket.android;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.pocketticket.Artifact;
import io.pocketticket.CorruptCheckpointException;
import io.pocketticket.FitListener;
import io.pocketticket.TrainerOptions;
import io.pocketticket.android.Rollback.Decision;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.Arrays;
import org.junit.After;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** Lessons: kept, rolled back, broken off anywhere, and what every kill between two files leaves behind. */
public class PersonalModelTest {
  private static final int EPOCHS = 2;
  private static final int STEPS = EPOCHS * 5; // 40 samples by 8
  private static final Rollback NEVER = new Rollback(1);

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private Artifact artifact;
  private Lesson lesson;
  private float[] ticket; // values of a trainer that has learnt nothing

  @Before
  public void read() throws Exception {
    File fixtures = new File(System.getProperty("fixtures"), "labels");
    artifact = Artifact.of(new File(fixtures, "net.tkt"));
    ByteBuffer x = littleEndian(new File(fixtures, "x.f32"));
    ByteBuffer y = littleEndian(new File(fixtures, "y.bin"));
    float[] values = new float[x.remaining() / 4];
    x.asFloatBuffer().get(values);
    int[] labels = new int[y.remaining() / 4];
    y.asIntBuffer().get(labels);
    lesson = new Lesson(
        part(values, labels, 0, 40), Samples.none(values.length / labels.length), part(values, labels, 40, 50), EPOCHS);
    try (PersonalModel model = open("untouched")) {
      ticket = model.trainer().values();
    }
  }

  @After
  public void close() {
    artifact.close();
  }

  private static ByteBuffer littleEndian(File file) throws IOException {
    return ByteBuffer.wrap(Files.readAllBytes(file.toPath())).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static Samples part(float[] values, int[] labels, int from, int to) {
    int elements = values.length / labels.length;
    return new Samples(
        Arrays.copyOfRange(values, from * elements, to * elements), Arrays.copyOfRange(labels, from, to), elements);
  }

  private File directory(String name) {
    return new File(folder.getRoot(), name);
  }

  private PersonalModel open(String name) throws IOException {
    return PersonalModel.open(artifact, TrainerOptions.builder().batch(8).build(), directory(name), 1);
  }

  private File file(String name, String file) {
    return new File(new File(directory(name), artifact.info().ticketHash()), file);
  }

  /** The lesson without any interruption; the values it comes to. */
  private float[] learnt(String name) throws IOException {
    try (PersonalModel model = open(name)) {
      model.begin(lesson);
      LessonReport report = model.learn(NEVER, null);
      assertTrue(report.isFinished());
      assertEquals(Decision.KEEP, report.decision());
      assertEquals(STEPS, report.fit().steps());
      return model.trainer().values();
    }
  }

  private static FitListener stopAfter(final int steps) {
    final int[] made = {0};
    return (progress, loss) -> ++made[0] < steps;
  }

  @Test
  public void whatWasLearntIsThereAfterARestart() throws Exception {
    float[] values = learnt("a");
    assertFalse(Arrays.equals(ticket, values));
    try (PersonalModel model = open("a")) {
      assertFalse(model.hasLesson());
      assertArrayEquals(values, model.trainer().values(), 0);
      assertEquals(EPOCHS, model.trainer().progress().epoch());
    }
    assertEquals(Arrays.asList("kept.tkc", "lock"), names("a"));
  }

  private java.util.List<String> names(String name) {
    String[] names = file(name, "").list();
    Arrays.sort(names);
    return Arrays.asList(names);
  }

  @Test
  public void aLessonBrokenOffAtAnyStepComesToTheSame() throws Exception {
    float[] values = learnt("whole");
    for (int steps = 1; steps <= STEPS; ++steps) {
      String name = "broken" + steps;
      try (PersonalModel model = open(name)) {
        model.begin(lesson);
        LessonReport report = model.learn(NEVER, stopAfter(steps));
        assertEquals(steps, report.fit().steps());
        assertFalse(report.isFinished());
        assertNull(report.decision());
        assertNull(report.after());
      }
      try (PersonalModel model = open(name)) { // another process
        assertTrue(model.hasLesson());
        assertArrayEquals(ticket, model.trainer().values(), 0); // nothing of it is kept yet
        LessonReport report = model.learn(NEVER, null);
        assertEquals(STEPS - steps, report.fit().steps());
        assertArrayEquals(values, model.trainer().values(), 0);
        assertFalse(model.hasLesson());
      }
    }
  }

  @Test
  public void aFlippedBitCostsOneLessonAndTwoCanBeForgotten() throws Exception {
    float[] once = learnt("a");
    learnt("a");
    flip(file("a", "kept.tkc"));
    try (PersonalModel model = open("a")) {
      assertArrayEquals(once, model.trainer().values(), 0);
      model.begin(lesson);
    }
    flip(file("a", "kept.tkc.previous"));
    assertThrows(CorruptCheckpointException.class, () -> open("a"));
    PersonalModel.forget(artifact, directory("a"));
    try (PersonalModel model = open("a")) {
      assertFalse(model.hasLesson());
      assertArrayEquals(ticket, model.trainer().values(), 0);
    }
    assertEquals(Arrays.asList("lock"), names("a"));
    learnt("a");
  }

  @Test
  public void aLessonWhoseStateIsDamagedBeginsAnewAndComesToTheSame() throws Exception {
    float[] values = learnt("whole");
    try (PersonalModel model = open("a")) {
      model.begin(lesson);
      model.learn(NEVER, stopAfter(4));
    }
    flip(file("a", "lesson.tkc"));
    flip(file("a", "lesson.tkc.previous"));
    try (PersonalModel model = open("a")) {
      assertEquals(STEPS, model.learn(NEVER, null).fit().steps());
      assertArrayEquals(values, model.trainer().values(), 0);
    }
    assertEquals(Arrays.asList("kept.tkc", "lock"), names("a"));
  }

  private static void flip(File file) throws IOException {
    byte[] content = Files.readAllBytes(file.toPath());
    content[content.length / 2] ^= 1;
    Files.write(file.toPath(), content);
  }

  @Test
  public void lessonsAddUp() throws Exception {
    float[] once = learnt("a");
    float[] twice = learnt("a");
    assertFalse(Arrays.equals(once, twice));
    try (PersonalModel model = open("a")) {
      assertEquals(2 * EPOCHS, model.trainer().progress().epoch());
      assertArrayEquals(twice, model.trainer().values(), 0);
    }
  }

  /** Labels moved on by one: whoever learns them gets everything wrong. */
  private Lesson harmful() {
    int[] wrong = lesson.training().labels().clone();
    for (int at = 0; at < wrong.length; ++at) wrong[at] = (wrong[at] + 1) % artifact.info().classCount();
    Samples training = new Samples(lesson.training().values(), wrong, lesson.training().elements());
    return new Lesson(training, lesson.training(), lesson.shipped(), 30);
  }

  @Test
  public void aLessonThatDoesHarmLeavesNoTrace() throws Exception {
    float[] values = learnt("a");
    try (PersonalModel model = open("a")) {
      model.begin(harmful());
      LessonReport report = model.learn(new Rollback(1), null);
      assertTrue(report.isFinished());
      assertEquals(Decision.WORSE_ON_OWN, report.decision());
      assertTrue(report.after().own() < report.before().own());
      assertArrayEquals(values, model.trainer().values(), 0);
      assertEquals(EPOCHS, model.trainer().progress().epoch());
      assertFalse(model.hasLesson());
    }
    assertEquals(Arrays.asList("kept.tkc", "lock"), names("a"));
    try (PersonalModel model = open("a")) {
      assertArrayEquals(values, model.trainer().values(), 0);
    }
  }

  @Test
  public void theFirstLessonIsRolledBackToTheTicket() throws Exception {
    try (PersonalModel model = open("a")) {
      Lesson harm = harmful();
      model.begin(new Lesson(harm.training(), harm.shipped(), harm.heldOut(), harm.epochs()));
      LessonReport report = model.learn(new Rollback(0), null);
      assertNotEquals(Decision.KEEP, report.decision());
      assertArrayEquals(ticket, model.trainer().values(), 0);
    }
  }

  @Test
  public void aKillAfterWhatWasLearntIsKeptComesToTheSame() throws Exception {
    float[] values = learnt("whole");
    for (boolean hasState : new boolean[] {true, false}) {
      String name = "a" + hasState;
      try (PersonalModel model = open(name)) {
        model.begin(lesson);
        model.learn(NEVER, stopAfter(STEPS));
        Files.copy(file(name, "lesson.tkc").toPath(), file(name, "kept.tkc").toPath());
      }
      // kept, but the lesson's files not yet deleted
      if (!hasState) assertTrue(file(name, "lesson.tkc").delete() && file(name, "lesson.tkc.previous").delete());
      try (PersonalModel model = open(name)) {
        LessonReport report = model.learn(NEVER, null);
        assertEquals(0, report.fit().steps());
        assertEquals(Decision.KEEP, report.decision());
        assertArrayEquals(values, model.trainer().values(), 0);
        assertEquals(EPOCHS, model.trainer().progress().epoch());
      }
    }
  }

  @Test
  public void theStateOfALessonThatIsNoLongerThereIsNotTakenForAnother() throws Exception {
    float[] values = learnt("whole");
    try (PersonalModel model = open("a")) {
      model.begin(harmful());
      model.learn(NEVER, stopAfter(3));
    }
    assertTrue(file("a", "lesson").delete()); // as a kill in the middle of giving it up leaves it
    assertArrayEquals(values, learnt("a"), 0);
  }

  @Test
  public void aDamagedLessonIsGivenUpAndNothingElse() throws Exception {
    float[] values = learnt("a");
    long length;
    try (PersonalModel model = open("a")) {
      model.begin(lesson);
      length = file("a", "lesson").length();
    }
    byte[] whole = Files.readAllBytes(file("a", "lesson").toPath());
    for (long at : new long[] {0, 5, 20, length / 2, length - 1}) {
      Files.write(file("a", "lesson").toPath(), whole);
      try (RandomAccessFile file = new RandomAccessFile(file("a", "lesson"), "rw")) {
        file.seek(at);
        int old = file.read();
        file.seek(at);
        file.write(old ^ 1);
      }
      assertGivenUp(values);
    }
    for (int cut : new int[] {0, 4, (int) length - 1}) {
      Files.write(file("a", "lesson").toPath(), Arrays.copyOf(whole, cut));
      assertGivenUp(values);
    }
  }

  private void assertGivenUp(float[] values) throws IOException {
    try (PersonalModel model = open("a")) {
      assertNull(model.learn(NEVER, null));
      assertFalse(model.hasLesson());
      assertArrayEquals(values, model.trainer().values(), 0);
    }
  }

  @Test
  public void theSamplesOfALessonAreOverwrittenBeforeTheirFileGoes() throws Exception {
    try (PersonalModel model = open("a")) {
      model.begin(lesson);
      try (RandomAccessFile still = new RandomAccessFile(file("a", "lesson"), "r")) { // of a file without a name, then
        assertTrue(still.length() > 4 * lesson.training().values().length);
        model.abandon();
        assertFalse(file("a", "lesson").exists());
        for (long left = still.length(); left > 0; --left) assertEquals(0, still.read());
      }
    }
  }

  @Test
  public void aNewLessonTakesThePlaceOfOneUnderWay() throws Exception {
    float[] values = learnt("whole");
    try (PersonalModel model = open("a")) {
      model.begin(harmful());
      model.learn(NEVER, stopAfter(4));
      model.begin(lesson);
      model.learn(NEVER, null);
      assertArrayEquals(values, model.trainer().values(), 0);
    }
  }

  @Test
  public void resetGoesBackToTheTicketForGood() throws Exception {
    learnt("a");
    try (PersonalModel model = open("a")) {
      model.begin(lesson);
      model.learn(NEVER, stopAfter(2));
      model.reset();
      assertFalse(model.hasLesson());
      assertArrayEquals(ticket, model.trainer().values(), 0);
    }
    try (PersonalModel model = open("a")) {
      assertArrayEquals(ticket, model.trainer().values(), 0);
    }
    assertEquals(Arrays.asList("lock"), names("a"));
  }

  @Test
  public void theShareThatIsDoneGoesFromStepToStepUpToOne() throws Exception {
    try (PersonalModel model = open("a")) {
      model.begin(lesson);
      double[] last = {0};
      model.learn(NEVER, (progress, loss) -> {
        double share = model.shareDone(progress);
        assertEquals(last[0] + 1.0 / STEPS, share, 1e-9);
        last[0] = share;
        return true;
      });
      assertEquals(1, last[0], 1e-9);
    }
  }

  @Test
  public void aDirectoryHasOneOwnerAndDeletingWaitsForIt() throws Exception {
    try (PersonalModel model = open("a")) {
      assertThrows(ModelInUseException.class, () -> open("a"));
      assertThrows(ModelInUseException.class, () -> PersonalModel.forget(artifact, directory("a")));
      assertTrue(model.trainer().batch() > 0); // the first one is not disturbed
      open("b").close();
    }
    open("a").close();
  }

  @Test
  public void anotherTicketHasFilesOfItsOwn() throws Exception {
    float[] values = learnt("a");
    try (Artifact other = Artifact.of(new File(System.getProperty("fixtures"), "tiny.tkt"));
        PersonalModel model = PersonalModel.open(other, TrainerOptions.builder().build(), directory("a"), 1)) {
      assertEquals(0, model.trainer().progress().step());
    }
    try (PersonalModel model = open("a")) {
      assertArrayEquals(values, model.trainer().values(), 0);
    }
  }

  @Test
  public void cancelAndCloseFromAnotherThreadEndALessonAtAStep() throws Exception {
    float[] values = learnt("whole");
    for (boolean closes : new boolean[] {false, true}) {
      String name = "a" + closes;
      try (PersonalModel model = open(name)) {
        model.begin(lesson);
        Thread[] other = new Thread[1];
        LessonReport report = model.learn(NEVER, (progress, loss) -> {
          if (progress.step() == 3) other[0] = inAnotherThread(model, closes);
          return true;
        });
        assertFalse(report.isFinished());
        assertEquals(3, report.fit().progress().step());
        other[0].join();
      }
      try (PersonalModel model = open(name)) {
        model.learn(NEVER, null);
        assertArrayEquals(values, model.trainer().values(), 0);
      }
    }
  }

  /** Returns once the trainer has been told; a close then waits for the lesson. */
  private static Thread inAnotherThread(PersonalModel model, boolean closes) {
    Thread thread = new Thread(() -> {
      try {
        if (closes) model.close();
        if (!closes) model.cancel();
      } catch (IOException error) {
        throw new AssertionError(error);
      }
    });
    thread.start();
    try {
      thread.join(closes ? 200 : 0);
    } catch (InterruptedException error) {
      throw new AssertionError(error);
    }
    return thread;
  }
}
