package io.pocketticket.draw;

import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.geom.Line2D;
import java.awt.geom.Rectangle2D;
import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import javax.imageio.ImageIO;

/** Draws into a picture on a JVM; its font is not Android's. */
final class AwtInk implements Ink {
  final BufferedImage image;
  private final Graphics2D graphics;

  AwtInk(int width, int height) {
    image = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
    graphics = image.createGraphics();
    graphics.setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
    graphics.setRenderingHint(RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
    rectangle(0, 0, width, height, Palette.PAPER);
  }

  /** Draws from there on as if it were the upper left corner. */
  AwtInk at(double x, double y) {
    graphics.setTransform(java.awt.geom.AffineTransform.getTranslateInstance(x, y));
    return this;
  }

  void write(File file) throws IOException {
    ImageIO.write(image, "png", file);
  }

  private void colour(int colour) {
    graphics.setColor(new Color(colour, true));
  }

  @Override
  public void rectangle(float left, float top, float right, float bottom, int colour) {
    colour(colour);
    graphics.fill(new Rectangle2D.Float(left, top, right - left, bottom - top));
  }

  @Override
  public void line(float fromX, float fromY, float toX, float toY, float width, int colour) {
    colour(colour);
    graphics.setStroke(new BasicStroke(width, BasicStroke.CAP_ROUND, BasicStroke.JOIN_ROUND));
    graphics.draw(new Line2D.Float(fromX, fromY, toX, toY));
  }

  @Override
  public void text(String text, float x, float baseline, float size, Align align, int colour) {
    colour(colour);
    graphics.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 1).deriveFont(size));
    float width = graphics.getFontMetrics().stringWidth(text);
    float left = align == Align.LEFT ? x : align == Align.RIGHT ? x - width : x - width / 2;
    if (left < 0 || left + graphics.getTransform().getTranslateX() + width > image.getWidth()) {
      throw new AssertionError("'" + text + "' does not fit: from " + left + ", " + width + " wide");
    }
    graphics.drawString(text, left, baseline);
  }
}
