package io.pocketticket.draw;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import org.junit.Test;

/**
 * Drawings become pictures as the data sets' were made: size and place do not matter, box, centre and stroke are
 * theirs.
 */
public class PictureFormatTest {
  private static final PictureFormat MNIST = PictureFormat.of(new int[] {28, 28});
  private static final PictureFormat DIGITS = PictureFormat.of(new int[] {1, 8, 8});

  private static Drawing drawing(float scale, float dx, float dy, float... points) {
    Drawing drawing = new Drawing();
    for (int at = 0; at < points.length; at += 2) drawing.to(scale * points[at] + dx, scale * points[at + 1] + dy);
    return drawing;
  }

  /** The first and last column, the first and last row with ink. */
  private static int[] box(float[] picture, int side) {
    int[] box = {side, -1, side, -1};
    for (int at = 0; at < picture.length; ++at) {
      if (picture[at] == 0) continue;
      box[0] = Math.min(box[0], at % side);
      box[1] = Math.max(box[1], at % side);
      box[2] = Math.min(box[2], at / side);
      box[3] = Math.max(box[3], at / side);
    }
    return box;
  }

  private static double mass(float[] picture) {
    double mass = 0;
    for (float value : picture) mass += value;
    return mass;
  }

  @Test
  public void sizeAndPlaceDoNotMatter() {
    float[] zigzag = {0, 0, 8, 2, 1, 5, 7, 9};
    for (PictureFormat format : new PictureFormat[] {MNIST, DIGITS}) {
      float[] picture = format.render(drawing(1, 0, 0, zigzag));
      float point = format.maxValue() / 16f;
      for (float scale : new float[] {0.25f, 4, 33.3f}) {
        float[] other = format.render(drawing(scale, 17, 400, zigzag));
        assertArrayEquals(picture, other, 2 * point + 1); // of 16 points of a pixel two may fall to the other side
        assertEquals(1, mass(other) / mass(picture), 0.02);
      }
    }
  }

  @Test
  public void mnistKeepsProportionsInABoxOf20AroundTheCentreOfMass() {
    for (int digit = 0; digit < 10; ++digit) {
      for (int writer = 0; writer < 20; ++writer) {
        float[] picture = MNIST.render(Handwriting.digit(digit, writer));
        int[] box = box(picture, 28);
        int longer = Math.max(box[1] - box[0], box[3] - box[2]) + 1;
        assertTrue(
            "digit " + digit + ": " + longer, longer >= 20 && longer <= 21); // the box need not begin with a pixel
        double x = 0;
        double y = 0;
        for (int at = 0; at < picture.length; ++at) {
          x += picture[at] * (at % 28 + 0.5);
          y += picture[at] * (at / 28 + 0.5);
        }
        assertEquals(14, x / mass(picture), 0.15);
        assertEquals(14, y / mass(picture), 0.15);
      }
    }
    int[] flat = box(MNIST.render(drawing(1, 0, 0, 0, 0, 20, 0, 20, 8, 0, 8, 0, 0)), 28);
    assertEquals(20, flat[1] - flat[0] + 1, 1);
    assertEquals(9, flat[3] - flat[2] + 1, 1); // 8 / 20 of what the middle of the pen may go, and the pen
  }

  @Test
  public void digitsFillTheirHeightAndAreCentred() {
    for (int digit = 0; digit < 10; ++digit) {
      for (int writer = 0; writer < 20; ++writer) {
        int[] box = box(DIGITS.render(Handwriting.digit(digit, writer)), 8);
        assertEquals(0, box[2]);
        assertEquals(7, box[3]);
        assertEquals(3.5, (box[0] + box[1]) / 2.0, 0.5);
        assertTrue(box[1] - box[0] + 1 <= 6);
      }
    }
  }

  @Test
  public void lineAndDotAreNotBlownUp() {
    int[] line = box(DIGITS.render(drawing(1, 0, 0, 5, 0, 5, 100)), 8);
    assertArrayEquals(new int[] {3, 4, 0, 7}, line);
    line = box(MNIST.render(drawing(1, 0, 0, 5, 0, 5, 100)), 28);
    assertArrayEquals(new int[] {12, 15, 4, 23}, line);
    for (PictureFormat format : new PictureFormat[] {MNIST, DIGITS}) {
      float[] dot = format.render(drawing(1, 0, 0, 1234, 987));
      assertTrue(mass(dot) > 0);
      int[] box = box(dot, format.side());
      assertTrue(box[1] - box[0] <= 3);
      assertEquals(format.side() / 2.0 - 0.5, (box[0] + box[1]) / 2.0, 0);
      assertEquals(format.side() / 2.0 - 0.5, (box[2] + box[3]) / 2.0, 0);
    }
  }

  /** The data sets' mean share of ink: 33.3 of 255 for MNIST, 4.88 of 16 for scikit-learn's digits. */
  @Test
  public void strokesAreAsThickAsTheDataSets() {
    assertEquals(33.3 / 255, meanInk(MNIST), 0.012);
    assertEquals(4.88 / 16, meanInk(DIGITS), 0.02);
  }

  private static double meanInk(PictureFormat format) {
    double sum = 0;
    for (int digit = 0; digit < 10; ++digit) {
      for (int writer = 0; writer < 20; ++writer) {
        float[] picture = format.render(Handwriting.digit(digit, writer));
        sum += mass(picture) / picture.length / format.maxValue();
      }
    }
    return sum / 200;
  }

  @Test
  public void valuesAreWholeAndInRange() {
    for (PictureFormat format : new PictureFormat[] {MNIST, DIGITS}) {
      float highest = 0;
      for (float value : format.render(Handwriting.digit(8, 1))) {
        assertEquals(Math.round(value), value, 0);
        assertTrue(value >= 0);
        highest = Math.max(highest, value);
      }
      assertEquals(format.maxValue(), highest, 0);
      assertEquals(0, mass(format.render(new Drawing())), 0);
      assertEquals(format.side() * format.side(), format.render(new Drawing()).length);
    }
  }

  @Test
  public void otherShapesAreRefused() {
    for (final int[] shape : new int[][] {{32, 32}, {28}, {3, 28, 28}, {8, 28}}) {
      assertThrows(IllegalArgumentException.class, () -> PictureFormat.of(shape));
    }
  }
}
