package io.pocketticket.draw;

/** The pad: the strokes as they were drawn, and in a corner the picture that the network gets. */
final class PadPainter {
  private PadPainter() {}

  /** {@code extent}: of the square pad, in the unit of the strokes; {@code picture} may be null. */
  static void paint(Ink ink, float extent, Drawing drawing, float[] picture, PictureFormat format) {
    ink.rectangle(0, 0, extent, extent, Palette.PAPER);
    float line = extent / 240;
    for (int side = 0; side < 2; ++side) {
      float at = extent * (0.08f + 0.84f * side);
      ink.line(at, extent * 0.08f, at, extent * 0.92f, line, Palette.GUIDE);
      ink.line(extent * 0.08f, at, extent * 0.92f, at, line, Palette.GUIDE);
    }
    if (drawing.isEmpty()) {
      ink.text("draw a character", extent / 2, extent * 0.52f, extent * 0.05f, Ink.Align.CENTRE, Palette.FAINT);
      return;
    }
    for (Drawing.Stroke stroke : drawing.strokes()) {
      for (int at = 0; at < stroke.size(); ++at) {
        int from = Math.max(0, at - 1);
        ink.line(stroke.x(from), stroke.y(from), stroke.x(at), stroke.y(at), extent * 0.055f, Palette.PEN);
      }
    }
    if (picture != null) paintPicture(ink, extent * 0.78f, extent * 0.02f, extent * 0.2f, picture, format);
  }

  private static void paintPicture(
      Ink ink, float left, float top, float extent, float[] picture, PictureFormat format) {
    float pixel = extent / format.side();
    ink.rectangle(left, top, left + extent, top + extent, Palette.PEN);
    for (int at = 0; at < picture.length; ++at) {
      int grey = Math.round(255 * picture[at] / format.maxValue());
      if (grey == 0) continue;
      float x = left + at % format.side() * pixel;
      float y = top + at / format.side() * pixel;
      ink.rectangle(x, y, x + pixel, y + pixel, grey << 24 | 0xFFFFFF);
    }
  }
}
