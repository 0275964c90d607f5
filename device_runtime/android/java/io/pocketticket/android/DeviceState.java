package io.pocketticket.android;

/** What a decision to train rests on, at one moment. Plain values, so that decisions are tested without a device. */
public final class DeviceState {
  final boolean isCharging;
  final boolean isInUse;
  final boolean isPowerSaving;
  final int batteryPercent;
  final float batteryCelsius;
  final int thermalStatus;

  /**
   * {@code isInUse}: the screen is on. {@code thermalStatus}: {@code PowerManager.THERMAL_STATUS_*}, 0 (none) to 6
   * (shutdown), and 0 where Android (before 10) does not tell it.
   */
  public DeviceState(boolean isCharging, boolean isInUse, boolean isPowerSaving, int batteryPercent,
      float batteryCelsius, int thermalStatus) {
    this.isCharging = isCharging;
    this.isInUse = isInUse;
    this.isPowerSaving = isPowerSaving;
    this.batteryPercent = batteryPercent;
    this.batteryCelsius = batteryCelsius;
    this.thermalStatus = thermalStatus;
  }
}
