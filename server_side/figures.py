"""The figures of a report as SVG: accuracies and early stops over density, learning curves, which weights survive.

Means and intervals are taken here from the trainings, pointwise unless said otherwise. Equal figures give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from server_side.significance import interval
from server_side.summary import seed_and_kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from server_side.rounds import Round
    from server_side.search import Search
    from server_side.training import Training

STYLE = {
    "dense": {"color": "#555555", "linestyle": ":", "marker": ""},
    "ticket": {"color": "#0b6fb8", "linestyle": "-", "marker": "o"},
    "reinit": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
    "shuffle": {"color": "#b8860b", "linestyle": "--", "marker": "^"},
}
OTHER_CONTROLS = (
    ("#7b4fa3", "D"),
    ("#2a9d8f", "v"),
    ("#8d5524", "P"),
    ("#3d405b", "X"),
    ("#c06c84", "*"),
    ("#4d908e", "p"),
)
CURVES_AT = (0.5, 0.2, 0.05)  # details are drawn of the rounds nearest to these densities, and of the ticket's
LAYERS_SHOWN = 6
ENDS = ("low", "high")  # of an interval
BINS = 60
ALL, LIVE, TRAINED = "#cfd3d8", "#0b6fb8", "#e07b39"  # initial weights, those that survive, what they became


def draw_all(
    search: Search, rounds: list[Round], chosen: Round, kinds: Sequence[str], result: dict[str, Any]
) -> dict[str, Markup]:
    """Every figure by its title. `kinds`: the ticket and the controls; `result` is what summary.conclude returns."""
    return {
        "Accuracy at the early stop": drawn(lambda axes: _against_density(axes[0, 0], rounds, kinds, "accuracy")),
        "Ticket against dense, all rounds at once": drawn(lambda axes: _gains(axes[0, 0], result)),
        "Early stop": drawn(lambda axes: _against_density(axes[0, 0], rounds, kinds, "early_stop_step")),
        "Accuracy at the end": drawn(lambda axes: _against_density(axes[0, 0], rounds, kinds, "accuracy_end")),
        "Learning curves": drawn(lambda axes: _learning_curves(axes[0, 0], rounds, chosen, kinds)),
        "Density of each layer": drawn(lambda axes: _layer_densities(axes[0, 0], rounds, search.options.seed)),
        "Surviving weights": _survivors(search, rounds, chosen),
    }


def drawn(draw: Any, rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.2, 3.3)) -> Markup:
    """The SVG of one figure of `size` inches; `draw` gets its axes, (rows, columns)."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot, whose backend is the caller's

    settings: Any = {
        "svg.hashsalt": "pocket-ticket",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with mpl.rc_context(
        {**settings, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    ):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(rows, columns, squeeze=False))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return Markup(svg[svg.index("<svg") :])


def _against_density(axes: Axes, rounds: list[Round], kinds: Sequence[str], figure: str) -> None:
    """One line a kind over the share of weights left, with intervals over seeds; dense is a level line."""
    scale = 100.0 if figure.startswith("accuracy") else 1.0
    dense = interval(getattr(rounds[0].measured["dense"], figure))
    axes.axhline(scale * dense[0], label="dense", **_line("dense"))
    if dense[1] is not None and dense[2] is not None:
        axes.axhspan(scale * dense[1], scale * dense[2], color=STYLE["dense"]["color"], alpha=0.12, linewidth=0)
    for kind in kinds:
        there = [r for r in rounds[1:] if kind in r.measured]
        rows = [(100 * r.density, *interval(getattr(r.measured[kind], figure))) for r in there]
        x, mean = np.array([row[0] for row in rows]), scale * np.array([row[1] for row in rows])
        half = scale * np.array([0.0 if row[2] is None else row[1] - row[2] for row in rows])
        look: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.4, "elinewidth": 0.7, "capsize": 2}
        axes.errorbar(x, mean, yerr=half, label=kind, **look, **_line(kind, kinds))
    density_axis(axes)
    axes.set_ylabel("test accuracy, %" if scale == 100 else "early stop, steps")
    axes.legend(frameon=False)


