"""Do tickets carry over to other data? Found on each data set, trained on each, beside the one found there and reinits.

The others are `data`, searched here to the chosen round by the options of the search, without controls, or `runs`, finished
searches of the same network, quotas and seeds; all of them with rewound weights. A ticket is trained by the recipe of the place where it is trained, from the weights
of its own rewind step; its reinit has its mask and fresh weights. Samples must have the same shape. Where the number of classes
differs the output layer does not carry over: its weights are fresh and its mask has the ticket's share of live weights, at random.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from server_side.comparison import chosen_copies, difference, gap, told
from server_side.controls import Values, apply_masks, shuffle_masks
from server_side.errors import UsageError
from server_side.figures import drawn
from server_side.lab import Lab, Place, open_lab
from server_side.prune import Masks
from server_side.rounds import Copies, copies_by_kind, measure
from server_side.search import Search
from server_side.seeds import generator
from server_side.stability import with_rewind_step
from server_side.training import Job


@dataclass(frozen=True)
class Options:
    """The other places; one at least."""

    data: list[str] = field(default_factory=list)
    """other data sets, as find takes them, e.g. '["idx:FASHION"]', or --data+=idx:FASHION for one after another"""
    runs: list[str] = field(default_factory=list)
    """run directories of finished searches on other data"""

    def __post_init__(self) -> None:
        if not (self.data or self.runs):
            raise UsageError("data: name at least one other data set, or a run directory by runs")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    there = places(lab)
    stages = []
    for place in there:
        search = place.search
        if not place.rounds:
            numbers = range(lab.chosen.number + 1)
            trainings, steps = (sum(map(of, numbers)) for of in (search.training_count, search.step_count))
            trainings += (extra := search.extra_training_count())
            steps += extra * search.recipe.steps
            stages.append((f"search on {place.name}", trainings, steps))
        moved, fresh = (count * len(lab.seeds) for count in (len(there) - 1, len(there)))
        steps = fresh * search.recipe.steps + moved * (search.recipe.steps - search.rewind_step)
        stages.append((f"trained on {place.name}", moved + fresh, steps))
    return stages


def places(lab: Lab) -> list[Place]:
    """The search's own data first. Raises UsageError where another has other samples, layers, quotas or seeds, or where tickets
    did not start at the rewind step."""
    finished = [open_lab(Path(run), lab.path.name, None, lab.watch) for run in lab.options.runs]
    for each in (lab, *finished):
        each.check_rewound()
    found: list[Place] = [
        lab,
        *(Place(_searched(lab, data), []) for data in lab.options.data),
        *finished,
    ]
    for number, place in enumerate(found):
        _check_comparable(lab, place)
        if any(place.name == before.name for before in found[:number]):
            raise UsageError(
                f"data '{place.name}' is there twice; name each data set once, the search's own not at all"
            )
    return found


def _searched(lab: Lab, data: str) -> Search:
    """A search on other data, no further than to the chosen round."""
    from server_side.find import prepare

    name = hashlib.sha256(data.encode()).hexdigest()[:12]
    changes: dict[str, Any] = {"data": data, "output_dir": str(lab.path / "searches" / name)}
    controls = dict.fromkeys(("reinits", "same_signs", "shuffles"), 0)
    changes |= {**controls, "stability": False, "until_accuracy_falls": False}
    return prepare(replace(lab.search.options, **changes), lab.watch)


def _check_comparable(lab: Lab, place: Place) -> None:
    ours, theirs = lab.search, place.search
    output = _output_parameters(ours)
    shapes = [
        {n: shape for n, shape in s.model.network.parameter_shapes.items() if n not in output} for s in (ours, theirs)
    ]
    for what, a, b in (
        ("samples of shape", ours.data.input_shape, theirs.data.input_shape),
        ("layers of shapes", *shapes),
        ("seeds", list(ours.seeds), list(theirs.seeds)),
    ):
        if a != b:
            raise UsageError(f"data '{place.name}': {what} {b}, but the search has {a}; take one that agrees")
    number, names = lab.chosen.number, [name for name in ours.ladder.rungs[0] if name not in output]
    rungs = [s.ladder.rungs[number] if number < len(s.ladder.rungs) else {} for s in (ours, theirs)]
    if [rungs[0].get(n) for n in names] != [rungs[1].get(n) for n in names] or (
        place.rounds and len(place.rounds) <= number
    ):
        raise UsageError(
            f"data '{place.name}': its search has no round {number} with as many live weights; search it alike"
        )


def _output_parameters(search: Search) -> tuple[str, ...]:
    network = search.model.network
    return next(tuple(n.params.values()) for n in network.nodes if n.params.get("weight") == network.prunable[-1])


def run(lab: Lab) -> dict[str, Any]:
    there = [place if place.rounds else found_at(lab, place) for place in places(lab)]
    cells: dict[str, dict[str, Any]] = {place.name: {} for place in there}
    dense = {}
    for place in there:
        copies = _trained(lab, there, place)
        known = chosen_copies(place.rounds[0].trainings, "dense", lab.seeds)
        goals = measure(known).validation_accuracy
        dense[place.name] = told(known, goals)
        for number, source in enumerate(there):
            ticket, reinit = copies[number]
            cells[source.name][place.name] = {
                "ticket": told(ticket, goals),
                "reinit": told(reinit, goals),
                "ticket - ticket found there": difference(ticket, copies[there.index(place)][0]),
                "ticket - reinit": difference(ticket, reinit),
            }
    return {"round": lab.chosen.number, "density": lab.chosen.density, "dense": dense, "cells": cells}


def found_at(lab: Lab, place: Place) -> Place:
    """The place with its search run."""
    lab.watch.begin(f"search on {place.name}")
    place.search.directory.create()
    search, _ = with_rewind_step(place.search)
    rounds = search.run(lambda rounds: len(rounds) > lab.chosen.number)
    if len(rounds) <= lab.chosen.number:
        raise UsageError(
            f"data '{place.name}': a layer would lose its last live weight before round {lab.chosen.number}"
        )
    return Place(search, rounds)


def _trained(lab: Lab, there: list[Place], place: Place) -> list[tuple[Copies, Copies]]:
    """On the data of `place` the tickets found on each, and their reinits."""
    identity = json.dumps([[p.search.directory.options, p.search.directory.facts] for p in there], sort_keys=True)
    stage = f"trained-{there.index(place)}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    jobs = list(transfer_jobs(lab, there, place))
    search = place.search
    trained = lab.train(stage, jobs, model=search.model, recipe=search.recipe, split=search.split)
    own = chosen_copies(place.rounds[lab.chosen.number].trainings, "ticket", lab.seeds)
    found = []
    for number, source in enumerate(there):
        kinds = copies_by_kind([job for job in jobs if job.index == number], trained, lab.seeds)
        found.append((own if source is place else kinds["moved"], kinds["reinit"]))
    return found


def transfer_jobs(lab: Lab, there: list[Place], place: Place) -> Iterator[Job]:
    """What is trained on the data of `place`; a job's index is the number of the place where its mask was found."""
    for number, source in enumerate(there):
        for seed in lab.seeds:
            values, masks = carried(source, place, seed, lab.chosen.number)
            if source is not place:
                yield Job(seed, "moved", number, apply_masks(values, masks), masks, place.search.rewind_step)
            fresh = place.fresh(seed, "transfer", "reinit", source.name, place.name)
            yield Job(seed, "reinit", number, apply_masks(fresh, masks), masks)


