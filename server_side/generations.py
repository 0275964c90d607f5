"""Tickets one after another, each found in what the tickets before it left of the large network, so that no two share a weight.

By one-shot magnitude pruning of the dense training of what is left, with as many weights in each layer as the first ticket,
trained from the weights of the rewind step. Says where a layer has too few weights left for one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from server_side.controls import Values, apply_masks
from server_side.ladder import first_match, layer_of
from server_side.prune import Masks, keep_highest
from server_side.rounds import Copies, copies_by_kind
from server_side.training import Job

if TYPE_CHECKING:
    from server_side.lab import Lab


class Exhausted(Exception):
    """A layer has fewer weights left than a ticket takes; the text names it."""


@dataclass(frozen=True)
class Generation:
    """A ticket of each seed: its masks, those of the large network it was found in, and what was trained: `large`, `ticket`
    and `reinit`."""

    number: int
    large: dict[int, Masks]
    masks: dict[int, Masks]
    copies: dict[str, Copies]


def later_generations(lab: Lab, shared: Sequence[str] = ()) -> Iterator[Generation]:
    """The second, third ... generation after the search's own tickets. All may use the weights of layers that fit a pattern
    of `shared`. Raises Exhausted, and UsageError where a network diverges."""
    number, taken = 2, {seed: claimed(masks, shared) for seed, masks in lab.chosen.masks.items()}
    while True:
        everything = lab.search.keeper.all_live()
        large = {seed: {name: everything[name] & ~mask for name, mask in taken[seed].items()} for seed in lab.seeds}
        _check_enough(lab, large)
        generation = _generation(lab, number, large)
        yield generation
        for seed, masks in generation.masks.items():
            taken[seed] = {name: taken[seed][name] | mask for name, mask in claimed(masks, shared).items()}
        number += 1


def claimed(masks: Masks, shared: Sequence[str]) -> Masks:
    """The weights that no later ticket may use."""
    return {name: mask & (first_match(layer_of(name), shared) is None) for name, mask in masks.items()}


def largest(weights: Values, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Of each layer the so many largest of its weights that are live in `masks`."""
    magnitudes = {name: np.abs(weights[name]) for name in masks}
    for name, count in counts.items():
        masks = keep_highest(magnitudes, masks, count, (name,))
    return masks


def one_shot_jobs(lab: Lab) -> Iterator[Job]:
    """Tickets found like those of later generations, in the whole dense network."""
    everything = lab.search.keeper.all_live()
    for seed in lab.seeds:
        masks = largest(lab.rounds[0].trainings[f"seed{seed}-dense"].final, everything, _counts(lab, seed))
        yield Job(seed, "ticket", 0, apply_masks(lab.rewound(seed), masks), masks, lab.search.rewind_step)


def _counts(lab: Lab, seed: int) -> dict[str, int]:
    """Live weights of each layer of the search's ticket."""
    return {name: int(mask.sum()) for name, mask in lab.chosen.masks[seed].items()}


def _check_enough(lab: Lab, large: dict[int, Masks]) -> None:
    for seed, masks in large.items():
        for name, count in _counts(lab, seed).items():
            if (left := int(masks[name].sum())) < count:
                raise Exhausted(
                    f"layer '{layer_of(name)}' has {left} weights left of seed {seed}, a ticket takes {count}"
                )


def _generation(lab: Lab, number: int, large: dict[int, Masks]) -> Generation:
    step, seeds = lab.search.rewind_step, lab.seeds
    initial = {seed: apply_masks(lab.rounds[0].start[seed], large[seed]) for seed in seeds}
    kept = (step,) if step else ()
    jobs = [Job(seed, "dense", 0, initial[seed], large[seed], snapshot_steps=kept) for seed in seeds]
    dense = lab.train(f"generation-{number}-large", jobs)
    found = {seed: dense[f"seed{seed}-dense"] for seed in seeds}
    masks = {seed: largest(found[seed].final, large[seed], _counts(lab, seed)) for seed in seeds}
    jobs = []
    for seed in seeds:
        start = found[seed].snapshots[step] if step else initial[seed]
        fresh = lab.fresh(seed, "generations", "reinit", number)
        jobs.append(Job(seed, "ticket", 0, apply_masks(start, masks[seed]), masks[seed], step))
        jobs.append(Job(seed, "reinit", 0, apply_masks(fresh, masks[seed]), masks[seed]))
    trained = copies_by_kind(jobs, lab.train(f"generation-{number}-ticket", jobs), seeds)
    return Generation(number, large, masks, {"large": [[found[seed]] for seed in seeds], **trained})
