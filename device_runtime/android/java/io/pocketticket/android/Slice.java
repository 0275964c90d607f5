package io.pocketticket.android;

import io.pocketticket.FitListener;
import io.pocketticket.NonNull;
import io.pocketticket.Nullable;
import io.pocketticket.Progress;

/**
 * The steps that one run of a job may make: asks the policy, and stops after the present step when told.
 *
 * <p>The clock is looked at after every step, the device's state every so often, as that costs more than a step.
 */
final class Slice implements FitListener {
  /** The device, or a test's. */
  interface Device {
    @NonNull DeviceState state();

    /** Of a clock that only goes forward. */
    long nowMs();
  }

  private final TrainingPolicy policy;
  private final Device device;
  private final @Nullable FitListener listener;
  private final long beginMs;
  private long nextCheckMs;
  private volatile boolean isStopped;
  private TrainingPolicy.Decision decision = TrainingPolicy.Decision.TRAIN;

  Slice(TrainingPolicy policy, Device device, @Nullable FitListener listener) {
    this.policy = policy;
    this.device = device;
    this.listener = listener;
    beginMs = device.nowMs();
    nextCheckMs = beginMs;
  }

  /** Whether it may train now; asked once more before the first step. */
  boolean mayGoOn() {
    long now = device.nowMs();
    if (now >= nextCheckMs || policy.isOver(now - beginMs)) {
      nextCheckMs = now + policy.checkEveryMs();
      decision = policy.decide(device.state(), now - beginMs);
    }
    return !isStopped && decision == TrainingPolicy.Decision.TRAIN;
  }

  /** From any thread. */
  void stop() {
    isStopped = true;
  }

  /** Why it ended; TRAIN where it was told to, or had nothing left to do. */
  TrainingPolicy.Decision decision() {
    return decision;
  }

  @Override
  public boolean onStep(@NonNull Progress progress, float loss) {
    boolean goesOn = listener == null || listener.onStep(progress, loss);
    return goesOn && mayGoOn();
  }
}