def _gains(axes: Axes, result: dict[str, Any]) -> None:
    """Mean difference of each round, its interval as a bar, the band that holds over all rounds, and the tolerance."""
    rows = [row for row in result["rounds"] if row["round"]]
    x = [100 * row["density"] for row in rows]
    gains = [row["verdict"]["accuracy"] for row in rows]
    mean = 100 * np.array([gain["difference"] for gain in gains])
    axes.axhline(0, **_line("dense"))
    axes.axhline(-100 * result["verdict"]["tolerance"], color="#d1495b", linewidth=1, label="tolerance")
    if all(gain["low"] is not None for gain in gains):
        half = mean - 100 * np.array([gain["low"] for gain in gains])
        band = 100 * np.array([[row["verdict"]["simultaneous"][end] for row in rows] for end in ("low", "high")])
        axes.fill_between(x, *band, color=LIVE, alpha=0.13, linewidth=0, label="all rounds at once")
        axes.errorbar(
            x, mean, yerr=half, markersize=3.5, capsize=2, elinewidth=0.7, label="each round", **_line("ticket")
        )
    else:
        axes.plot(x, mean, markersize=3.5, label="one seed", **_line("ticket"))
    density_axis(axes)
    axes.set_ylabel("ticket - dense, points of test accuracy")
    axes.legend(frameon=False)


def plot_estimates(
    axes: Axes, x: Sequence[float], lines: Mapping[str, Sequence[Mapping[str, Any]]], scale: float = 100.0
) -> None:
    """A line with its intervals for each of `lines`: what significance.estimate gives, at each of `x`."""
    for kind, estimates in lines.items():
        mean = np.array([np.nan if e["mean"] is None else scale * e["mean"] for e in estimates])
        half = [[0.0 if e["low"] is None else scale * abs(e["mean"] - e[end]) for e in estimates] for end in ENDS]
        look: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.4, "elinewidth": 0.7, "capsize": 2}
        axes.errorbar(x, mean, yerr=half, label=kind, **{**look, **_line(kind, list(lines))})
    axes.legend(frameon=False)


