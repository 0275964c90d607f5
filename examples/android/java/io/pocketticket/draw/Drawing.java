package io.pocketticket.draw;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** What was drawn: strokes as points (x, y), in any unit, y downwards. */
final class Drawing {
  /** One stroke; {@code points} holds x and y in turn, and {@code count} of them are in use. */
  static final class Stroke {
    private float[] points = new float[64];
    private int count;

    int size() {
      return count / 2;
    }

    float x(int at) {
      return points[2 * at];
    }

    float y(int at) {
      return points[2 * at + 1];
    }

    private void add(float x, float y) {
      if (count + 2 > points.length) points = java.util.Arrays.copyOf(points, 2 * points.length);
      points[count++] = x;
      points[count++] = y;
    }
  }

  private final List<Stroke> strokes = new ArrayList<>();

  /** The pen comes down. */
  void begin(float x, float y) {
    strokes.add(new Stroke());
    to(x, y);
  }

  /** The pen moves on; without a stroke begun it comes down. */
  void to(float x, float y) {
    if (strokes.isEmpty()) strokes.add(new Stroke());
    strokes.get(strokes.size() - 1).add(x, y);
  }

  void clear() {
    strokes.clear();
  }

  boolean isEmpty() {
    return strokes.isEmpty();
  }

  List<Stroke> strokes() {
    return Collections.unmodifiableList(strokes);
  }
}
