package io.pocketticket.android;

import io.pocketticket.NonNull;

/**
 * When a device may train in the background: pure functions of its state and of how long it has trained.
 *
 * <p>Android's job scheduler waits for a charger and idleness; this says no meanwhile, for heat above all, of which the
 * scheduler knows nothing, and before Android takes the time away.
 */
public final class TrainingPolicy {
  /** On a charger, unused, at 30 % and more, not warm; slices of 8 minutes, looked after every 2 seconds. */
  public static final @NonNull TrainingPolicy DEFAULT = builder().build();

  /** To go on, or why not. */
  public enum Decision { TRAIN, TIME_IS_UP, TOO_HOT, NOT_CHARGING, BATTERY_LOW, POWER_SAVING, IN_USE }

  private final boolean needsCharger;
  private final boolean needsIdle;
  private final int minBatteryPercent;
  private final float maxBatteryCelsius;
  private final int maxThermalStatus;
  private final long sliceMs;
  private final long checkEveryMs;

  private TrainingPolicy(Builder builder) {
    needsCharger = builder.needsCharger;
    needsIdle = builder.needsIdle;
    minBatteryPercent = builder.minBatteryPercent;
    maxBatteryCelsius = builder.maxBatteryCelsius;
    maxThermalStatus = builder.maxThermalStatus;
    sliceMs = builder.sliceMs;
    checkEveryMs = builder.checkEveryMs;
  }

  public static @NonNull Builder builder() {
    return new Builder();
  }

  /** Whether to make one more step, {@code elapsedMs} after the slice began. Heat comes before everything else. */
  public @NonNull Decision decide(@NonNull DeviceState state, long elapsedMs) {
    if (state.thermalStatus > maxThermalStatus || state.batteryCelsius > maxBatteryCelsius) return Decision.TOO_HOT;
    if (isOver(elapsedMs)) return Decision.TIME_IS_UP;
    if (needsCharger && !state.isCharging) return Decision.NOT_CHARGING;
    if (state.batteryPercent < minBatteryPercent) return Decision.BATTERY_LOW;
    if (state.isPowerSaving && !state.isCharging) return Decision.POWER_SAVING;
    if (needsIdle && state.isInUse) return Decision.IN_USE;
    return Decision.TRAIN;
  }

  boolean isOver(long elapsedMs) {
    return elapsedMs >= sliceMs;
  }

  boolean needsCharger() {
    return needsCharger;
  }

  boolean needsIdle() {
    return needsIdle;
  }

  long checkEveryMs() {
    return checkEveryMs;
  }

  /** Collects limits; what is not set is as in DEFAULT. */
  public static final class Builder {
    private boolean needsCharger = true;
    private boolean needsIdle = true;
    private int minBatteryPercent = 30;
    private float maxBatteryCelsius = 40;
    private int maxThermalStatus = 1; // THERMAL_STATUS_LIGHT: before anything is throttled that a user could notice
    private long sliceMs = 8 * 60_000; // Android lets a job run for 10 minutes
    private long checkEveryMs = 2_000;

    private Builder() {}

    public @NonNull Builder needsCharger(boolean needsCharger) {
      this.needsCharger = needsCharger;
      return this;
    }

    public @NonNull Builder needsIdle(boolean needsIdle) {
      this.needsIdle = needsIdle;
      return this;
    }

    public @NonNull Builder minBatteryPercent(int minBatteryPercent) {
      this.minBatteryPercent = within("minBatteryPercent", minBatteryPercent, 0, 100);
      return this;
    }

    public @NonNull Builder maxBatteryCelsius(float maxBatteryCelsius) {
      this.maxBatteryCelsius = maxBatteryCelsius;
      return this;
    }

    /** The highest {@code PowerManager.THERMAL_STATUS_*} at which it trains, 0 to 6. */
    public @NonNull Builder maxThermalStatus(int maxThermalStatus) {
      this.maxThermalStatus = within("maxThermalStatus", maxThermalStatus, 0, 6);
      return this;
    }

    /** How long one slice may be; the job is then scheduled again. */
    public @NonNull Builder sliceMs(int sliceMs) {
      this.sliceMs = within("sliceMs", sliceMs, 1, Integer.MAX_VALUE);
      return this;
    }

    /** How often the device's state is read. */
    public @NonNull Builder checkEveryMs(int checkEveryMs) {
      this.checkEveryMs = within("checkEveryMs", checkEveryMs, 0, Integer.MAX_VALUE);
      return this;
    }

    public @NonNull TrainingPolicy build() {
      return new TrainingPolicy(this);
    }

    private static int within(String name, int value, int least, int most) {
      if (value < least || value > most) {
        throw new IllegalArgumentException(name + " " + value + " must be in [" + least + ", " + most + "]");
      }
      return value;
    }
  }
}
