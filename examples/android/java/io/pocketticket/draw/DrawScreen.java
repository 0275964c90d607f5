package io.pocketticket.draw;

import android.content.Context;
import android.graphics.Color;
import android.view.View;
import android.widget.Button;
import android.widget.LinearLayout;
import android.widget.ProgressBar;
import android.widget.ScrollView;
import android.widget.TextView;
import java.util.ArrayList;
import java.util.List;

/** The widgets of the first screen, and nothing of what they do. */
final class DrawScreen {
  /** What a user may ask for. */
  interface Listener {
    void onDrawn(float[] picture);

    void onClass(int label, float[] picture);

    void onTrain();

    void onReset();

    void onCompare();

    void onDelete();
  }

  final View root;
  private final PadView pad;
  private final List<BarView> bars = new ArrayList<>();
  private final TextView facts;
  private final TextView scores;
  private final TextView news;
  private final ProgressBar progress;
  private final Button train;
  private final List<Button> others = new ArrayList<>();
  private final Listener listener;
  private final float dp;

  DrawScreen(Context context, PictureFormat format, List<String> labels, final Listener listener) {
    this.listener = listener;
    dp = context.getResources().getDisplayMetrics().density;
    LinearLayout column = new LinearLayout(context);
    column.setOrientation(LinearLayout.VERTICAL);
    int margin = Math.round(12 * dp);
    column.setPadding(margin, margin, margin, margin);
    column.setBackgroundColor(Palette.PAPER);
    facts = text(context, column, Palette.FAINT);
    pad = new PadView(context, format, new PadView.Listener() {
      @Override
      public void onStroke() {
        listener.onDrawn(pad().picture());
      }
    });
    column.addView(pad);
    text(context, column, Palette.FAINT).setText("Tap what it is:");
    addBars(context, column, labels);
    news = text(context, column, Palette.TEXT);
    progress = new ProgressBar(context, null, android.R.attr.progressBarStyleHorizontal);
    progress.setMax(1000);
    progress.setVisibility(View.INVISIBLE);
    column.addView(progress);
    scores = text(context, column, Palette.TEXT);
    LinearLayout first = row(context, column);
    train = button(context, first, "Train", TRAIN);
    others.add(button(context, first, "Compare", COMPARE));
    LinearLayout second = row(context, column);
    others.add(button(context, second, "Reset to ticket", RESET));
    others.add(button(context, second, "Delete my data", DELETE));
    ScrollView scroll = new ScrollView(context);
    scroll.setFitsSystemWindows(true);
    scroll.setFillViewport(true);
    scroll.addView(column);
    root = scroll;
  }

  private static final int TRAIN = 0;
  private static final int COMPARE = 1;
  private static final int RESET = 2;
  private static final int DELETE = 3;

  private PadView pad() {
    return pad;
  }

  void showFacts(String text) {
    facts.setText(text);
  }

  void showScores(String text) {
    scores.setText(text);
  }

  void showNews(String text) {
    news.setText(text);
  }

  /** {@code probabilities} null: none. */
  void showProbabilities(float[] probabilities) {
    int best = 0;
    for (int at = 1; probabilities != null && at < bars.size(); ++at) {
      if (probabilities[at] > probabilities[best]) best = at;
    }
    for (int at = 0; at < bars.size(); ++at) {
      bars.get(at).show(probabilities == null ? -1 : probabilities[at], probabilities != null && at == best);
    }
  }

  /** {@code share} below 0: no training is under way. */
  void showTraining(double share) {
    boolean isTraining = share >= 0;
    progress.setVisibility(isTraining ? View.VISIBLE : View.INVISIBLE);
    progress.setProgress((int) (1000 * Math.max(0, share)));
    train.setText(isTraining ? "Stop" : "Train");
    for (Button button : others) button.setEnabled(!isTraining);
  }

  /** The drawing was taken; the next stroke begins another one. */
  void taken() {
    pad.done();
  }

  private void addBars(Context context, LinearLayout column, List<String> labels) {
    LinearLayout row = null;
    for (int at = 0; at < labels.size(); ++at) {
      if (at % 2 == 0) row = row(context, column);
      final int label = at;
      BarView bar = new BarView(context, labels.get(at));
      bar.setOnClickListener(new View.OnClickListener() {
        @Override
        public void onClick(View view) {
          float[] picture = pad.picture();
          if (picture != null) listener.onClass(label, picture);
        }
      });
      row.addView(bar, new LinearLayout.LayoutParams(0, Math.round(40 * dp), 1));
      bars.add(bar);
    }
  }

  private Button button(Context context, LinearLayout row, String text, final int what) {
    Button button = new Button(context);
    button.setText(text);
    button.setAllCaps(false);
    button.setOnClickListener(new View.OnClickListener() {
      @Override
      public void onClick(View view) {
        if (what == TRAIN) listener.onTrain();
        if (what == COMPARE) listener.onCompare();
        if (what == RESET) listener.onReset();
        if (what == DELETE) listener.onDelete();
      }
    });
    row.addView(button, new LinearLayout.LayoutParams(0, LinearLayout.LayoutParams.WRAP_CONTENT, 1));
    return button;
  }

  private static LinearLayout row(Context context, LinearLayout column) {
    LinearLayout row = new LinearLayout(context);
    row.setBackgroundColor(Color.TRANSPARENT);
    column.addView(row);
    return row;
  }

  private static TextView text(Context context, LinearLayout column, int colour) {
    TextView text = new TextView(context);
    text.setTextColor(colour);
    column.addView(text);
    return text;
  }
}
