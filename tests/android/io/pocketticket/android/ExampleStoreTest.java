package io.pocketticket.android;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.pocketticket.Artifact;
import io.pocketticket.TrainerOptions;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/**
 * The store over SQLite itself: what stays, what goes, what is held out, and that what is deleted is gone from the
 * file.
 */
public class ExampleStoreTest {
  private static final int ELEMENTS = 16;

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private ExampleStore open(int capacity) throws IOException {
    return ExampleStore.open(new File(folder.getRoot(), "store"), ELEMENTS, 3, capacity);
  }

  /** One that is told from every other by its bytes. */
  private static float[] sample(int number) {
    float[] sample = new float[ELEMENTS];
    Random random = new Random(number);
    for (int at = 0; at < ELEMENTS; ++at) sample[at] = random.nextFloat();
    return sample;
  }

  private static Set<Float> firsts(Samples samples) {
    Set<Float> firsts = new HashSet<>();
    for (int at = 0; at < samples.count(); ++at) firsts.add(samples.values()[at * ELEMENTS]);
    return firsts;
  }

  private static int[] perClass(Samples samples) {
    int[] counts = new int[3];
    for (int label : samples.labels()) ++counts[label];
    return counts;
  }

  @Test
  public void whatIsAddedIsThereAfterARestart() throws Exception {
    try (ExampleStore store = open(100)) {
      for (int number = 0; number < 12; ++number) store.add(sample(number), number % 3);
    }
    try (ExampleStore store = open(100)) {
      assertEquals(12, store.count());
      Samples training = store.training();
      assertArrayEquals(new int[] {0, 1, 2, 0, 1, 2, 0, 1, 2}, training.labels());
      float[] fifth = java.util.Arrays.copyOfRange(training.values(), 4 * ELEMENTS, 5 * ELEMENTS);
      assertArrayEquals(sample(4), fifth, 0);
      assertArrayEquals(new int[] {0, 1, 2}, store.heldOut().labels()); // the fourth of each class
      assertTrue(firsts(store.heldOut()).contains(sample(9)[0]));
    }
  }

  @Test
  public void aSampleNeverChangesItsPart() throws Exception {
    Map<Float, Boolean> parts = new HashMap<>();
    Random random = new Random(1);
    try (ExampleStore store = open(24)) {
      for (int number = 0; number < 300; ++number) {
        store.add(sample(number % 100), random.nextInt(3)); // some again, with other labels, some gone meanwhile
        for (boolean heldOut : new boolean[] {false, true}) {
          for (float first : firsts(heldOut ? store.heldOut() : store.training())) {
            Boolean before = number < 100 ? parts.put(first, heldOut) : Boolean.valueOf(heldOut);
            assertTrue(before == null || before == heldOut);
          }
        }
        Set<Float> both = firsts(store.training());
        both.retainAll(firsts(store.heldOut()));
        assertTrue(both.isEmpty());
      }
    }
  }

  @Test
  public void aFullStoreStaysWithinItsCapacityAndIsBalanced() throws Exception {
    try (ExampleStore store = open(24)) {
      for (int number = 0; number < 200; ++number) store.add(sample(number), number < 180 ? 0 : 1 + number % 2);
      assertEquals(24, store.count());
      int[] training = perClass(store.training());
      int[] heldOut = perClass(store.heldOut());
      assertEquals(18, training[0] + training[1] + training[2]);
      for (int count : training) assertEquals(6, count, 2);
      for (int count : heldOut) assertEquals(2, count, 1);
      assertFalse(firsts(store.training()).contains(sample(0)[0])); // the oldest went first
      assertTrue(firsts(store.training()).contains(sample(198)[0]));
    }
  }

