package io.pocketticket.draw;

import android.graphics.Canvas;
import android.graphics.Paint;

/** Draws on Android's canvas. */
final class AndroidInk implements Ink {
  private final Paint paint = new Paint(Paint.ANTI_ALIAS_FLAG);
  private Canvas canvas;

  /** Draws there from now on. */
  AndroidInk on(Canvas canvas) {
    this.canvas = canvas;
    return this;
  }

  @Override
  public void rectangle(float left, float top, float right, float bottom, int colour) {
    paint.setColor(colour);
    canvas.drawRect(left, top, right, bottom, paint);
  }

  @Override
  public void line(float fromX, float fromY, float toX, float toY, float width, int colour) {
    paint.setColor(colour);
    paint.setStrokeWidth(width);
    paint.setStrokeCap(Paint.Cap.ROUND);
    canvas.drawLine(fromX, fromY, toX, toY, paint);
  }

  @Override
  public void text(String text, float x, float baseline, float size, Align align, int colour) {
    paint.setColor(colour);
    paint.setTextSize(size);
    paint.setTextAlign(align == Align.LEFT ? Paint.Align.LEFT
            : align == Align.RIGHT         ? Paint.Align.RIGHT
                                           : Paint.Align.CENTER);
    canvas.drawText(text, x, baseline, paint);
  }
}
