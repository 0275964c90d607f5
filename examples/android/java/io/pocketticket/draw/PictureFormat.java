package io.pocketticket.draw;

import java.util.Arrays;

/**
 * Turns a drawing into a picture as those that the network knows were made: size and place of the drawing do not
 * matter.
 *
 * <p>MNIST, 28 x 28, values 0 to 255: the ink fits a box of 20 x 20 in its own proportions, and its centre of mass is
 * in the middle (LeCun et al. 1998). scikit-learn's digits, 8 x 8, values 0 to 16: the ink's box fills 32 points in
 * height and up to 24 in width, is centred, and blocks of 4 x 4 points are counted (Kaynak 1995). Refuses other shapes.
 */
final class PictureFormat {
  private static final float MAX_STRETCH = 2; // of the width over the height: a 1 stays narrow

  private final int side;
  private final int fine; // points along a pixel
  private final int maxValue;
  private final float boxWidth; // in points, as all lengths below
  private final float boxHeight;
  private final float penRadius;
  private final boolean byMass;

  private PictureFormat(
      int side, int fine, int maxValue, float boxWidth, float boxHeight, float penRadius, boolean byMass) {
    this.side = side;
    this.fine = fine;
    this.maxValue = maxValue;
    this.boxWidth = fine * boxWidth;
    this.boxHeight = fine * boxHeight;
    this.penRadius = fine * penRadius;
    this.byMass = byMass;
  }

  /** That of an artifact's input shape. The pens are as thick as the data sets' strokes are on average. */
  static PictureFormat of(int[] shape) {
    int[] extents = shape.length == 3 && shape[0] == 1 ? Arrays.copyOfRange(shape, 1, 3) : shape;
    if (Arrays.equals(extents, new int[] {28, 28})) return new PictureFormat(28, 8, 255, 20, 20, 1.15f, true);
    if (Arrays.equals(extents, new int[] {8, 8})) return new PictureFormat(8, 4, 16, 6, 8, 0.62f, false);
    throw new IllegalArgumentException("a network for " + Arrays.toString(shape) + "; draw for 28 x 28 or 8 x 8");
  }

  /** Pixels along an edge. */
  int side() {
    return side;
  }

  int maxValue() {
    return maxValue;
  }

  /** side * side values, row by row; all 0 for an empty drawing. */
  float[] render(Drawing drawing) {
    if (drawing.isEmpty()) return new float[side * side];
    float[] box = box(drawing);
    boolean isDot = box[0] == box[2] && box[1] == box[3];
    float scaleY = isDot ? 0 : scale(boxHeight, box[3] - box[1]);
    float scaleX = isDot ? 0 : scale(boxWidth, box[2] - box[0]);
    if (byMass) {
      scaleX = scaleY = Math.min(scaleX, scaleY);
    } else {
      scaleX = Math.min(scaleX, MAX_STRETCH * scaleY);
      scaleY = Math.min(scaleY, MAX_STRETCH * scaleX);
    }
    float middle = fine * side / 2f;
    float x = middle - scaleX * (box[0] + box[2]) / 2;
    float y = middle - scaleY * (box[1] + box[3]) / 2;
    boolean[] ink = inked(drawing, scaleX, scaleY, x, y);
    if (byMass) {
      float[] mass = centreOfMass(ink);
      ink = inked(drawing, scaleX, scaleY, x + middle - mass[0], y + middle - mass[1]);
    }
    return counted(ink);
  }

  /** Points of the box for each unit of the drawing; a line without width is stretched by the other side alone. */
  private float scale(float points, float extent) {
    return (points - 2 * penRadius) / Math.max(extent, 1e-6f);
  }

  /** left, top, right, bottom of all points. */
  private static float[] box(Drawing drawing) {
    float inf = Float.POSITIVE_INFINITY;
    float[] box = {inf, inf, -inf, -inf};
    for (Drawing.Stroke stroke : drawing.strokes()) {
      for (int at = 0; at < stroke.size(); ++at) {
        box[0] = Math.min(box[0], stroke.x(at));
        box[1] = Math.min(box[1], stroke.y(at));
        box[2] = Math.max(box[2], stroke.x(at));
        box[3] = Math.max(box[3], stroke.y(at));
      }
    }
    return box;
  }

  /** The points, (fine * side)^2 of them, that the pen covers. */
  private boolean[] inked(Drawing drawing, float scaleX, float scaleY, float dx, float dy) {
    boolean[] ink = new boolean[fine * side * fine * side];
    for (Drawing.Stroke stroke : drawing.strokes()) {
      for (int at = 0; at < stroke.size(); ++at) {
        int from = Math.max(0, at - 1); // a single point is a dot
        cover(ink, scaleX * stroke.x(from) + dx, scaleY * stroke.y(from) + dy, scaleX * stroke.x(at) + dx,
            scaleY * stroke.y(at) + dy);
      }
    }
    return ink;
  }

  private void cover(boolean[] ink, float fromX, float fromY, float toX, float toY) {
    int extent = fine * side;
    int left = Math.max(0, (int) Math.floor(Math.min(fromX, toX) - penRadius));
    int right = Math.min(extent - 1, (int) Math.ceil(Math.max(fromX, toX) + penRadius));
    int top = Math.max(0, (int) Math.floor(Math.min(fromY, toY) - penRadius));
    int bottom = Math.min(extent - 1, (int) Math.ceil(Math.max(fromY, toY) + penRadius));
    for (int y = top; y <= bottom; ++y) {
      for (int x = left; x <= right; ++x) {
        if (squaredDistance(x + 0.5f, y + 0.5f, fromX, fromY, toX, toY) <= penRadius * penRadius)
          ink[y * extent + x] = true;
      }
    }
  }

  /** Of a point to a line between two others. */
  private static float squaredDistance(float x, float y, float fromX, float fromY, float toX, float toY) {
    float alongX = toX - fromX;
    float alongY = toY - fromY;
    float length = alongX * alongX + alongY * alongY;
    float share = length == 0 ? 0 : ((x - fromX) * alongX + (y - fromY) * alongY) / length;
    share = Math.max(0, Math.min(1, share));
    float offX = x - fromX - share * alongX;
    float offY = y - fromY - share * alongY;
    return offX * offX + offY * offY;
  }

  private float[] centreOfMass(boolean[] ink) {
    int extent = fine * side;
    double sumX = 0;
    double sumY = 0;
    int mass = 0;
    for (int at = 0; at < ink.length; ++at) {
      if (!ink[at]) continue;
      sumX += at % extent + 0.5;
      sumY += at / extent + 0.5;
      ++mass;
    }
    return new float[] {(float) (sumX / mass), (float) (sumY / mass)};
  }

  /** How many of its points are covered tells the value of a pixel. */
  private float[] counted(boolean[] ink) {
    float[] picture = new float[side * side];
    int extent = fine * side;
    for (int at = 0; at < ink.length; ++at) {
      if (ink[at]) ++picture[at / extent / fine * side + at % extent / fine];
    }
    for (int at = 0; at < picture.length; ++at) picture[at] = Math.round(picture[at] * maxValue / (fine * fine));
    return picture;
  }
}
