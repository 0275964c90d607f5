"""Share of random initialisations that reach a given accuracy, against the width of a dense network.

The lottery ticket hypothesis says why larger networks train more easily: they hold more tickets. Here many dense networks
of each width are trained from scratch as the search's were, each with weights and an order of samples of its own. A preset
of fully connected layers or plain convolutions is taken in any width, and so is a factory with an argument `width`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from server_side.errors import UsageError
from server_side.figures import drawn, plot_estimates
from server_side.models import Model
from server_side.seeds import derive
from server_side.significance import estimate, share
from server_side.training import Job, Training

if TYPE_CHECKING:
    from server_side.lab import Lab

KIND = "network"


@dataclass(frozen=True)
class Options:
    """Options of this experiment."""

    widths: list[float] = field(default_factory=lambda: [0.0625, 0.125, 0.25, 0.5, 1.0, 2.0])
    """factors of the hidden widths"""
    networks: int = 30
    """of each width"""
    accuracy: float | None = None
    """on the test part at the early stop, to be reached (default: the mean of the search's dense networks, less its
    accuracy_tolerance)"""

    def check(self) -> None:
        """Raises UsageError naming what is out of range."""
        if not self.widths or sorted(set(self.widths)) != self.widths:
            raise UsageError(f"widths {self.widths}: give factors that rise, e.g. '[0.5, 1]'")
        if self.networks < 2:
            raise UsageError(f"networks {self.networks}: must be at least 2")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise UsageError(f"accuracy {self.accuracy}: must be above 0 and at most 1")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    lab.options.check()
    count, steps = lab.options.networks, lab.search.recipe.steps
    for width in lab.options.widths:
        lab.model(width)  # refused before anything is trained
    return [(_stage(width), count, count * steps) for width in lab.options.widths]


def run(lab: Lab) -> dict[str, Any]:
    dense = lab.rounds[0].measured["dense"].accuracy
    wanted = lab.options.accuracy or float(dense.mean()) - lab.search.tolerance
    tickets = lab.chosen.measured["ticket"].accuracy
    return {
        "accuracy": wanted,
        "widths": [_width(lab, width, wanted) for width in lab.options.widths],
        "ticket": {
            "live": lab.search.ladder.live[lab.chosen.number],
            "reached": share(int((tickets >= wanted).sum()), len(tickets)),
        },
    }


def _width(lab: Lab, width: float, wanted: float) -> dict[str, Any]:
    model = lab.model(width)
    trainings = list(lab.train(_stage(width), jobs(model, lab.options.networks, width), model=model).values())
    accuracies = np.array([training.early_accuracy for training in trainings])  # NaN where one diverged
    return {
        "width": width,
        "weights": sum(math.prod(model.network.parameter_shapes[name]) for name in model.network.prunable),
        "reached": share(int((accuracies >= wanted).sum()), len(accuracies)),
        "accuracy": estimate(accuracies),
        "early_stop_step": estimate(np.array([_early_step(training) for training in trainings])),
        "diverged": int(np.isnan(accuracies).sum()),
    }


def _early_step(training: Training) -> float:
    return float("nan") if training.diverged_step is not None else float(training.early_step)


def jobs(model: Model, count: int, width: float) -> list[Job]:
    """Dense networks that may fail, the first of every width with the same order of samples, and so on."""
    made = []
    for number in range(count):
        weights = model.initial_weights(derive(number, "trainability", f"{width:g}"))
        start = {name: value.numpy() for name, value in weights.items()}
        whole = {name: np.ones(start[name].shape, np.bool_) for name in model.network.prunable}
        made.append(Job(number, KIND, 0, start, whole))
    return made


def _stage(width: float) -> str:
    return f"width-{width:g}"


def explain(result: dict[str, Any]) -> list[str]:
    ticket = result["ticket"]
    lines = [
        f"dense networks from random weights that reach {result['accuracy']:.2%} on the test part, with 95 % intervals",
        f"{'width':>8} {'weights':>12} {'reach it':>22} {'accuracy':>10} {'early stop':>11}",
    ]
    for row in result["widths"]:
        mean = "diverged" if row["accuracy"]["mean"] is None else f"{row['accuracy']['mean']:.2%}"
        stop = "" if row["early_stop_step"]["mean"] is None else f"{row['early_stop_step']['mean']:,.0f}"
        reached = _told(row["reached"])
        lines.append(f"{row['width']:>8g} {row['weights']:>12,} {reached:>22} {mean:>10} {stop:>11}")
    lines.append(
        f"tickets of {ticket['live']:,} live weights: {_told(ticket['reached'])}, of {ticket['reached']['count']} seeds"
    )
    return lines


def _told(reached: dict[str, Any]) -> str:
    return f"{100 * reached['mean']:.0f} % [{100 * reached['low']:.0f}, {100 * reached['high']:.0f}]"


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    def draw(axes: Any) -> None:
        panel = axes[0, 0]
        panel.set_xscale("log")
        x = [row["weights"] for row in result["widths"]]
        plot_estimates(panel, x, {"dense": [row["reached"] for row in result["widths"]]})
        panel.plot(
            result["ticket"]["live"], 100 * result["ticket"]["reached"]["mean"], "*", markersize=9, label="ticket"
        )
        panel.set_xlabel("weights")
        panel.set_ylabel(f"networks that reach {result['accuracy']:.1%}, %")
        panel.legend(frameon=False)

    return {"Trainability by width": drawn(draw)}
