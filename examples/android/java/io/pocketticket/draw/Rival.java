package io.pocketticket.draw;

import io.pocketticket.android.Score;

/**
 * One network of the comparison: what it takes, and what it gets right before and after training on the same samples.
 */
final class Rival {
  final String name;
  final long artifactBytes;
  final long memoryBytes;
  final double stepMs;
  final Score before;
  final Score after;

  Rival(String name, long artifactBytes, long memoryBytes, double stepMs, Score before, Score after) {
    this.name = name;
    this.artifactBytes = artifactBytes;
    this.memoryBytes = memoryBytes;
    this.stepMs = stepMs;
    this.before = before;
    this.after = after;
  }
}
