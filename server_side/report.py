"""One self-contained report.html: the verdict, the paper's figures as inline SVG, the table of every round, how to rerun.

No script, no network, no file beside it. Its tables show what summary.py computed; for the figures it takes means and
intervals of its own from the same trainings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from export.ticket import Ticket
from server_side import verdict
from server_side.summary import diverged_controls

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from server_side.search import Round, Search
    from server_side.training import Training

STYLE = {
    "dense": {"color": "#555555", "linestyle": ":", "marker": ""},
    "ticket": {"color": "#0b6fb8", "linestyle": "-", "marker": "o"},
    "reinit": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
    "shuffle": {"color": "#b8860b", "linestyle": "--", "marker": "^"},
}
CURVES_AT = (0.5, 0.2, 0.05)  # learning curves are drawn at the rounds nearest to these densities, and at the ticket's


def render(search: Search, rounds: list[Round], chosen: Round, ticket: Ticket, result: dict[str, Any]) -> str:
    """The whole page. `result` is what summary.conclude returns."""
    template = Environment(
        loader=PackageLoader("server_side", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html")
    kinds = [kind for kind in ("ticket", "reinit", "shuffle") if kind in chosen.measured]
    return template.render(
        result=result,
        kinds=kinds,
        figures=_figures(search, rounds, chosen, kinds),
        explanation=verdict.explain(result["verdict"]),
        options=search.options.identity(),
        diverged=[(row["round"], told) for row in result["rounds"] for told in diverged_controls(row)],
        provenance=result["card"]["provenance"],
        layers={name: (int(mask.sum()), mask.size) for name, mask in ticket.masks.items()},
        command=f"python -m server_side.find --config {search.directory.path}/config.json",
        seeds=list(search.seeds),
    )


def _figures(search: Search, rounds: list[Round], chosen: Round, kinds: Sequence[str]) -> dict[str, Markup]:
    return {
        "Accuracy at the early stop": _drawn(lambda axes: _against_density(axes[0], rounds, kinds, "accuracy")),
        "Early stop": _drawn(lambda axes: _against_density(axes[0], rounds, kinds, "early_stop_step")),
        "Accuracy at the end": _drawn(lambda axes: _against_density(axes[0], rounds, kinds, "accuracy_end")),
        "Learning curves": _drawn(lambda axes: _learning_curves(axes[0], rounds, chosen, kinds)),
        "Surviving initial weights": _survivors_figure(search, chosen),
        "Density of each layer": _drawn(lambda axes: _layer_densities(axes[0], rounds, search.options.seed)),
    }


def _drawn(draw: Any, columns: int = 1) -> Markup:
    """The SVG of one figure; the same bytes for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    settings: Any = {
        "svg.hashsalt": "pocket-ticket",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with mpl.rc_context(
        {**settings, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    ):
        figure, axes = plt.subplots(
            1, columns, figsize=(5.2 * max(1, columns / 1.5), 3.3), squeeze=False, layout="constrained"
        )
        draw(list(axes[0]))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    svg = buffer.getvalue()
    return Markup(svg[svg.index("<svg") :])


def _against_density(axes: Axes, rounds: list[Round], kinds: Sequence[str], figure: str) -> None:
    """One line a kind over the share of weights left, with intervals over seeds; dense is a level line."""
    scale = 100.0 if figure.startswith("accuracy") else 1.0
    dense = verdict.interval(getattr(rounds[0].measured["dense"], figure))
    axes.axhline(scale * dense[0], label="dense", **_line("dense"))
    if dense[1] is not None and dense[2] is not None:
        axes.axhspan(scale * dense[1], scale * dense[2], color=STYLE["dense"]["color"], alpha=0.12, linewidth=0)
    for kind in kinds:
        rows = [(100 * r.density, *verdict.interval(getattr(r.measured[kind], figure))) for r in rounds[1:]]
        x, mean = np.array([row[0] for row in rows]), scale * np.array([row[1] for row in rows])
        half = scale * np.array([0.0 if row[2] is None else row[1] - row[2] for row in rows])
        axes.errorbar(
            x, mean, yerr=half, label=kind, markersize=3.5, linewidth=1.4, elinewidth=0.7, capsize=2, **_line(kind)
        )
    _density_axis(axes)
    axes.set_ylabel("test accuracy, %" if scale == 100 else "early stop, steps")
    axes.legend(frameon=False)


def _density_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    _plain_numbers(axes.xaxis)
    axes.set_xlabel("weights left, %")


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _line(kind: str) -> dict[str, Any]:
    return {key: value for key, value in STYLE[kind].items() if value}


def _learning_curves(axes: Axes, rounds: list[Round], chosen: Round, kinds: Sequence[str]) -> None:
    """Validation accuracy over steps, mean over seeds: dense, tickets solid, their reinits dashed in the same colour."""
    _curve(axes, rounds[0], "dense", color="#555555", label="dense")
    wanted = {min(rounds[1:], key=lambda r: abs(r.density - density)).number for density in CURVES_AT} | {chosen.number}
    colors = ["#0b6fb8", "#2a9d8f", "#7b4fa3", "#d1495b"]
    for color, number in zip(colors, sorted(wanted), strict=False):
        _curve(axes, rounds[number], "ticket", color=color, label=f"{rounds[number].density:.1%}")
        if "reinit" in kinds:
            _curve(axes, rounds[number], "reinit", color=color, linestyle="--")
    axes.set_xlabel("steps")
    axes.set_ylabel("validation accuracy, %")
    late = _mean_curve(rounds[0], "dense")[1]
    axes.set_ylim(max(0.0, 100 * float(late[len(late) // 8 :].min()) - 4), 100)
    axes.legend(frameon=False, title="weights left (dashed: reinit)")


def _curve(axes: Axes, r: Round, kind: str, **look: Any) -> None:
    if not np.isnan(r.measured[kind].accuracy).all():
        steps, accuracy = _mean_curve(r, kind)
        axes.plot(steps, 100 * accuracy, linewidth=1.3, **look)


def _mean_curve(r: Round, kind: str) -> tuple[Any, Any]:
    """Over the trainings of a kind that did not diverge."""
    named: list[Training] = [training for name, training in r.trainings.items() if f"-{kind}" in name]
    curves = [training for training in named if training.diverged_step is None]
    return curves[0].steps, np.mean([training.validation_accuracy for training in curves], axis=0)


def _survivors_figure(search: Search, chosen: Round) -> Markup:
    """Per layer, the distribution of all initial weights and of those that survived."""
    seed = search.best_seed(chosen)
    theta, masks = search.theta(seed), chosen.masks[seed]

    def draw(axes: list[Axes]) -> None:
        for panel, (name, mask) in zip(axes, masks.items(), strict=True):
            bins = np.linspace(theta[name].min(), theta[name].max(), 61).tolist()
            panel.hist(theta[name].ravel(), bins, density=True, color="#bbbbbb", label="all")
            panel.hist(
                theta[name][mask], bins, density=True, histtype="step", color="#0b6fb8", linewidth=1.4, label="live"
            )
            panel.set_title(f"{name}, {mask.mean():.1%} live", fontsize=9)
            panel.set_xlabel("initial value")
        axes[0].set_ylabel("density")
        axes[0].legend(frameon=False)

    return _drawn(draw, columns=len(masks))


def _layer_densities(axes: Axes, rounds: list[Round], seed: int) -> None:
    densities = [r.layer_densities(seed) for r in rounds]
    for position, name in enumerate(densities[0]):
        shares = [100 * row[name] for row in densities]
        axes.plot([r.number for r in rounds], shares, marker="o", markersize=5 - position, linewidth=1.2, label=name)
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("round")
    axes.set_ylabel("live weights, %")
    axes.legend(frameon=False)
