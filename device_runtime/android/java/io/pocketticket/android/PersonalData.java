package io.pocketticket.android;

import io.pocketticket.NonNull;
import java.io.File;
import java.io.IOException;

/** Delete-my-data: the samples and everything that was learnt from them. */
public final class PersonalData {
  private PersonalData() {}

  /**
   * Deletes the directory of an {@link ExampleStore} and of {@link PersonalModel}s with all in it; no directory: no
   * effect.
   *
   * <p>Both must be closed: throws ModelInUseException, and deletes nothing, while a model is open; IOException where
   * a file is left.
   */
  public static void delete(@NonNull File directory) throws IOException {
    File[] models = directory.listFiles();
    if (models == null) return;
    for (File model : models) {
      if (model.isDirectory()) CheckpointStore.open(model, 1).close(); // before anything is deleted
    }
    for (File model : models) {
      if (model.isDirectory()) eraseLesson(model);
    }
    ExampleStore.delete(directory);
    deleteTree(directory);
  }

  private static void eraseLesson(File model) throws IOException {
    try (CheckpointStore store = CheckpointStore.open(model, 1)) {
      store.deleteAll();
    }
  }

  private static void deleteTree(File file) throws IOException {
    File[] parts = file.listFiles();
    if (parts != null) {
      for (File part : parts) deleteTree(part);
    }
    if (!file.delete()) throw new IOException("'" + file + "' cannot be deleted");
  }
}
