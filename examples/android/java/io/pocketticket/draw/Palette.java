package io.pocketticket.draw;

/** The colours of the app. */
final class Palette {
  static final int PAPER = 0xFFFBFAF6;
  static final int GUIDE = 0xFFE3E1DA;
  static final int PEN = 0xFF1D2B3A;
  static final int TEXT = 0xFF1D2B3A;
  static final int FAINT = 0xFF6B7480;
  static final int TRACK = 0xFFECEAE3;
  static final int BAR = 0xFFAFC4D6;
  static final int BEST = 0xFF2A6F97;
  static final int LEARNT = 0xFF2E8B63;
  static final int BEFORE = 0xFFBFC7CE;

  private Palette() {}
}
