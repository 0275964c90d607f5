"""Does planting tickets help a freshly initialised large network? One, two and more, against none and scattered ones.

In a fully connected network the tickets of a seed are its own ticket, in its own places and in others: hidden units permuted,
so that as few weights as possible claim the same place. In any other network they are the tickets of the seeds, in their own
places, the seed's own first. Where two claim a place the earlier one has it. What is planted are the live weights, at the rewind
step; biases and everything else are of a fresh draw. A scattered control has the very same numbers, each layer's at random
places of it, in the same fresh network. All train dense, from step 0, on the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from server_side.comparison import HEAD, chosen_copies, difference, figure, gap, line, told
from server_side.controls import Values
from server_side.errors import UsageError
from server_side.permutation import chain_of, copies
from server_side.prune import Masks
from server_side.rounds import Copies, copies_by_kind, measure
from server_side.seeds import generator
from server_side.training import Job
from server_side.transplant import planted, scattered, transplanted

if TYPE_CHECKING:
    from server_side.lab import Lab


KINDS = ("planted", "scattered")


@dataclass(frozen=True)
class Options:
    """How many tickets are planted, at most, and how often each is tried."""

    tickets: int = 4
    """1, 2, 4 ... tickets up to so many are planted; in networks that are not fully connected no more than there are seeds"""
    draws: int = 1
    """fresh networks a seed that they are planted in"""

    def __post_init__(self) -> None:
        for name in ("tickets", "draws"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: must be at least 1")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    lab.check_rewound()
    trainings, steps = len(lab.seeds) * lab.options.draws, lab.search.recipe.steps
    stages = [("fresh", trainings), *((f"{number} planted", 2 * trainings) for number in counts(lab))]
    return [(stage, count, count * steps) for stage, count in stages]


def counts(lab: Lab) -> list[int]:
    """Numbers of tickets that are planted: powers of two."""
    most = lab.options.tickets
    if chain_of(lab.search.model.network) is None:
        most = min(most, len(lab.seeds))
    return [2**power for power in range(most.bit_length())]


def run(lab: Lab) -> dict[str, Any]:
    dense = chosen_copies(lab.rounds[0].trainings, "dense", lab.seeds)
    goals = measure(dense).validation_accuracy
    everything = lab.search.keeper.all_live()
    bare = [Job(s, "fresh", d, soil(lab, s, d), everything) for s in lab.seeds for d in range(lab.options.draws)]
    fresh = copies_by_kind(bare, lab.train("fresh", bare), lab.seeds)["fresh"]
    return {
        "density": lab.chosen.density,
        "permuted": chain_of(lab.search.model.network) is not None,
        "dense": told(dense, goals),
        "fresh": told(fresh, goals),
        "planted": [_planting(lab, number, fresh, goals) for number in counts(lab)],
    }


def _planting(lab: Lab, number: int, fresh: Copies, goals: NDArray[np.float64]) -> dict[str, Any]:
    """What came of planting `number` tickets."""
    jobs = list(planting_jobs(lab, number))
    found = copies_by_kind(jobs, lab.train(f"planted-{number}", jobs), lab.seeds)
    masks = [planted({}, tickets_of(lab, seed, number))[1] for seed in lab.seeds]
    live, size = (sum(map(count, of_seed.values())) for of_seed in masks[:1] for count in (np.sum, np.size))
    return {
        "tickets": number,
        "share": float(live / size),
        **{kind: told(copies, goals) for kind, copies in found.items()},
        "planted - fresh": difference(found["planted"], fresh),
        "planted - scattered": difference(found["planted"], found["scattered"]),
    }


def soil(lab: Lab, seed: int, draw: int) -> Values:
    """The fresh weights that tickets are planted in."""
    return lab.fresh(seed, "sufficiency", draw)


def planting_jobs(lab: Lab, number: int) -> Iterator[Job]:
    """Fresh networks with so many tickets, and with the same weights scattered."""
    everything = lab.search.keeper.all_live()
    for seed in lab.seeds:
        tickets = tickets_of(lab, seed, number)
        for draw in range(lab.options.draws):
            bare = soil(lab, seed, draw)
            start, places = planted(bare, tickets)
            yield Job(seed, "planted", draw, start, everything)
            moved, there = scattered(start, places, generator(seed, "sufficiency", "scatter", number, draw))
            yield Job(seed, "scattered", draw, transplanted(bare, moved, there), everything)


def tickets_of(lab: Lab, seed: int, number: int) -> list[tuple[Values, Masks]]:
    """So many tickets for the large network of `seed`, its own first."""
    chain = chain_of(lab.search.model.network)
    if chain is not None:
        return copies(lab.rewound(seed), lab.chosen.masks[seed], chain, number)
    first = lab.seeds.index(seed)
    others = [lab.seeds[(first + step) % len(lab.seeds)] for step in range(number)]
    return [(lab.rewound(other), lab.chosen.masks[other]) for other in others]


def explain(result: dict[str, Any]) -> list[str]:
    lines = [HEAD, line("dense", result["dense"]), line("fresh", result["fresh"])]
    for row in result["planted"]:
        lines += [line(_name(row, kind), row[kind]) for kind in KINDS]
    where = "its own, with hidden units permuted" if result["permuted"] else "of the seeds"
    lines += ["", f"tickets of {result['density']:.2%} of the weights, {where}"]
    for row in result["planted"]:
        lines.append(f"{_name(row, 'planted')}, {row['share']:.2%} of the weights")
        lines += [gap(f"  {what}", row[what]) for what in ("planted - fresh", "planted - scattered")]
    return lines


def _name(row: Mapping[str, Any], kind: str) -> str:
    return f"{row['tickets']} {'ticket' if row['tickets'] == 1 else 'tickets'} {kind}"


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    shown = {"fresh": result["fresh"]}
    shown |= {_name(row, kind): row[kind] for row in result["planted"] for kind in KINDS}
    return {"Fresh networks with tickets planted": figure(shown, result["dense"])}
