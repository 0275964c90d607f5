"""Kinds of networks side by side, as experiments tell of them: figures over seeds, how soon dense is reached, differences.

Every difference is paired over seeds, of means over the copies of a seed. Intervals are for each by itself: nothing here
corrects for how many are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from server_side.figures import drawn
from server_side.rounds import Copies, measure
from server_side.significance import estimate
from server_side.training import Training
from server_side.verdict import Measured

DOT, LEVEL = "#0b6fb8", "#555555"


def told(copies: Copies, goals: NDArray[np.float64]) -> dict[str, Any]:
    """The figures of a kind as results.json has them, and `to_dense`: the median of the steps, counted from
    initialisation, after which a training was first evaluated at its seed's `goals` or above on the validation part (None
    where half of them never were), and how many of them ever were."""
    taken = [
        steps_to(training, float(goal)) for of_seed, goal in zip(copies, goals, strict=True) for training in of_seed
    ]
    median = float(np.median(taken))
    return {
        **measure(copies).to_json(),
        "to_dense": {
            "steps": median if np.isfinite(median) else None,
            "reached": int(np.isfinite(taken).sum()),
            "of": len(taken),
        },
    }


def steps_to(training: Training, validation_accuracy: float) -> float:
    """The step at which a training was first evaluated at that accuracy or above; infinite where it never was."""
    there = np.flatnonzero(training.validation_accuracy >= validation_accuracy)
    return float(training.steps[there[0]]) if len(there) else float("inf")


def difference(one: Copies, other: Copies) -> dict[str, Any]:
    """Of test accuracies and of early stops, `one` minus `other`: mean and interval over seeds."""
    a, b = measure(one), measure(other)
    return {name: estimate(_of(a, name) - _of(b, name)) for name in ("accuracy", "early_stop_step")}


def _of(measured: Measured, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = getattr(measured, name)
    return values


HEAD = f"{'':<26}{'accuracy':<17}{'at end':<9}{'early stop':<12}steps to dense accuracy"


def line(name: str, kind: Mapping[str, Any]) -> str:
    """A row of a table under HEAD."""
    if kind["accuracy"] is None:
        return f"{name:<26}diverged"
    spread = "" if kind["accuracy_std"] is None else f" ±{100 * kind['accuracy_std']:.2f}"
    reached = kind["to_dense"]
    soon = "-" if reached["steps"] is None else f"{reached['steps']:.0f}"
    cells = f"{kind['accuracy']:.2%}{spread}", f"{kind['accuracy_end']:.2%}", f"{kind['early_stop_step']:.0f}", soon
    figures = f"{cells[0]:<17}{cells[1]:<9}{cells[2]:<12}{cells[3]:<8}"
    return f"{name:<26}{figures}({reached['reached']} of {reached['of']} reach it)"


def gap(what: str, difference: Mapping[str, Any]) -> str:
    """A difference in words."""
    accuracy, stop = difference["accuracy"], difference["early_stop_step"]
    return f"{what}: accuracy {_signed(accuracy, 100, '.2f')} points, early stop {_signed(stop, 1, '.0f')} steps"


def _signed(estimated: Mapping[str, Any], scale: float, form: str) -> str:
    if estimated["mean"] is None:
        return "unknown"
    ends = [] if estimated["low"] is None else [scale * estimated["low"], scale * estimated["high"]]
    between = f" [{', '.join(f'{end:+{form}}' for end in ends)}]" if ends else ""
    return f"{scale * estimated['mean']:+{form}}{between}"


def figure(kinds: Mapping[str, Mapping[str, Any]], dense: Mapping[str, Any]) -> Markup:
    """The test accuracy of each kind with its interval, a line each; dense is a level."""
    shown = [(name, kind) for name, kind in kinds.items() if kind["accuracy"] is not None]

    def draw(axes: Any) -> None:
        panel = axes[0, 0]
        panel.axvline(100 * dense["accuracy"], color=LEVEL, linestyle=":")
        for row, (_, kind) in enumerate(shown):
            low, high = kind["accuracy_interval"]
            if low is not None:
                panel.plot([100 * low, 100 * high], [row, row], color=DOT, linewidth=1)
            panel.plot(100 * kind["accuracy"], row, marker="o", markersize=4, color=DOT)
        panel.set_yticks(range(len(shown)), [name for name, _ in shown])
        panel.invert_yaxis()
        panel.set_xlabel("test accuracy, % (dotted: dense)")

    return drawn(draw, size=(5.2, 1.0 + 0.32 * max(1, len(shown))))


def chosen_copies(trainings: Mapping[str, Training], kind: str, seeds: Sequence[int]) -> Copies:
    """The trainings of a kind in a round of a search, by their names."""
    return [
        [training for name, training in trainings.items() if name.rstrip("0123456789") == f"seed{seed}-{kind}"]
        for seed in seeds
    ]
