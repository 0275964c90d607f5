package io.pocketticket.android;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.pocketticket.android.Rollback.Decision;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;
import org.junit.Test;

/** What is held out, what a full store loses, what is replayed, and what is rolled back. */
public class DecisionsTest {
  private static Map<Integer, Integer> counts(int... labelsAndCounts) {
    Map<Integer, Integer> counts = new TreeMap<>();
    for (int at = 0; at < labelsAndCounts.length; at += 2) counts.put(labelsAndCounts[at], labelsAndCounts[at + 1]);
    return counts;
  }

  @Test
  public void everyFourthOfAClassIsHeldOut() {
    String pattern = "";
    for (int number = 0; number < 9; ++number) pattern += Balance.isHeldOut(number, 4) ? "h" : ".";
    assertEquals("...h...h.", pattern);
  }

  @Test
  public void thePartsOfTheCapacityAddUp() {
    for (int all = 4; all < 100; ++all) {
      int held = Balance.capacity(all, 4, true);
      assertTrue(held >= 1);
      assertEquals(all, held + Balance.capacity(all, 4, false));
    }
  }

  @Test
  public void aFullStoreLosesOfItsLargestClass() {
    assertEquals(7, Balance.fullest(counts(1, 2, 7, 3, 9, 1), 1));
    assertEquals(1, Balance.fullest(counts(1, 2, 7, 2), 9)); // of equals the lowest
    assertEquals(7, Balance.fullest(counts(1, 2, 7, 2), 7)); // but rather that which is added to
    assertEquals(1, Balance.fullest(counts(1, 2, 7, 2), 1));
  }

  @Test
  public void whatGetsWorseIsRolledBack() {
    Rollback rollback = new Rollback(0.05);
    Score before = new Score(5, 8, 90, 100);
    assertEquals(Decision.KEEP, rollback.decide(before, new Score(5, 8, 90, 100)));
    assertEquals(Decision.KEEP, rollback.decide(before, new Score(5, 8, 85, 100)));
    assertEquals(Decision.FORGOT_TOO_MUCH, rollback.decide(before, new Score(5, 8, 84, 100)));
    assertEquals(Decision.FORGOT_TOO_MUCH, rollback.decide(before, new Score(8, 8, 84, 100)));
    assertEquals(Decision.WORSE_ON_OWN, rollback.decide(before, new Score(4, 8, 100, 100)));
    assertEquals(Decision.KEEP, rollback.decide(before, new Score(8, 8, 100, 100)));
    assertTrue(Decision.KEEP.isKept());
    assertFalse(Decision.WORSE_ON_OWN.isKept());
  }

  @Test
  public void withoutHeldOutSamplesNothingIsRolledBack() {
    Score none = new Score(0, 0, 0, 0);
    assertEquals(Decision.KEEP, new Rollback(0).decide(none, none));
    assertThrows(IllegalArgumentException.class, () -> new Rollback(Double.NaN));
    assertThrows(IllegalArgumentException.class, () -> new Score(3, 2, 0, 0));
  }

  @Test
  public void fewOwnSamplesAreRepeatedUntilTheyCount() {
    int[][] ownShippedRepeats = {
        {0, 100, 1}, {1, 100, 8}, {12, 100, 8}, {20, 100, 5}, {60, 100, 1}, {500, 100, 1}, {3, 0, 1}};
    for (int[] one : ownShippedRepeats) assertEquals(Arrays.toString(one), one[2], Replay.repeats(one[0], one[1]));
    Samples shipped = samples(0, 1, 2, 3, 4);
    Samples mixed = new Replay(shipped).mixedWith(samples(7, 8));
    assertArrayEquals(new int[] {0, 1, 2, 3, 4, 7, 8, 7, 8}, mixed.labels());
    for (int at = 0; at < mixed.count(); ++at)
      assertEquals(10f * mixed.labels()[at] + 1, mixed.values()[2 * at + 1], 0);
  }

  private static Samples samples(int... labels) {
    float[] values = new float[2 * labels.length];
    for (int at = 0; at < values.length; ++at) values[at] = 10 * labels[at / 2] + at % 2;
    return new Samples(values, labels, 2);
  }

  @Test
  public void samplesThatDoNotFitAreRefused() {
    assertThrows(IllegalArgumentException.class, () -> new Samples(new float[3], new int[2], 2));
    assertThrows(IllegalArgumentException.class, () -> Samples.none(0));
    assertThrows(IllegalArgumentException.class, () -> Samples.none(2).plus(Samples.none(3)));
    assertThrows(IllegalArgumentException.class, () -> new Lesson(Samples.none(2), samples(1), samples(1), 1));
    assertThrows(IllegalArgumentException.class, () -> new Lesson(samples(1), samples(1), samples(1), 0));
    Samples own = samples(1);
    assertSame(own, new Lesson(own, Samples.none(2), Samples.none(2), 1).training());
  }

  private static final byte[] IMAGES = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, (byte) 255, 3, 4};
  private static final byte[] LABELS = {0, 0, 8, 1, 0, 0, 0, 2, 7, 9};

  private static Samples read(byte[] images, byte[] labels) throws IOException {
    return IdxReader.read(new ByteArrayInputStream(images), new ByteArrayInputStream(labels));
  }

  @Test
  public void idxFilesAreReadWholeOrNotAtAll() throws IOException {
    Samples read = read(IMAGES, LABELS);
    assertArrayEquals(new float[] {1, 255, 3, 4}, read.values(), 0);
    assertArrayEquals(new int[] {7, 9}, read.labels());
    assertEquals(2, read.elements());
    for (int length = 0; length < IMAGES.length; ++length) {
      byte[] cut = Arrays.copyOf(IMAGES, length);
      assertThrows(IOException.class, () -> read(cut, LABELS));
    }
    for (int length = 0; length < LABELS.length; ++length) {
      byte[] cut = Arrays.copyOf(LABELS, length);
      assertThrows(IOException.class, () -> read(IMAGES, cut));
    }
    for (int at : new int[] {2, 3, 4, 7, 8, 12}) { // another kind, rank, count, or an extent beyond all measure
      byte[] other = IMAGES.clone();
      other[at] ^= 0x40;
      assertThrows("byte " + at, IOException.class, () -> read(other, LABELS));
    }
  }
}
