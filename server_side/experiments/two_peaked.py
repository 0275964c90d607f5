"""Networks initialised from the two-peaked distribution of a ticket's surviving weights: do they train faster or better?

Among a ticket's initial weights the small ones are missing (Frankle & Carbin 2019, appendix F.2). Here dense networks, and
the ticket's sparse ones, take every weight of a layer at random from that layer's survivors ("peaked"), or from the model's
own initialiser scaled to the same mean square ("equal"), so that only the shape of the distribution differs. Biases and
layers that are not pruned are as the model draws them, the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from server_side.controls import Values, apply_masks
from server_side.errors import UsageError
from server_side.figures import drawn
from server_side.prune import Masks
from server_side.rounds import measure
from server_side.seeds import generator
from server_side.significance import estimate
from server_side.training import Job

if TYPE_CHECKING:
    from server_side.lab import Lab

KINDS = ("peaked", "equal", "sparse_peaked", "sparse_equal")
FIGURES = ("accuracy", "accuracy_end", "early_stop_step")
COLORS = {"dense": "#555555", "ticket": "#0b6fb8", "peaked": "#d1495b", "equal": "#b8860b"}


@dataclass(frozen=True)
class Options:
    """Options of this experiment."""

    copies: int = 3
    """networks of each kind and seed"""


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    lab.check_rewound()
    if lab.options.copies < 1:
        raise UsageError(f"copies {lab.options.copies}: must be at least 1")
    count = len(KINDS) // 2 * len(lab.seeds) * lab.options.copies
    return [(stage, count, count * lab.search.recipe.steps) for stage in ("dense", "sparse")]


def run(lab: Lab) -> dict[str, Any]:
    trainings = {**lab.train("dense", _jobs(lab, "")), **lab.train("sparse", _jobs(lab, "sparse_"))}
    copies = range(lab.options.copies)
    measured = {
        kind: measure([[trainings[f"seed{seed}-{kind}{copy}"] for copy in copies] for seed in lab.seeds])
        for kind in KINDS
    }
    measured |= {"dense": lab.chosen.measured["dense"], "ticket": lab.chosen.measured["ticket"]}
    return {
        "kinds": {kind: figures.to_json() for kind, figures in measured.items()},
        "differences": {
            kinds: {name: estimate(getattr(measured[one], name) - getattr(measured[other], name)) for name in FIGURES}
            for kinds, one, other in (("dense", *KINDS[:2]), ("sparse", *KINDS[2:]))
        },
        "density": lab.chosen.density,
        "copies": lab.options.copies,
        "curves": {
            kind: {
                "steps": next(iter(trainings.values())).steps.tolist(),
                "validation_accuracy": _mean_curve(
                    [t.validation_accuracy for name, t in trainings.items() if f"-{kind}" in name]
                ),
            }
            for kind in KINDS
        },
    }


def _mean_curve(curves: list[Any]) -> list[float] | None:
    """Over the trainings that did not diverge; None where none is left."""
    sound = [curve for curve in curves if np.isfinite(curve).all()]
    return np.mean(sound, axis=0).tolist() if sound else None


def _jobs(lab: Lab, prefix: str) -> list[Job]:
    made = []
    for seed in lab.seeds:
        masks = lab.chosen.masks[seed]
        whole = {name: np.ones_like(mask) for name, mask in masks.items()}
        for copy in range(lab.options.copies):
            fresh = lab.fresh(seed, "two-peaked", copy)
            draws = generator(seed, "two-peaked", "survivors", copy)
            for kind, values in (
                ("peaked", from_survivors(fresh, lab.chosen.start[seed], masks, draws)),
                ("equal", of_equal_square(fresh, lab.chosen.start[seed], masks)),
            ):
                there = masks if prefix else whole
                made.append(Job(seed, prefix + kind, copy, apply_masks(values, there), there))
    return made


def from_survivors(fresh: Values, start: Values, masks: Masks, draws: np.random.Generator) -> Values:
    """Every weight of a layer that is pruned is one of its survivors' in `start`, at random, with replacement."""
    return {
        name: draws.choice(start[name][masks[name]], value.shape) if name in masks else value
        for name, value in fresh.items()
    }


def of_equal_square(fresh: Values, start: Values, masks: Masks) -> Values:
    """The fresh weights of a layer that is pruned scaled so that their mean square is its survivors'."""
    scaled = dict(fresh)
    for name, mask in masks.items():
        drawn_as = _root_mean_square(fresh[name])
        if drawn_as > 0:  # a layer that begins at 0 stays there
            scaled[name] = fresh[name] * np.float32(_root_mean_square(start[name][mask]) / drawn_as)
    return scaled


def _root_mean_square(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def explain(result: dict[str, Any]) -> list[str]:
    lines = [f"{'':<14}{'accuracy':>16}{'at end':>9}{'early stop':>12}"]
    for kind, row in result["kinds"].items():
        if row["accuracy"] is None:
            lines.append(f"{kind:<14}{'diverged':>16}")
            continue
        spread = "" if row["accuracy_std"] is None else f" ±{100 * row['accuracy_std']:.2f}"
        accuracy = f"{row['accuracy']:.2%}{spread}"
        lines.append(f"{kind:<14}{accuracy:>16}{row['accuracy_end']:>9.2%}{row['early_stop_step']:>12,.0f}")
    for kinds, gains in result["differences"].items():
        points, steps = gains["accuracy"], gains["early_stop_step"]
        lines.append(
            f"{kinds}, peaked less equal: accuracy {_told(points, 100, '+.2f')} points, early stop {_told(steps, 1, '+,.0f')} steps"
        )
    lines.append(
        f"95 % intervals over {len(result['kinds']['ticket']['accuracy_by_seed'])} seeds, of means of {result['copies']} copies; the sparse ones have {result['density']:.2%} of the weights"
    )
    return lines


def _told(figure: dict[str, Any], scale: float, form: str) -> str:
    if figure["mean"] is None:
        return "unknown"
    mean = format(scale * figure["mean"], form)
    if figure["low"] is None:
        return mean
    return f"{mean} [{format(scale * figure['low'], form)}, {format(scale * figure['high'], form)}]"


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    def draw(axes: Any) -> None:
        panel = axes[0, 0]
        for kind, curve in result["curves"].items():
            if curve["validation_accuracy"] is not None:
                style = "--" if kind.startswith("sparse_") else "-"
                accuracy = 100 * np.array(curve["validation_accuracy"])
                color = COLORS[kind.removeprefix("sparse_")]
                panel.plot(curve["steps"], accuracy, style, color=color, linewidth=1.3, label=kind.replace("_", ", "))
        panel.set_xlabel("steps")
        panel.set_ylabel("validation accuracy, %")
        panel.legend(frameon=False)

    return {"From survivors, and of equal mean square": drawn(draw)}
