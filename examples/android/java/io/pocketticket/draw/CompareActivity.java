package io.pocketticket.draw;

import android.app.Activity;
import android.os.Bundle;
import android.widget.LinearLayout;
import android.widget.ScrollView;
import android.widget.TextView;
import io.pocketticket.Artifact;
import io.pocketticket.FitListener;
import io.pocketticket.NonNull;
import io.pocketticket.Progress;
import io.pocketticket.android.AssetArtifacts;
import io.pocketticket.android.Lesson;
import java.io.IOException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Trains the ticket and its rivals on the same samples, from their initial weights, and keeps nothing of it. */
public final class CompareActivity extends Activity {
  private final ExecutorService worker = Executors.newSingleThreadExecutor();
  private volatile boolean isGone;
  private ComparisonView chart;
  private TextView note;

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    chart = new ComparisonView(this);
    note = new TextView(this);
    int margin = Math.round(16 * getResources().getDisplayMetrics().density);
    note.setPadding(margin, margin, margin, margin);
    note.setText("Each trains for " + Settings.EPOCHS + " epochs on your samples and the replayed ones.");
    LinearLayout column = new LinearLayout(this);
    column.setOrientation(LinearLayout.VERTICAL);
    column.addView(note);
    column.addView(chart);
    ScrollView scroll = new ScrollView(this);
    scroll.setFitsSystemWindows(true);
    scroll.addView(column);
    setContentView(scroll);
    worker.execute(new Runnable() {
      @Override
      public void run() {
        compare();
      }
    });
  }

  @Override
  protected void onDestroy() {
    isGone = true; // the training under way ends with its step
    worker.shutdown();
    super.onDestroy();
  }

  private void compare() {
    try (Classroom classroom = Classroom.open(this)) {
      Lesson lesson = classroom.lesson();
      for (int at = 0; at < Comparison.ASSETS.length && !isGone; ++at) {
        try (Artifact artifact = AssetArtifacts.fromAssets(this, Comparison.ASSETS[at])) {
          add(Comparison.run(Comparison.NAMES[at], artifact, lesson, untilGone));
        }
      }
    } catch (IOException | RuntimeException failure) {
      tell(failure.getMessage());
    }
  }

  private final FitListener untilGone = new FitListener() {
    @Override
    public boolean onStep(@NonNull Progress progress, float loss) {
      return !isGone;
    }
  };

  private void add(final Rival rival) {
    if (rival == null) return;
    runOnUiThread(new Runnable() {
      @Override
      public void run() {
        chart.add(rival);
      }
    });
  }

  private void tell(final String text) {
    runOnUiThread(new Runnable() {
      @Override
      public void run() {
        note.setText(text);
      }
    });
  }
}
