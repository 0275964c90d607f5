package io.pocketticket.draw;

import io.pocketticket.TrainerOptions;

/** The numbers of the app. */
final class Settings {
  static final int CAPACITY = 400; // own samples
  static final int EPOCHS = 60; // of a lesson
  static final int SAVE_EVERY_STEPS = 50;
  static final double MAY_FORGET = 0.05; // of the accuracy on the shipped samples

  private static final int BATCH = 16; // small: there are some hundred samples, and memory follows the batch

  private Settings() {}

  static TrainerOptions options() {
    return TrainerOptions.builder().batch(BATCH).build();
  }
}
