"""Whether tickets are stable, and from which step on: trainings from the same weights under another order of the samples.

Frankle et al. 2020: a network is stable where two such trainings end in one valley, as connectivity.py measures it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from server_side import connectivity, methods
from server_side.controls import apply_masks
from server_side.errors import UsageError
from server_side.prune import LayerCollapse, Masks
from server_side.rounds import Round, dense_training
from server_side.search import Search
from server_side.training import Job, Training
from server_side.verdict import STABLE_BELOW

REWIND_DENSITY = 0.2
Part = tuple[torch.Tensor, torch.Tensor]


def of_tickets(search: Search, r: Round) -> NDArray[np.float64]:
    """(seeds,) the instability of the tickets of a round, by the test part: each is trained once more from its weights, with
    another order of the samples."""
    starts = {seed: apply_masks(r.start[seed], r.masks[seed]) for seed in search.seeds}
    held = search.options.retrain == "fine-tune"
    jobs = [
        Job(s, "again", 0, starts[s], r.masks[s], search.rewind_step, (), held, 1, keeps_weights=True)
        for s in search.seeds
    ]
    trained = search.train_round(r.number, jobs)
    ends = [(r.trainings[f"seed{job.seed}-ticket"], trained[job.name]) for job in jobs]
    return _instability(search, ends, (torch.from_numpy(search.split.x_test), torch.from_numpy(search.split.y_test)))


def with_rewind_step(search: Search) -> tuple[Search, dict[int, NDArray[np.float64]]]:
    """The same search with the first of the candidates at which tickets are stable, or the last; and the instability of each
    seed at those that were looked at; none where the step was given.

    Of tickets with about REWIND_DENSITY of the weights, pruned in one shot; by the validation part, so that the test part
    decides nothing. Frankle et al. 2020 find stability there to go with matching tickets.
    """
    if not search.rewind_candidates:
        return search, {}
    first = search.dense_round()
    masks = rewind_masks(search, first)
    part = torch.from_numpy(search.split.x_validation), torch.from_numpy(search.split.y_validation)
    found: dict[int, NDArray[np.float64]] = {}
    for position, step in enumerate(search.rewind_candidates):
        found[step] = _instability(search, _twice(search, first, masks, position, step), part)
        if found[step].mean() < STABLE_BELOW:
            break
    return replace(search, rewind_step=step), found


def rewind_masks(search: Search, first: Round) -> dict[int, Masks]:
    """By seed: those of the tickets by which the rewind step is found, from the dense round `first`."""
    number = int(np.argmin([abs(density - REWIND_DENSITY) for density in search.ladder.densities]))
    whole = search.keeper.all_live()
    finals = {seed: dense_training([first], seed).final for seed in search.seeds}
    try:
        return {s: methods.by_magnitude(search.keeper, finals[s], whole, number) for s in search.seeds}
    except LayerCollapse as collapse:
        raise UsageError(f"rewind_step auto: {collapse} in one cut to {REWIND_DENSITY:.0%}; name a step") from collapse


def _twice(
    search: Search, first: Round, masks: dict[int, Masks], position: int, step: int
) -> list[tuple[Training, Training]]:
    """The ends of two trainings, with two orders of the samples, of every seed's ticket from the weights of `step`."""
    jobs = []
    for seed in search.seeds:
        weights = dense_training([first], seed).snapshots[step]
        start = apply_masks(weights, masks[seed])
        twice = [Job(seed, "rewind", 2 * position + i, start, masks[seed], step, order=i) for i in (0, 1)]
        jobs += [replace(job, keeps_weights=True) for job in twice]
    trained = search.train_round(0, jobs)
    return [(trained[a.name], trained[b.name]) for a, b in zip(jobs[::2], jobs[1::2], strict=True)]


def _instability(search: Search, ends: list[tuple[Training, Training]], part: Part) -> NDArray[np.float64]:
    """Of each pair of trainings; 1, the most there is, where one of them diverged."""
    module, (x, y) = search.model.factory(), (side.to(search.device()) for side in part)
    samples = connectivity.samples_at_once(module, x)
    error = connectivity.classification_error(module, x, y, min(samples, connectivity.EVALUATION_BATCH))
    networks = max(1, samples // connectivity.EVALUATION_BATCH)

    def of(one: Training, other: Training) -> float:
        if one.diverged_step is not None or other.diverged_step is not None:
            return 1.0
        line = connectivity.along_line(one.final, other.final, error, device=search.device(), at_once=networks)
        return connectivity.instability(line)

    return np.array([of(one, other) for one, other in ends])
