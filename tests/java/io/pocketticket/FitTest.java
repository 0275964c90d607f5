package io.pocketticket;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** How a fit goes on and ends: goals, listeners, cancels, checkpoints; broken off anywhere it gives the same losses. */
public class FitTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  private Fixtures fixtures;
  private int[] y;
  private File file;

  @Before
  public void read() throws Exception {
    fixtures = Fixtures.of("labels");
    y = fixtures.labels();
    file = new File(folder.getRoot(), "run.tkc");
  }

  @Test
  public void goalsAreTotalsOfTheWholeLife() throws Exception {
    try (Trainer trainer = fixtures.open()) {
      assertEquals(5, trainer.fit(fixtures.x, y, Fixtures.steps(5)).steps());
      assertEquals(4, trainer.fit(fixtures.x, y, Fixtures.steps(9)).steps());
      assertEquals(0, trainer.fit(fixtures.x, y, Fixtures.steps(9)).steps());
      FitReport report = trainer.fit(fixtures.x, y, FitOptions.builder().epochs(2).build());
      assertEquals(14 - 9, report.steps()); // 7 an epoch
      assertEquals(1, report.epochs());
      assertEquals(2, trainer.progress().epoch());
      assertFalse(report.cancelled());
      assertTrue(report.seconds() > 0);
      assertNull(report.resumedFrom());
    }
  }

  @Test
  public void theListenerHearsOfEveryStepAndMayStopThere() throws Exception {
    final List<Float> told = new ArrayList<>();
    try (Trainer trainer = fixtures.open()) {
      FitReport report = trainer.fit(fixtures.x, y, stopAt(11, told));
      assertTrue(report.cancelled());
      assertEquals(11, report.steps());
      assertEquals(11, trainer.progress().step());
      assertEquals(11, told.size());
      for (int i = 0; i < 11; ++i) assertEquals(fixtures.losses[i], told.get(i), 0);
    }
  }

  @Test
  public void aListenerMayLookButNotTrain() throws Exception {
    try (Trainer trainer = fixtures.open()) {
      FitReport report = trainer.fit(fixtures.x, y,
          FitOptions.builder()
              .steps(3)
              .listener((progress, loss) -> {
                assertEquals(progress.step(), trainer.progress().step());
                trainer.evaluate(fixtures.x, y);
                trainer.predict(fixtures.x);
                trainer.export();
                trainer.values();
                assertThrows(IllegalStateException.class, trainer::reset);
                assertThrows(IllegalStateException.class, () -> trainer.restore(file));
                assertThrows(IllegalStateException.class, () -> trainer.trainStep(new float[12], new int[1]));
                IllegalStateException error =
                    assertThrows(IllegalStateException.class, () -> trainer.fit(fixtures.x, y, FitOptions.RECIPE));
                assertTrue(error.getMessage(), error.getMessage().contains("from a listener"));
                return true;
              })
              .build());
      assertArrayEquals(Arrays.copyOf(fixtures.losses, 3), report.losses(), 0);
    }
  }

  @Test
  public void whatAListenerThrowsEndsTheFitAndLeavesTheTrainerUsable() throws Exception {
    try (Trainer trainer = fixtures.open()) {
      FitOptions options = FitOptions.builder()
                               .listener((progress, loss) -> { throw new ArithmeticException("mine"); })
                               .checkpoint(Checkpoint.of(file, 100))
                               .build();
      assertThrows(ArithmeticException.class, () -> trainer.fit(fixtures.x, y, options));
      assertFalse(file.exists());
      assertArrayEquals(
          Arrays.copyOfRange(fixtures.losses, 1, 21), trainer.fit(fixtures.x, y, FitOptions.RECIPE).losses(), 0);
    }
  }

  @Test
  public void brokenOffAfterAnyStepItGivesTheLossesOfOneRun() throws Exception {
    for (int stop = 1; stop < fixtures.losses.length; ++stop) {
      Checkpoint checkpoint = Checkpoint.of(file, 4);
      checkpoint.delete();
      float[] losses;
      try (Trainer trainer = fixtures.open()) {
        final int last = stop;
        losses = trainer
                     .fit(fixtures.x, y,
                         FitOptions.builder()
                             .checkpoint(checkpoint)
                             .listener((progress, loss) -> progress.step() < last)
                             .build())
                     .losses();
      }
      try (Trainer trainer = fixtures.open()) {
        FitReport report = trainer.fit(fixtures.x, y, FitOptions.builder().checkpoint(checkpoint).build());
        assertEquals(file, report.resumedFrom());
        assertEquals(fixtures.losses.length, losses.length + report.steps());
        for (int i = 0; i < report.steps(); ++i) assertEquals(fixtures.losses[stop + i], report.losses()[i], 0);
        assertArrayEquals(fixtures.values, trainer.values(), 0);
      }
    }
  }

  @Test
  public void onlyATrainerThatHasDoneNothingGoesOnFromTheFile() throws Exception {
    FitOptions options = FitOptions.builder().steps(4).checkpoint(Checkpoint.of(file, 2)).build();
    try (Trainer trainer = fixtures.open()) {
      trainer.fit(fixtures.x, y, options);
      trainer.reset();
      FitReport again = trainer.fit(fixtures.x, y, options); // anew, as asked
      assertNull(again.resumedFrom());
      assertEquals(4, again.steps());
    }
    try (Trainer trainer = fixtures.open()) {
      trainer.fit(fixtures.x, y, Fixtures.steps(1));
      assertNull(trainer.fit(fixtures.x, y, options).resumedFrom());
    }
    try (Trainer trainer = fixtures.open()) {
      assertEquals(file, trainer.fit(fixtures.x, y, options).resumedFrom());
    }
  }

  @Test
  public void aDamagedGenerationGivesWayToTheOneBefore() throws Exception {
    File previous = new File(file.getPath() + ".previous");
    try (Trainer trainer = fixtures.open()) {
      trainer.fit(fixtures.x, y, FitOptions.builder().steps(6).checkpoint(Checkpoint.of(file, 2)).build());
    }
    byte[] good = Fixtures.bytes(file);
    for (int place = 0; place < good.length; place += 7) {
      byte[] broken = good.clone();
      broken[place] ^= (byte) (1 << place % 8);
      Fixtures.write(file, broken);
      try (Trainer trainer = fixtures.open()) {
        assertEquals(previous, trainer.restore(file));
        assertEquals(4, trainer.progress().step());
      }
    }
    try (Trainer trainer = fixtures.open()) {
      FitReport report = trainer.fit(fixtures.x, y, FitOptions.builder().checkpoint(Checkpoint.of(file, 2)).build());
      assertEquals(previous, report.resumedFrom());
      assertArrayEquals(Arrays.copyOfRange(fixtures.losses, 4, 21), report.losses(), 0);
    }
  }

  @Test
  public void whereNoGenerationIsGoodTheTrainerStaysAsItWas() throws Exception {
    FitOptions options = FitOptions.builder().checkpoint(Checkpoint.of(file, 2)).build();
    Fixtures.write(file, new byte[100]);
    Fixtures.write(new File(file.getPath() + ".previous"), new byte[0]);
    try (Trainer trainer = fixtures.open()) {
      for (int time = 0; time < 2; ++time) { // and is not made a fresh start by the refusal
        CorruptCheckpointException error =
            assertThrows(CorruptCheckpointException.class, () -> trainer.fit(fixtures.x, y, options));
        assertTrue(error.getMessage(), error.getMessage().contains("run.tkc.previous"));
      }
      assertThrows(CorruptCheckpointException.class, () -> trainer.restore(file));
      assertEquals(0, trainer.progress().step());
      assertEquals(100, file.length());
    }
  }

  @Test
  public void whatAKillLeftInTheMiddleOfASaveIsTheOneBefore() throws Exception {
    File kept = new File(file.getPath() + ".kept");
    Checkpoint checkpoint = Checkpoint.of(file, 2);
    try (Trainer trainer = fixtures.open()) {
      trainer.fit(fixtures.x, y, FitOptions.builder().steps(6).checkpoint(checkpoint).build());
    }
    assertTrue(new File(file.getPath() + ".previous").renameTo(kept));
    byte[] newest = Fixtures.bytes(file);
    Fixtures.write(file, new byte[100]);
    try (Trainer trainer = fixtures.open()) {
      assertEquals(kept, trainer.restore(file));
      assertEquals(4, trainer.progress().step());
    }
    Fixtures.write(file, newest);
    try (Trainer trainer = fixtures.open()) {
      trainer.save(file);
      assertFalse(kept.exists());
      assertArrayEquals(newest, Fixtures.bytes(new File(file.getPath() + ".previous")));
    }
    checkpoint.delete();
    assertFalse(checkpoint.exists());
    Fixtures.write(kept, newest);
    assertTrue(checkpoint.exists());
    checkpoint.delete();
    assertEquals(0, folder.getRoot().list().length);
  }

  @Test
  public void aFileThatCannotBeReadIsNotToBeRemoved() throws Exception {
    assertTrue(file.mkdir()); // as good as a disk that fails, or too many open files
    try (Trainer trainer = fixtures.open()) {
      IOException error = assertThrows(IOException.class, () -> trainer.restore(file));
      assertTrue(error.getMessage(), error.getMessage().contains("run.tkc' cannot be read"));
      assertFalse(error instanceof java.io.FileNotFoundException);
      Fixtures.write(new File(file.getPath() + ".previous"), new byte[100]);
      assertThrows(IOException.class, () -> trainer.restore(file));
      Fixtures.write(new File(file.getPath() + ".previous"), Fixtures.bytes(fixtures.file("half.tkc")));
      assertEquals(new File(file.getPath() + ".previous"), trainer.restore(file));
    }
  }

  @Test
  public void aCheckpointOfAnotherTicketOrOptimizerIsRefused() throws Exception {
    try (Trainer trainer = fixtures.open()) {
      assertThrows(TicketException.class, () -> trainer.restore(new File(new File(Fixtures.FOLDER, "mse"), "x.f32")));
      assertThrows(java.io.FileNotFoundException.class, () -> trainer.restore(file));
    }
    try (Artifact tiny = Artifact.of(new File(Fixtures.FOLDER, "tiny.tkt"));
        Trainer trainer = Trainer.open(tiny, TrainerOptions.RECIPE)) {
      assertThrows(CorruptCheckpointException.class, () -> trainer.restore(fixtures.file("half.tkc")));
    }
    TrainerOptions sgd = TrainerOptions.builder().optimizer(Optimizer.SGD).build();
    try (Trainer trainer = Trainer.open(fixtures.artifact(), sgd)) {
      assertThrows(InvalidInputException.class, () -> trainer.restore(fixtures.file("half.tkc")));
    }
  }

  @Test
  public void aDiskThatRefusesIsAnIOExceptionAndNothingIsLeft() throws Exception {
    File inNoFolder = new File(folder.getRoot(), "none/run.tkc");
    try (Trainer trainer = fixtures.open()) {
      assertThrows(IOException.class, () -> trainer.save(inNoFolder));
      assertThrows(IOException.class, () -> trainer.export(inNoFolder));
      File aFolder = folder.newFolder("folder");
      assertThrows(IOException.class, () -> trainer.export(aFolder));
      assertArrayEquals(new String[] {"folder"}, folder.getRoot().list());
      trainer.save(file);
      trainer.save(file);
      assertEquals(3, folder.getRoot().list().length);
      Checkpoint checkpoint = Checkpoint.of(file, 1);
      assertTrue(checkpoint.exists());
      checkpoint.delete();
      assertFalse(checkpoint.exists());
      assertEquals(1, folder.getRoot().list().length);
    }
  }

  private FitOptions stopAt(int step, List<Float> told) {
    return FitOptions.builder()
        .listener((progress, loss) -> {
          told.add(loss);
          return progress.step() < step;
        })
        .build();
  }
}
