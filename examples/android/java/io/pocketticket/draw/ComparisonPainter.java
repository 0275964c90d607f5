package io.pocketticket.draw;

import io.pocketticket.android.Score;
import java.util.List;
import java.util.Locale;

/**
 * What training on the user's samples made of the ticket, of the same mask with fresh weights, and of the whole
 * network.
 */
final class ComparisonPainter {
  private static final float ROWS = 5.4f; // of one rival, in lines of text

  private ComparisonPainter() {}

  /** As high as so many rivals need. */
  static float height(float line, int rivals) {
    return line * (ROWS * rivals + 1.6f);
  }

  /** {@code line}: the height of a line of text. */
  static void paint(Ink ink, float width, float line, List<Rival> rivals) {
    ink.rectangle(0, 0, width, height(line, rivals.size()), Palette.PAPER);
    float top = line * 0.4f;
    for (Rival rival : rivals) {
      paint(ink, width, line, top, rival);
      top += ROWS * line;
    }
    key(ink, width, line, top);
  }

  private static void paint(Ink ink, float width, float line, float top, Rival rival) {
    ink.text(rival.name, line * 0.6f, top + line * 0.85f, line * 0.8f, Ink.Align.LEFT, Palette.TEXT);
    String cost = String.format(Locale.ROOT, "file %,d KB, memory %,d KB, %.2f ms a step",
        kilobytes(rival.artifactBytes), kilobytes(rival.memoryBytes), rival.stepMs);
    ink.text(cost, line * 0.6f, top + line * 1.75f, line * 0.55f, Ink.Align.LEFT, Palette.FAINT);
    Score before = rival.before;
    Score after = rival.after;
    bars(ink, width, line, top + 2.2f * line, "yours", before.own(), after.own(), after.ownCount());
    bars(ink, width, line, top + 3.5f * line, "shipped", before.shipped(), after.shipped(), after.shippedCount());
  }

  private static void bars(Ink ink, float width, float line, float top, String name, int before, int after, int count) {
    ink.text(name, line * 0.6f, top + line * 0.72f, line * 0.55f, Ink.Align.LEFT, Palette.TEXT);
    float left = line * 3.4f;
    float right = width - line * 2.6f;
    float part = (right - left) / Math.max(1, count);
    ink.rectangle(left, top, right, top + line, Palette.TRACK);
    ink.rectangle(left, top, left + part * before, top + line * 0.45f, Palette.BEFORE);
    ink.rectangle(left, top + line * 0.5f, left + part * after, top + line, Palette.LEARNT);
    String right2 = count == 0 ? "none yet" : BarPainter.percent((double) after / count);
    ink.text(right2, width - line * 0.5f, top + line * 0.72f, line * 0.55f, Ink.Align.RIGHT, Palette.TEXT);
  }

  private static void key(Ink ink, float width, float line, float top) {
    float size = line * 0.4f;
    float[] at = {line * 0.6f, width * 0.5f};
    int[] colours = {Palette.BEFORE, Palette.LEARNT};
    String[] names = {"before training", "after training"};
    for (int one = 0; one < names.length; ++one) {
      ink.rectangle(at[one], top + line * 0.3f, at[one] + size, top + line * 0.3f + size, colours[one]);
      ink.text(names[one], at[one] + size * 1.6f, top + line * 0.7f, line * 0.55f, Ink.Align.LEFT, Palette.FAINT);
    }
  }

  private static long kilobytes(long bytes) {
    return (bytes + 1023) / 1024;
  }
}
