package io.pocketticket.android;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import io.pocketticket.android.TrainingPolicy.Decision;
import org.junit.Test;

/** When a device may train, on every side of every limit; and how a slice asks. */
public class TrainingPolicyTest {
  private static final TrainingPolicy POLICY =
      TrainingPolicy.builder().minBatteryPercent(30).maxBatteryCelsius(40).maxThermalStatus(1).sliceMs(1000).build();

  private static DeviceState state(
      boolean charging, boolean inUse, boolean saving, int percent, float celsius, int heat) {
    return new DeviceState(charging, inUse, saving, percent, celsius, heat);
  }

  private static DeviceState good() {
    return state(true, false, false, 30, 40, 1);
  }

  @Test
  public void trainsOnTheSafeSideOfEveryLimit() {
    assertEquals(Decision.TRAIN, POLICY.decide(good(), 999));
    assertEquals(
        Decision.TRAIN, POLICY.decide(state(true, false, true, 30, 40, 1), 0)); // saving matters on battery alone
  }

  @Test
  public void saysNoBeyondEachLimitAlone() {
    assertEquals(Decision.TIME_IS_UP, POLICY.decide(good(), 1000));
    assertEquals(Decision.TOO_HOT, POLICY.decide(state(true, false, false, 30, 40.5f, 1), 0));
    assertEquals(Decision.TOO_HOT, POLICY.decide(state(true, false, false, 30, 40, 2), 0));
    assertEquals(Decision.NOT_CHARGING, POLICY.decide(state(false, false, false, 100, 20, 0), 0));
    assertEquals(Decision.BATTERY_LOW, POLICY.decide(state(true, false, false, 29, 40, 1), 0));
    assertEquals(Decision.IN_USE, POLICY.decide(state(true, true, false, 30, 40, 1), 0));
  }

  @Test
  public void heatComesBeforeEverything() {
    assertEquals(Decision.TOO_HOT, POLICY.decide(state(false, true, true, 0, 60, 6), 5000));
  }

  @Test
  public void withoutAChargerAnIdleDeviceTrainsUnlessItSaves() {
    TrainingPolicy free = TrainingPolicy.builder().needsCharger(false).needsIdle(false).build();
    assertEquals(Decision.TRAIN, free.decide(state(false, true, false, 30, 20, 0), 0));
    assertEquals(Decision.POWER_SAVING, free.decide(state(false, true, true, 30, 20, 0), 0));
  }

  @Test
  public void refusesLimitsThatAreNone() {
    for (final int percent : new int[] {-1, 101}) {
      assertThrows(IllegalArgumentException.class, () -> TrainingPolicy.builder().minBatteryPercent(percent));
    }
    assertThrows(IllegalArgumentException.class, () -> TrainingPolicy.builder().maxThermalStatus(7));
    assertThrows(IllegalArgumentException.class, () -> TrainingPolicy.builder().sliceMs(0));
  }

  /** A device whose clock the test sets, and that counts how often it is looked at. */
  private static final class Fake implements Slice.Device {
    DeviceState state = good();
    long nowMs = 5_000;
    int looks;

    @Override
    public DeviceState state() {
      ++looks;
      return state;
    }

    @Override
    public long nowMs() {
      return nowMs;
    }
  }

  @Test
  public void aSliceLooksAtTheDeviceEverySoOftenAndAtTheClockEveryStep() {
    Fake device = new Fake();
    TrainingPolicy policy = TrainingPolicy.builder().sliceMs(1000).checkEveryMs(100).build();
    Slice slice = new Slice(policy, device, null);
    assertTrue(slice.mayGoOn());
    device.state = state(false, false, false, 80, 20, 0);
    for (int step = 0; step < 10; ++step) assertTrue(slice.onStep(null, 0)); // not looked at yet
    assertEquals(1, device.looks);
    device.nowMs += 100;
    assertFalse(slice.onStep(null, 0));
    assertEquals(Decision.NOT_CHARGING, slice.decision());
    assertEquals(2, device.looks);
  }

  @Test
  public void aSliceEndsOnTimeBetweenTwoLooks() {
    Fake device = new Fake();
    Slice slice = new Slice(TrainingPolicy.builder().sliceMs(1000).checkEveryMs(60_000).build(), device, null);
    assertTrue(slice.mayGoOn());
    device.nowMs += 999;
    assertTrue(slice.onStep(null, 0));
    device.nowMs += 1;
    assertFalse(slice.onStep(null, 0));
    assertEquals(Decision.TIME_IS_UP, slice.decision());
  }

  @Test
  public void aSliceThatIsStoppedOrWhoseListenerSaysNoEnds() {
    Slice slice = new Slice(POLICY, new Fake(), null);
    slice.stop();
    assertFalse(slice.mayGoOn());
    assertEquals(Decision.TRAIN, slice.decision());
    assertFalse(new Slice(POLICY, new Fake(), (progress, loss) -> false).onStep(null, 0));
    assertTrue(new Slice(POLICY, new Fake(), (progress, loss) -> true).onStep(null, 0));
  }
}