def density_axis(axes: Axes) -> None:
    """Weights left in %, fewer to the right."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    plain_numbers(axes.xaxis)
    axes.set_xlabel("weights left, %")


def plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _line(kind: str, kinds: Sequence[str] = ()) -> dict[str, Any]:
    if kind in STYLE:
        return {key: value for key, value in STYLE[kind].items() if value}
    others = [other for other in kinds if other not in STYLE]
    color, marker = OTHER_CONTROLS[others.index(kind) % len(OTHER_CONTROLS)]
    return {"color": color, "linestyle": "--", "marker": marker}


def _learning_curves(axes: Axes, rounds: list[Round], chosen: Round, kinds: Sequence[str]) -> None:
    """Validation accuracy over steps, mean over seeds: dense, tickets solid, their reinits dashed in the same colour."""
    _curve(axes, rounds[0], "dense", color="#555555", label="dense")
    colors = ["#0b6fb8", "#2a9d8f", "#7b4fa3", "#d1495b"]
    for color, r in zip(colors, _detailed(rounds, chosen), strict=False):
        _curve(axes, r, "ticket", color=color, label=f"{r.density:.1%}")
        if "reinit" in kinds:
            _curve(axes, r, "reinit", color=color, linestyle="--")
    axes.set_xlabel("steps")
    axes.set_ylabel("validation accuracy, %")
    late = _mean_curve(rounds[0], "dense")[1]
    axes.set_ylim(max(0.0, 100 * float(late[len(late) // 8 :].min()) - 4), 100)
    axes.legend(frameon=False, title="weights left (dashed: reinit)")


def _detailed(rounds: list[Round], chosen: Round) -> list[Round]:
    """The rounds that are drawn in detail, densest first: four at most."""
    wanted = {min(rounds[1:], key=lambda r: abs(r.density - density)).number for density in CURVES_AT} | {chosen.number}
    return [r for r in rounds if r.number in wanted]


def _curve(axes: Axes, r: Round, kind: str, **look: Any) -> None:
    if kind in r.measured and not np.isnan(r.measured[kind].accuracy).all():
        steps, accuracy = _mean_curve(r, kind)
        axes.plot(steps, 100 * accuracy, linewidth=1.3, **look)


def _mean_curve(r: Round, kind: str) -> tuple[Any, Any]:
    """Over the trainings of a kind that did not diverge."""
    named: list[Training] = [training for name, training in r.trainings.items() if seed_and_kind(name)[1] == kind]
    curves = [training for training in named if training.diverged_step is None]
    return curves[0].steps, np.mean([training.validation_accuracy for training in curves], axis=0)


def _survivors(search: Search, rounds: list[Round], chosen: Round) -> Markup:
    """Of the exported seed, a row a layer and a column a round: how all weights are distributed, initial or at the rewind
    step, how those of them that survived, and what training made of these (the paper: survivors are bimodal)."""
    seed, columns = search.best_seed(chosen), _detailed(rounds, chosen)
    rewound = search.options.retrain == "weights" and search.rewind_step > 0
    start = (chosen if rewound else rounds[0]).start[seed]
    names = shown_layers({name: mask.size for name, mask in chosen.masks[seed].items()})
    final = {r.number: r.trainings[f"seed{seed}-ticket"].final for r in columns}

    def draw(axes: Any) -> None:
        for name, row in zip(names, axes, strict=True):
            trained = [final[r.number][name][r.masks[seed][name]] for r in columns]
            bins = _bins([start[name].ravel(), *trained])
            for r, weights, panel in zip(columns, trained, row, strict=True):
                mask = r.masks[seed][name]
                _histograms(panel, bins, start[name].ravel(), start[name][mask], weights)
                panel.set_title(f"{mask.mean():.1%} live", fontsize=8, color="#444444", loc="right")
            row[0].set_ylabel(name, fontweight="bold")
        for r, panel in zip(columns, axes[0], strict=True):
            panel.set_title(f"round {r.number}", fontsize=9, fontweight="bold", loc="left")
        at = f"at step {search.rewind_step}" if rewound else "initial"
        labels = [f"all weights, {at}", f"those that survive, {at}", "those that survive, trained"]
        for panel in axes[-1]:
            panel.set_xlabel("value of the weight")
        axes[0, 0].figure.legend(
            axes[0, 0].get_legend_handles_labels()[0], labels, loc="outside upper center", ncols=3, frameon=False
        )

    return drawn(draw, len(names), len(columns), size=(10.6, 1.7 * len(names) + 0.7))


def shown_layers(sizes: dict[str, int]) -> list[str]:
    """The layers whose weights are drawn, in order: all of a few, else the first, the last and the largest between."""
    names = list(sizes)
    if len(names) <= LAYERS_SHOWN:
        return names
    largest = sorted(names[1:-1], key=lambda name: -sizes[name])[: LAYERS_SHOWN - 2]
    return [name for name in names if name in {names[0], names[-1], *largest}]


def _bins(parts: list[NDArray[np.float32]]) -> list[float]:
    """Even bins over all but the outermost thousandth of each part, symmetric about 0."""
    reach = max((float(np.quantile(np.abs(part), 0.999)) for part in parts if part.size), default=0.0)
    edge = reach or 1.0
    return [float(value) for value in np.linspace(-edge, edge, BINS + 1)]


def _histograms(
    panel: Axes,
    bins: list[float],
    everything: NDArray[np.float32],
    live: NDArray[np.float32],
    trained: NDArray[np.float32],
) -> None:
    """Densities, each of area 1 over its own weights."""
    panel.hist(everything, bins, density=True, color=ALL, label="all")
    for weights, color in ((live, LIVE), (trained, TRAINED)):
        panel.hist(weights, bins, density=True, histtype="step", color=color, linewidth=1.2, label="live")
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.grid(visible=False)
    panel.tick_params(labelsize=7)


def _layer_densities(axes: Axes, rounds: list[Round], seed: int) -> None:
    from matplotlib import colormaps

    densities = [r.layer_densities(seed) for r in rounds]
    names = list(densities[0])
    colors = colormaps["viridis"](np.linspace(0, 0.85, len(names)))
    widths = np.linspace(4.0, 1.2, len(names))  # a line that lies on another leaves it to be seen
    for color, width, name in zip(colors, widths, names, strict=True):
        shares = [100 * row[name] for row in densities]
        axes.plot([r.number for r in rounds], shares, color=color, linewidth=width, label=name)
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    axes.set_xlabel("round")
    axes.set_ylabel("live weights, %")
    axes.legend(frameon=False, fontsize=9 if len(names) <= 8 else 6, ncols=1 + (len(names) - 1) // 8)
