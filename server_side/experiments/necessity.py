"""Is the ticket needed in the large network, and how many are there? Its weights drawn anew, and tickets without it.

First the ticket's weights are drawn anew inside the dense network, `draws` times a seed, which then trains dense; for
comparison as many other weights of each layer are. Biases and layers that were not pruned stay as they are.

Then the ticket's weights are taken out: what is left trains as the large network, a ticket with as many weights in each layer
is found in it by one-shot magnitude pruning and trained from the weights of the rewind step, beside fresh weights on its
mask; then its weights are taken out too. So every ticket is disjoint from all before, but for the layers that are
`shared`. That ends after `generations`, where a layer has too few weights left, or where the ticket's validation accuracy falls
below dense by more than the search's accuracy_tolerance. As later tickets are one-shot, a one-shot ticket of the whole dense
network stands beside the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from server_side.comparison import HEAD, chosen_copies, difference, figure, gap, line, told
from server_side.errors import UsageError
from server_side.generations import Exhausted, later_generations, one_shot_jobs
from server_side.ladder import check_patterns
from server_side.prune import live_count
from server_side.rounds import Copies, copies_by_kind, measure
from server_side.seeds import generator
from server_side.training import Job
from server_side.transplant import other_places, transplanted

if TYPE_CHECKING:
    from server_side.lab import Lab


@dataclass(frozen=True)
class Options:
    """How much is tried; every draw is two trainings a seed, every generation after the first is three."""

    draws: int = 5
    """how often a seed's ticket is drawn anew in the dense network, and as often as many other weights; 0 leaves it out"""
    generations: int = 5
    """tickets that are looked for at most, the first among them; 1 leaves the others out"""
    shared: list[str] = field(default_factory=list)
    """layers whose weights every ticket may use, e.g. '["output"]': patterns of the shell; in all others tickets are disjoint"""

    def __post_init__(self) -> None:
        for name, least in (("draws", 0), ("generations", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)}: must be at least {least}")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    """At most so much. Raises UsageError where `shared` names no layer, or the tickets did not start at the rewind step."""
    lab.check_rewound()
    check_patterns("shared", lab.options.shared, lab.search.model.network)
    steps, rewound, seeds = lab.search.recipe.steps, lab.search.rewind_step, len(lab.seeds)
    left, draws = steps - rewound, 2 * lab.options.draws * seeds
    later = (lab.options.generations - 1) * seeds
    return [
        ("redrawn", draws, draws * left),
        ("one-shot", seeds, seeds * left),
        *([("generations", 3 * later, later * (2 * steps + left))] if later else []),
    ]


def run(lab: Lab) -> dict[str, Any]:
    dense = chosen_copies(lab.rounds[0].trainings, "dense", lab.seeds)
    goals = measure(dense).validation_accuracy
    first = lab.chosen.masks[lab.search.options.seed]
    kinds, against = {"dense": told(dense, goals)}, {}
    if lab.options.draws:
        jobs = list(redrawn_jobs(lab))
        found = copies_by_kind(jobs, lab.train("redrawn", jobs), lab.seeds)
        kinds |= {kind: told(copies, goals) for kind, copies in found.items()}
        against = {
            "redrawn - dense": difference(found["redrawn"], dense),
            "redrawn - others": difference(found["redrawn"], found["others"]),
        }
    tickets, ended = _tickets(lab, dense, goals)
    return {
        "density": lab.chosen.density,
        "weights": live_count(first, tuple(first)),
        "others": live_count(other_places(first, np.random.default_rng(0)), tuple(first)),
        "tolerance": lab.search.tolerance,
        "kinds": kinds,
        "against": against,
        "generations": tickets,
        "shared": list(lab.options.shared),
        "ended": ended,
    }


def redrawn_jobs(lab: Lab) -> Iterator[Job]:
    """The dense network from the rewind step, with the ticket's weights from a fresh draw, or with others from the same."""
    everything, first = lab.search.keeper.all_live(), lab.search.rewind_step
    for kind in ("redrawn", "others"):
        for seed in lab.seeds:
            for index in range(lab.options.draws):
                masks = lab.chosen.masks[seed]
                if kind == "others":
                    masks = other_places(masks, generator(seed, "necessity", "others", index))
                start = transplanted(lab.rewound(seed), lab.fresh(seed, "necessity", "redraw", index), masks)
                yield Job(seed, kind, index, start, everything, first)


