package io.pocketticket.draw;

import java.util.Locale;

/** One class: its name, a bar as long as its probability, and the probability in percent. */
final class BarPainter {
  private BarPainter() {}

  /** {@code probability} below 0: nothing is drawn yet. */
  static void paint(Ink ink, float width, float height, String label, float probability, boolean isBest) {
    float text = height * 0.52f;
    float baseline = height * 0.68f;
    ink.text(label, height * 0.55f, baseline, text, Ink.Align.CENTRE, Palette.TEXT);
    float left = height * 0.95f;
    float right = width - height * 1.62f;
    ink.rectangle(left, height * 0.22f, right, height * 0.78f, Palette.TRACK);
    if (probability < 0) return;
    float end = left + (right - left) * probability;
    ink.rectangle(left, height * 0.22f, end, height * 0.78f, isBest ? Palette.BEST : Palette.BAR);
    int colour = isBest ? Palette.TEXT : Palette.FAINT;
    ink.text(percent(probability), width - height * 0.15f, baseline, text * 0.85f, Ink.Align.RIGHT, colour);
  }

  static String percent(double share) {
    return String.format(Locale.ROOT, "%.0f %%", 100 * share);
  }
}
