package io.pocketticket.draw;

import android.content.Context;
import android.graphics.Canvas;
import android.view.View;

/** One class and what the network thinks of it; tapped, it tells which class is right. */
final class BarView extends View {
  private final AndroidInk ink = new AndroidInk();
  private final String label;
  private float probability = -1;
  private boolean isBest;

  BarView(Context context, String label) {
    super(context);
    this.label = label;
    setClickable(true);
    show(-1, false);
  }

  /** A probability below 0 shows none. */
  void show(float probability, boolean isBest) {
    this.probability = probability;
    this.isBest = isBest;
    setContentDescription(probability < 0 ? label : label + ", " + BarPainter.percent(probability));
    invalidate();
  }

  @Override
  protected void onDraw(Canvas canvas) {
    BarPainter.paint(ink.on(canvas), getWidth(), getHeight(), label, probability, isBest);
  }
}