def carried(source: Place, place: Place, seed: int, number: int) -> tuple[Values, Masks]:
    """The weights of round `number` of `source`, of all positions, and its masks, in the network of `place`."""
    values, masks = source.rewound(seed), source.rounds[number].masks[seed]
    shapes = place.search.model.network.parameter_shapes
    other = [name for name, value in values.items() if value.shape != shapes[name]]
    fresh = place.fresh(seed, "transfer", "output", source.name, place.name) if other else {}
    drawn = generator(seed, "transfer", "output", source.name, place.name)
    resized = {name: _of_share(float(masks[name].mean()), shapes[name]) for name in other if name in masks}
    return {**values, **{name: fresh[name] for name in other}}, {**masks, **shuffle_masks(resized, drawn)}


def _of_share(share: float, shape: tuple[int, ...]) -> np.ndarray:
    """A mask with that share of its places live, its first ones; one at least."""
    size = int(np.prod(shape))
    return (np.arange(size) < max(1, round(share * size))).reshape(shape)


def explain(result: dict[str, Any]) -> list[str]:
    names = list(result["dense"])
    width = max(24, *(len(name) + 2 for name in names))
    head = f"{'found on':<{width}}" + "".join(f"{name:<{width}}" for name in names)
    lines = [
        f"tickets of {result['density']:.2%} of the weights (round {result['round']}); test accuracy when trained on"
    ]
    lines += [head, f"{'(dense)':<{width}}" + "".join(f"{_cell(result['dense'][n]):<{width}}" for n in names)]
    for kind, title in (("ticket", ""), ("reinit", ", reinit")):
        for name in names:
            row = result["cells"][name]
            lines.append(f"{name + title:<{width}}" + "".join(f"{_cell(row[there][kind]):<{width}}" for there in names))
    lines.append("")
    for name in names:
        for there in (n for n in names if n != name):
            cell = result["cells"][name][there]
            lines.append(gap(f"{name} on {there}, ticket - ticket found there", cell["ticket - ticket found there"]))
            lines.append(gap(f"{name} on {there}, ticket - reinit", cell["ticket - reinit"]))
    return lines


def _cell(kind: dict[str, Any]) -> str:
    if kind["accuracy"] is None:
        return "diverged"
    spread = "" if kind["accuracy_std"] is None else f" ±{100 * kind['accuracy_std']:.2f}"
    return f"{kind['accuracy']:.2%}{spread}"


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    """Of each column the lead of each ticket over the reinit of its mask."""
    names = list(result["dense"])
    leads = np.array([[_lead(result["cells"][a][b]) for b in names] for a in names])

    def draw(axes: Any) -> None:
        panel = axes[0, 0]
        reach = float(np.nanmax(np.abs(leads), initial=1e-9))
        panel.pcolormesh(leads, cmap="RdBu", vmin=-reach, vmax=reach)
        for row, column in np.ndindex(leads.shape):
            panel.text(column + 0.5, row + 0.5, f"{leads[row, column]:+.2f}", ha="center", va="center")
        panel.set_xticks(np.arange(len(names)) + 0.5, names)
        panel.set_yticks(np.arange(len(names)) + 0.5, names)
        panel.invert_yaxis()
        panel.set_xlabel("trained on")
        panel.set_ylabel("found on")
        panel.grid(visible=False)

    return {"Ticket - reinit of its mask, points of test accuracy": drawn(draw)}


def _lead(cell: dict[str, Any]) -> float:
    mean = cell["ticket - reinit"]["accuracy"]["mean"]
    return float("nan") if mean is None else 100 * mean
