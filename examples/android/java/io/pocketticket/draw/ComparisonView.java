package io.pocketticket.draw;

import android.content.Context;
import android.graphics.Canvas;
import android.view.View;
import java.util.ArrayList;
import java.util.List;

/** The rivals that have been trained so far. */
final class ComparisonView extends View {
  private final AndroidInk ink = new AndroidInk();
  private final List<Rival> rivals = new ArrayList<>();
  private final float line;

  ComparisonView(Context context) {
    super(context);
    line = 22 * getResources().getDisplayMetrics().scaledDensity;
  }

  void add(Rival rival) {
    rivals.add(rival);
    setContentDescription((getContentDescription() == null ? "" : getContentDescription() + "; ") + rival.name
        + ": before " + rival.before + ", after " + rival.after);
    requestLayout();
    invalidate();
  }

  @Override
  protected void onDraw(Canvas canvas) {
    ComparisonPainter.paint(ink.on(canvas), getWidth(), line, rivals);
  }

  @Override
  protected void onMeasure(int width, int height) {
    setMeasuredDimension(MeasureSpec.getSize(width), (int) Math.ceil(ComparisonPainter.height(line, rivals.size())));
  }
}
