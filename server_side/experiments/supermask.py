"""Accuracy of every round's ticket before it trains, against the dense network, a shuffled mask and fresh weights.

A mask alone can carry a task (Zhou et al. 2019, "supermasks"), more so where every live weight is replaced by a constant
with its sign: the standard deviation of its layer's weights at the start, as in that paper. Nothing is trained. With a late
rewind that start has the dense network's first steps behind it, fresh weights none; `at_step` tells how many. Networks with
batch norm predict by the running statistics of their start, which says little before training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from server_side.controls import Values, apply_masks
from server_side.figures import density_axis, drawn, plot_estimates
from server_side.seeds import generator
from server_side.significance import estimate

if TYPE_CHECKING:
    from server_side.lab import Lab
    from server_side.prune import Masks
    from server_side.rounds import Round

KINDS = ("ticket", "shuffle", "reinit", "signed constant", "signed constant, shuffled", "signed constant, fresh")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    """Nothing. Raises UsageError where the tickets started from trained weights."""
    lab.check_rewound()
    return []


def run(lab: Lab) -> dict[str, Any]:
    dense = estimate(lab.accuracies([lab.rewound(seed) for seed in lab.seeds]))
    return {
        "at_step": lab.search.rewind_step,
        "dense": dense,
        "chance": 1 / lab.search.data.classes,
        "rounds": [_round(lab, r) for r in lab.rounds[1:]],
        "chosen_round": lab.chosen.number,
    }


def _round(lab: Lab, r: Round) -> dict[str, Any]:
    by_seed = [_networks(lab, r, seed) for seed in lab.seeds]
    accuracies = lab.accuracies([networks[kind] for networks in by_seed for kind in KINDS])
    table = accuracies.reshape(len(by_seed), len(KINDS))
    return {
        "round": r.number,
        "density": r.density,
        **{kind: estimate(table[:, place]) for place, kind in enumerate(KINDS)},
        "gains": {kind: estimate(table[:, 0] - table[:, place]) for place, kind in enumerate(KINDS[1:3], start=1)},
    }


def _networks(lab: Lab, r: Round, seed: int) -> dict[str, Values]:
    """Of one seed, by kind. What is compared to the ticket differs from it in one thing: where, or which weights."""
    start, masks = r.start[seed], r.masks[seed]
    fresh = lab.fresh(seed, "supermask", "reinit", r.number)
    shuffled = lab.search.keeper.shuffled(masks, r.number, generator(seed, "supermask", "shuffle", r.number))
    return {
        "ticket": apply_masks(start, masks),
        "shuffle": apply_masks(start, shuffled),
        "reinit": apply_masks(fresh, masks),
        "signed constant": apply_masks(signed_constants(start, masks), masks),
        "signed constant, shuffled": apply_masks(signed_constants(start, masks), shuffled),
        "signed constant, fresh": apply_masks(signed_constants(fresh, masks), masks),
    }


def signed_constants(values: Values, masks: Masks) -> Values:
    """Each weight that could be pruned is its sign times the standard deviation of its layer's; the others are as before."""
    return {
        name: (np.sign(value) * value.std()).astype(np.float32) if name in masks else value
        for name, value in values.items()
    }


def explain(result: dict[str, Any]) -> list[str]:
    lines = [
        f"test accuracy {_when(result)}, in %; chance {100 * result['chance']:.1f}, dense {_percent(result['dense'])}",
        f"{'round':>5} {'weights':>9}  " + "  ".join(f"{kind:>{_width(kind)}}" for kind in KINDS),
    ]
    for row in result["rounds"]:
        cells = "  ".join(f"{_percent(row[kind]):>{_width(kind)}}" for kind in KINDS)
        mark = "  <- the ticket" if row["round"] == result["chosen_round"] else ""
        lines.append(f"{row['round']:>5} {row['density']:>9.2%}  {cells}{mark}")
    return lines


def _when(result: dict[str, Any]) -> str:
    return f"at step {result['at_step']}, fresh weights at 0" if result["at_step"] else "before any training"


def _width(kind: str) -> int:
    return max(len(kind), 13)


def _percent(figure: dict[str, Any]) -> str:
    half = "" if figure["low"] is None else f" ± {100 * (figure['mean'] - figure['low']):.1f}"
    return f"{100 * figure['mean']:.1f}{half}"


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    densities = [100 * row["density"] for row in result["rounds"]]
    lines = {kind: [row[kind] for row in result["rounds"]] for kind in KINDS}

    def draw(axes: Any) -> None:
        panel = axes[0, 0]
        panel.axhline(100 * result["dense"]["mean"], color="#555555", linestyle=":", label="dense")
        panel.axhline(100 * result["chance"], color="#999999", linewidth=0.8, label="chance")
        density_axis(panel)
        panel.set_ylabel("test accuracy at the start, %")
        plot_estimates(panel, densities, lines)

    return {_when(result).capitalize(): drawn(draw)}