  @Test
  public void theSameSampleIsKeptOnceAndTakesTheNewLabel() throws Exception {
    try (ExampleStore store = open(100)) {
      long id = store.add(sample(1), 0);
      assertEquals(id, store.add(sample(1), 2));
      assertEquals(1, store.count());
      assertArrayEquals(new int[] {2}, store.training().labels());
      store.relabel(id, 1);
      assertArrayEquals(new int[] {1}, store.training().labels());
      assertFalse(store.isHeldOut(id));
      store.remove(id);
      assertEquals(0, store.count());
      store.remove(id);
    }
  }

  @Test
  public void isHeldOutTellsThePart() throws Exception {
    try (ExampleStore store = open(100)) {
      for (int number = 0; number < 8; ++number) {
        assertEquals(number % 4 == 3, store.isHeldOut(store.add(sample(number), 0)));
      }
    }
  }

  @Test
  public void whatIsRefusedChangesNothing() throws Exception {
    try (ExampleStore store = open(100)) {
      float[] broken = sample(0);
      broken[3] = Float.NaN;
      assertThrows(IllegalArgumentException.class, () -> store.add(broken, 0));
      assertThrows(IllegalArgumentException.class, () -> store.add(sample(0), 3));
      assertThrows(IllegalArgumentException.class, () -> store.add(sample(0), -1));
      assertThrows(IllegalArgumentException.class, () -> store.add(new float[ELEMENTS - 1], 0));
      assertEquals(0, store.count());
      store.add(sample(0), 0);
    }
    assertThrows(IllegalArgumentException.class, () -> open(3));
    File same = new File(folder.getRoot(), "store");
    assertThrows(IllegalArgumentException.class, () -> ExampleStore.open(same, ELEMENTS + 1, 3, 100));
    open(100).close();
  }

  /** Whether the bytes of a sample are anywhere in the files of the directory. */
  private boolean isOnDisk(float[] sample) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(4 * ELEMENTS).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(sample);
    String wanted = new String(bytes.array(), "ISO-8859-1");
    File[] files = new File(folder.getRoot(), "store").listFiles();
    if (files == null) return false;
    for (File file : files) {
      if (file.isFile() && new String(Files.readAllBytes(file.toPath()), "ISO-8859-1").contains(wanted)) return true;
    }
    return false;
  }

  @Test
  public void whatIsRemovedIsGoneFromTheFile() throws Exception {
    try (ExampleStore store = open(100)) {
      long[] ids = new long[50];
      for (int number = 0; number < 50; ++number) ids[number] = store.add(sample(number), number % 3);
      for (int number = 0; number < 50; ++number) assertTrue(isOnDisk(sample(number)));
      for (int number = 0; number < 50; number += 2) store.remove(ids[number]);
      for (int number = 0; number < 50; ++number) assertEquals(number % 2 == 1, isOnDisk(sample(number)));
    }
  }

  @Test
  public void whatMadeRoomIsGoneFromTheFile() throws Exception {
    try (ExampleStore store = open(8)) {
      for (int number = 0; number < 50; ++number) store.add(sample(number), 0);
      Set<Float> left = firsts(store.training());
      left.addAll(firsts(store.heldOut()));
      assertEquals(8, left.size());
      for (int number = 0; number < 50; ++number) {
        assertEquals(left.contains(sample(number)[0]), isOnDisk(sample(number)));
      }
    }
  }

  @Test
  public void deletingMyDataDeletesAllThatWasMadeOfIt() throws Exception {
    File directory = new File(folder.getRoot(), "store");
    File net = new File(System.getProperty("fixtures"), "labels/net.tkt");
    try (ExampleStore store = open(100); Artifact artifact = Artifact.of(net);
        PersonalModel model = PersonalModel.open(artifact, TrainerOptions.builder().build(), directory, 1)) {
      store.add(sample(1), 0);
      assertFalse(model.hasLesson());
      assertThrows(ModelInUseException.class, () -> PersonalData.delete(directory)); // a model is open
      assertEquals(1, store.count());
    }
    PersonalData.delete(directory);
    assertFalse(directory.exists());
    PersonalData.delete(directory); // nothing there: no effect
    try (ExampleStore store = open(100)) {
      assertEquals(0, store.count());
    }
  }
}
