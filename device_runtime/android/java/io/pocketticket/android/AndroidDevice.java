package io.pocketticket.android;

import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.BatteryManager;
import android.os.PowerManager;
import android.os.SystemClock;
import io.pocketticket.NonNull;

/** Reads what a {@link TrainingPolicy} asks for from Android. What Android does not tell counts as no hindrance. */
final class AndroidDevice implements Slice.Device {
  private final Context context;
  private final PowerManager power;

  AndroidDevice(Context context) {
    this.context = context;
    power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
  }

  @Override
  public @NonNull DeviceState state() {
    Intent battery =
        context.registerReceiver(null, new IntentFilter(Intent.ACTION_BATTERY_CHANGED)); // the last one sent
    boolean isCharging = battery == null || battery.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0;
    int scale = battery == null ? 0 : battery.getIntExtra(BatteryManager.EXTRA_SCALE, 0);
    int percent = scale <= 0 ? 100 : 100 * battery.getIntExtra(BatteryManager.EXTRA_LEVEL, scale) / scale;
    float celsius = battery == null ? 0 : battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0) / 10f;
    return new DeviceState(
        isCharging, power.isInteractive(), power.isPowerSaveMode(), percent, celsius, thermalStatus(power));
  }

  @Override
  public long nowMs() {
    return SystemClock.elapsedRealtime();
  }

  /** By name, as the method came with Android 10 and the library is compiled for older ones too. */
  static int thermalStatus(Object power) {
    try {
      return (Integer) power.getClass().getMethod("getCurrentThermalStatus").invoke(power);
    } catch (ReflectiveOperationException | RuntimeException unknown) {
      return 0;
    }
  }
}