def _tickets(lab: Lab, dense: Copies, goals: NDArray[np.float64]) -> tuple[list[dict[str, Any]], str]:
    """The figures of each ticket, and why there is none after the last."""
    ticket, controls = (chosen_copies(lab.chosen.trainings, kind, lab.seeds) for kind in ("ticket", "reinit"))
    first = {"ticket": ticket} | ({"reinit": controls} if all(controls) else {})
    one_shot = list(one_shot_jobs(lab))
    again = copies_by_kind(one_shot, lab.train("one-shot", one_shot), lab.seeds)
    rows = [_row(1, first, dense, goals), _row(1, again, dense, goals) | {"one_shot": True}]
    try:
        for generation in islice(later_generations(lab, lab.options.shared), lab.options.generations - 1):
            rows.append(_row(generation.number, generation.copies, dense, goals))
            reached = measure(generation.copies["ticket"]).validation_accuracy
            if (goals - reached).mean() > lab.search.tolerance:
                return rows, f"ticket {generation.number} does not match dense on the validation part"
    except Exhausted as end:
        return rows, str(end)
    return rows, "no more were looked for"


def _row(number: int, copies: dict[str, Copies], dense: Copies, goals: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "generation": number,
        "kinds": {kind: told(of_kind, goals) for kind, of_kind in copies.items()},
        "ticket - dense": difference(copies["ticket"], dense),
    }


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    """What each kind of a generation is called in a table."""
    number = row["generation"]
    once = ", one-shot" if row.get("one_shot") else ""
    return {
        "ticket": f"ticket {number}{once}",
        "reinit": f"ticket {number}, reinit",
        "large": f"dense without {'ticket 1' if number == 2 else f'tickets 1-{number - 1}'}",
    }


def explain(result: dict[str, Any]) -> list[str]:
    lines = [HEAD, line("dense", result["kinds"]["dense"])]
    if result["against"]:
        lines += [
            line("its ticket drawn anew", result["kinds"]["redrawn"]),
            line("others drawn anew", result["kinds"]["others"]),
        ]
    for row in result["generations"]:
        lines += [
            line(_names(row)[kind], row["kinds"][kind])
            for kind in ("large", "ticket", "reinit")
            if kind in row["kinds"]
        ]
    lines.append("")
    if result["against"]:
        lines += [
            f"drawn anew in the dense network: {result['weights']:,} weights of the ticket, or {result['others']:,} others",
            gap("ticket drawn anew - dense", result["against"]["redrawn - dense"]),
            gap("ticket drawn anew - others drawn anew", result["against"]["redrawn - others"]),
        ]
    lines += [gap(f"{_names(row)['ticket']} - dense", row["ticket - dense"]) for row in result["generations"]]
    count = len({row["generation"] for row in result["generations"]})
    but = f", but for {', '.join(result['shared'])}" if result["shared"] else ""
    return [*lines, f"{count} disjoint {'ticket' if count == 1 else 'tickets'} tried{but}; {result['ended']}"]


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    dense, rows = result["kinds"]["dense"], result["generations"]
    drawn = {
        _names(row)[kind]: row["kinds"][kind] for row in rows for kind in ("ticket", "reinit") if kind in row["kinds"]
    }
    found = {"Tickets without those before": figure(drawn, dense)}
    if not result["against"]:
        return found
    anew = {
        "dense": dense,
        "ticket drawn anew": result["kinds"]["redrawn"],
        "others drawn anew": result["kinds"]["others"],
    }
    return {"The dense network with weights drawn anew": figure(anew, dense), **found}
