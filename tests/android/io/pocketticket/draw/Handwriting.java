package io.pocketticket.draw;

import java.util.Random;

/** Ten digits as strokes, by lines and arcs in a box of 1 x 1.5, and writers whose size, place and slant differ. */
final class Handwriting {
  private static final int PARTS = 24; // of an arc

  private final Drawing drawing = new Drawing();
  private final double size;
  private final double width;
  private final double slant;
  private final double left;
  private final double top;
  private boolean isDown;

  /** A writer: the same seed writes the same hand. */
  private Handwriting(long seed) {
    Random random = new Random(seed);
    size = 150 + 150 * random.nextDouble();
    width = 0.8 + 0.4 * random.nextDouble();
    slant = -0.15 + 0.4 * random.nextDouble();
    left = 130 + 100 * random.nextDouble();
    top = 60 + 120 * random.nextDouble();
  }

  static Drawing digit(int digit, long writer) {
    Handwriting hand = new Handwriting(writer);
    switch (digit) {
      case 0:
        return hand.arc(0.5, 0.75, 0.48, 0.75, -90, 270).drawing;
      case 1:
        return hand.to(0.25, 0.35).to(0.55, 0).to(0.55, 1.5).drawing;
      case 2:
        return hand.arc(0.5, 0.42, 0.42, 0.42, 190, 390).to(0.05, 1.5).to(1, 1.5).drawing;
      case 3:
        return hand.arc(0.45, 0.36, 0.42, 0.36, 200, 445).arc(0.45, 1.1, 0.5, 0.4, -85, 160).drawing;
      case 4:
        return hand.to(0.6, 0).to(0, 1).to(1, 1).up().to(0.72, 0.55).to(0.72, 1.5).drawing;
      case 5:
        return hand.to(0.9, 0).to(0.2, 0).to(0.15, 0.65).arc(0.45, 1.05, 0.48, 0.45, -130, 150).drawing;
      case 6:
        return hand.to(0.75, 0).to(0.2, 0.75).arc(0.48, 1.1, 0.42, 0.4, 190, 550).drawing;
      case 7:
        return hand.to(0.05, 0).to(0.95, 0).to(0.4, 1.5).drawing;
      case 8:
        return hand.arc(0.5, 0.36, 0.36, 0.36, 90, 450).arc(0.5, 1.12, 0.44, 0.4, -90, 270).drawing;
      default:
        return hand.arc(0.48, 0.42, 0.42, 0.42, 0, 360).to(0.85, 0.9).to(0.6, 1.5).drawing;
    }
  }

  private Handwriting to(double x, double y) {
    float atX = (float) (left + size * (width * x + slant * (1.5 - y)));
    float atY = (float) (top + size * y);
    if (isDown) {
      drawing.to(atX, atY);
    } else {
      drawing.begin(atX, atY);
    }
    isDown = true;
    return this;
  }

  private Handwriting up() {
    isDown = false;
    return this;
  }

  /** Angles in degrees, clockwise from the right. */
  private Handwriting arc(double x, double y, double radiusX, double radiusY, double from, double to) {
    for (int part = 0; part <= PARTS; ++part) {
      double angle = Math.toRadians(from + (to - from) * part / PARTS);
      to(x + radiusX * Math.cos(angle), y + radiusY * Math.sin(angle));
    }
    return this;
  }
}
