package io.pocketticket.draw;

import android.content.Context;
import android.os.SystemClock;
import io.pocketticket.Artifact;
import io.pocketticket.CorruptCheckpointException;
import io.pocketticket.android.AssetArtifacts;
import io.pocketticket.android.ExampleStore;
import io.pocketticket.android.Lesson;
import io.pocketticket.android.ModelInUseException;
import io.pocketticket.android.PersonalModel;
import io.pocketticket.android.Replay;
import io.pocketticket.android.Samples;
import java.io.Closeable;
import java.io.File;
import java.io.IOException;

/** What screens and the nightly job share: the ticket from the assets, the user's samples, the shipped ones. */
final class Classroom implements Closeable {
  private static final int WAITS = 30;
  private static final int WAIT_MS = 100;

  final Artifact artifact;
  final ExampleStore store;
  private final Context context;
  private final Replay replay;
  private final Samples shipped;

  private Classroom(Context context, Artifact artifact, ExampleStore store, Replay replay, Samples shipped) {
    this.context = context;
    this.artifact = artifact;
    this.store = store;
    this.replay = replay;
    this.shipped = shipped;
  }

  static Classroom open(Context context) throws IOException {
    Replay replay = new Replay(AssetArtifacts.samples(context, "replay"));
    Samples shipped = AssetArtifacts.samples(context, "shipped");
    Artifact artifact = AssetArtifacts.fromAssets(context, Comparison.ASSETS[0]);
    int elements = artifact.info().inputElements();
    int classes = artifact.info().classCount();
    ExampleStore store = ExampleStore.open(directory(context), elements, classes, Settings.CAPACITY);
    return new Classroom(context, artifact, store, replay, shipped);
  }

  /** Not in any backup, and of this app alone. */
  static File directory(Context context) {
    return new File(context.getNoBackupFilesDir(), "ticket");
  }

  /** Where all that was learnt is damaged, the ticket itself; the samples are still there to learn from. */
  PersonalModel model() throws IOException {
    File directory = directory(context);
    try {
      return PersonalModel.open(artifact, Settings.options(), directory, Settings.SAVE_EVERY_STEPS);
    } catch (CorruptCheckpointException damaged) {
      PersonalModel.forget(artifact, directory);
      return PersonalModel.open(artifact, Settings.options(), directory, Settings.SAVE_EVERY_STEPS);
    }
  }

  /** The same; waits for a nightly job that was just told to stop. Throws ModelInUseException if it does not. */
  PersonalModel modelSoon() throws IOException {
    for (int left = WAITS; left > 0; --left) {
      try {
        return model();
      } catch (ModelInUseException inUse) {
        SystemClock.sleep(WAIT_MS);
      }
    }
    return model();
  }

  /** Of all samples that there are now. */
  Lesson lesson() {
    return new Lesson(replay.mixedWith(store.training()), store.heldOut(), shipped, Settings.EPOCHS);
  }

  @Override
  public void close() {
    store.close();
    artifact.close();
  }
}
