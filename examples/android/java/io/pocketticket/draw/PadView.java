package io.pocketticket.draw;

import android.content.Context;
import android.graphics.Canvas;
import android.view.MotionEvent;
import android.view.View;

/** The pad to draw on: a square as wide as there is room. */
final class PadView extends View {
  /** Is told when the pen goes up. */
  interface Listener {
    void onStroke();
  }

  private final Drawing drawing = new Drawing();
  private final AndroidInk ink = new AndroidInk();
  private final PictureFormat format;
  private final Listener listener;
  private boolean isDone;

  PadView(Context context, PictureFormat format, Listener listener) {
    super(context);
    this.format = format;
    this.listener = listener;
    setContentDescription("Pad to draw a character on");
  }

  /** As the network takes it; null while nothing is drawn. */
  float[] picture() {
    return drawing.isEmpty() ? null : format.render(drawing);
  }

  void clear() {
    drawing.clear();
    isDone = false;
    invalidate();
  }

  /** The drawing stays to be seen, and the next stroke begins another. */
  void done() {
    isDone = true;
  }

  @Override
  public boolean onTouchEvent(MotionEvent event) {
    switch (event.getActionMasked()) {
      case MotionEvent.ACTION_DOWN:
        if (isDone) clear();
        getParent().requestDisallowInterceptTouchEvent(true); // a stroke does not scroll
        drawing.begin(event.getX(), event.getY());
        break;
      case MotionEvent.ACTION_MOVE:
        for (int at = 0; at < event.getHistorySize(); ++at) {
          drawing.to(event.getHistoricalX(at), event.getHistoricalY(at));
        }
        drawing.to(event.getX(), event.getY());
        break;
      case MotionEvent.ACTION_UP:
        listener.onStroke();
        break;
      default:
        return false;
    }
    invalidate();
    return true;
  }

  @Override
  protected void onDraw(Canvas canvas) {
    PadPainter.paint(ink.on(canvas), getWidth(), drawing, picture(), format);
  }

  @Override
  protected void onMeasure(int width, int height) {
    int most = getResources().getDisplayMetrics().heightPixels * 45 / 100;
    int extent = Math.min(MeasureSpec.getSize(width), most);
    setMeasuredDimension(extent, extent);
  }
}
