package io.pocketticket.draw;

/**
 * What the views draw on: Android's canvas in the app, a picture in memory where the screens are looked at without
 * Android.
 */
interface Ink {
  /** Where a text's x is. */
  enum Align { LEFT, CENTRE, RIGHT }

  /** Colours are 0xAARRGGBB everywhere. */
  void rectangle(float left, float top, float right, float bottom, int colour);

  /** With round ends. */
  void line(float fromX, float fromY, float toX, float toY, float width, int colour);

  void text(String text, float x, float baseline, float size, Align align, int colour);
}
