"""Where the masks of a round come from, for every `--method`; how they are structured is said apart from it.

    iterative, oneshot                              magnitudes of trained weights: of the round before, or of the dense network
    random, magnitude, snip, grasp, synflow         scores of the weights of the rewind step, without training
    early-bird                                      magnitudes of the dense network as soon as its mask has settled
    rigl, gradual, l1, gates                        a training of its own in which the mask moves, or weights go to 0

Whatever finds a mask, tickets and controls are then trained alike (search.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from export.network import Network
from server_side import option_rules, scores, structures
from server_side.controls import Values, apply_masks, shuffle_masks
from server_side.data import Split
from server_side.early_bird import EarlyBird
from server_side.ladder import ALL, Ladder
from server_side.moving import Moving
from server_side.prune import Masks, Scores, keep_highest, live_count
from server_side.regrow import erk_counts
from server_side.seeds import BatchOrder, derive
from server_side.training import Job, Training
from server_side.units import without_readers

SCORED, MOVING = option_rules.AT_REWIND_STEP, option_rules.MOVING
SYNFLOW_ITERATIONS = 100
SAMPLES_A_CLASS = 10  # that snip and grasp look at, as in Wang et al. 2020
CHECKS = 40  # of the mask of an early bird, in a training


class Keeper:
    """Turns scores into masks with the live weights of a round of `ladder`, in groups where `structure` says so."""

    def __init__(self, network: Network, ladder: Ladder, structure: str) -> None:
        self.network, self.ladder = network, ladder
        self.inputs, self.has_units = int(structure.partition(":")[2] or 0), structure == "rows"  # m of N:M, or 0
        self.groups: structures.Groups | None = None
        if structure != "none" and not self.inputs:
            self.groups = structures.groups_of(network, cast("structures.Structure", structure))

    def keep(self, found: Scores, masks: Masks, number: int, part: float = 1.0) -> Masks:
        """Of the weights live in `masks` those with the highest scores, as many as round `number` leaves; before `part` 1
        more: the logarithm of their share has come that part of the way."""
        if self.inputs:
            n = self.inputs - round(number * part)
            layers = tuple(self.ladder.shapes)
            return structures.keep_n_of_m(found, masks, n, self.inputs, layers) if n < self.inputs else masks
        if self.has_units:
            found, masks = structures.whole_rows(found, masks)
        dense, rung = self.ladder.rungs[0], self.ladder.rungs[number]
        for pool, goal in rung.items():
            layers = tuple(self.ladder.shapes) if pool == ALL else (pool,)
            wanted = round(dense[pool] * (goal / dense[pool]) ** part)
            live = min(wanted, live_count(masks, layers))  # of groups fewer may be live already
            if self.groups is None:
                masks = keep_highest(found, masks, live, layers)
            else:
                masks = structures.keep_highest_groups(found, masks, self.groups, live, layers)
        return without_readers(self.network, masks) if self.has_units else masks

    def shuffled(self, masks: Masks, number: int, random: np.random.Generator) -> Masks:
        """The control's masks: as many live weights in every layer of round `number`, elsewhere, in the same structure."""
        if self.inputs:
            anywhere = {name: random.random(mask.shape) for name, mask in masks.items()}
            return self.keep(anywhere, self.all_live(), number)
        if self.groups is None:
            return shuffle_masks(masks, random)
        if self.has_units:
            _, masks = structures.whole_rows({}, masks)
        shuffled = {}
        for name, mask in masks.items():
            _, first = np.unique(self.groups[name], return_index=True)
            shuffled[name] = random.permutation(mask.ravel()[first])[self.groups[name]]
        return without_readers(self.network, shuffled) if self.has_units else shuffled

    def all_live(self) -> Masks:
        """The masks of the dense network."""
        shapes = {**self.ladder.shapes, **self.ladder.followers}
        return {name: np.ones(shape, np.bool_) for name, shape in shapes.items()}


def by_magnitude(keeper: Keeper, weights: Values, masks: Masks, number: int) -> Masks:
    """The largest of the live weights."""
    return keeper.keep({name: np.abs(weights[name]) for name in masks}, masks, number)


def by_score(
    method: str,
    keeper: Keeper,
    module: nn.Module,
    batches: scores.Batches,
    weights: Values,
    seed: int,
    number: int,
) -> Masks:
    """The highest scores at `weights`, of all weights; synflow scores anew after each of a hundred small cuts."""
    masks, cuts = keeper.all_live(), SYNFLOW_ITERATIONS if method == "synflow" else 1
    for cut in range(1, cuts + 1):
        found = scores.score(cast("scores.Criterion", method), module, weights, masks, batches, seed=seed)
        masks = keeper.keep(found, masks, number, cut / cuts)
    return masks


def check_flow(module: nn.Module, keeper: Keeper, batches: scores.Batches, weights: Values, *, trained: bool) -> None:
    """Raises UsageError where synflow finds no flow through a network that starts with `weights`. What is 0 throughout, like
    the scales of residual branches in some initialisations, counts as 1 if it is `trained` before it is scored."""
    if trained:
        weights = {name: value if value.any() else np.ones_like(value) for name, value in weights.items()}
    scores.score("synflow", module, weights, keeper.all_live(), batches, seed=0)


def at_random(keeper: Keeper, seed: int, number: int) -> Masks:
    """As many live weights as round `number` leaves, anywhere; nested over rounds."""
    masks = keeper.all_live()
    return keeper.keep(scores.random(masks, derive(seed, "anywhere")), masks, number)


def early_bird(keeper: Keeper, dense: Training, number: int) -> EarlyBird:
    """What an early bird that checked the dense training one time after another had seen; where its mask never settled,
    that of the last."""
    bird = EarlyBird(lambda weights: by_magnitude(keeper, weights, keeper.all_live(), number))
    for step in early_bird_checks(dense.steps.tolist()):
        if bird.check(step, dense.snapshots[step]):
            break
    return bird


def early_bird_checks(evaluations: Sequence[int]) -> tuple[int, ...]:
    """Which evaluations look at the mask: at most CHECKS, evenly spread, the start not among them."""
    every = -(-(len(evaluations) - 1) // CHECKS)
    return tuple(evaluations[every::every])


def moving_job(
    method: str,
    keeper: Keeper,
    start: Values,
    seed: int,
    number: int,
    strength: float,
) -> Job:
    """The training that finds a mask of round `number`, from the weights `start`. RigL begins with places at random, by the
    densities of Erdos-Renyi-kernel where one quota holds for all layers."""
    ladder, masks = keeper.ladder, keeper.all_live()
    if method == "rigl":
        rung: Mapping[str, int] = ladder.rungs[number]
        if ladder.is_global:
            rung = erk_counts(ladder.shapes, rung[ALL] / ladder.rungs[0][ALL])
        found = scores.random(masks, derive(seed, "rigl", number))
        for name, live in rung.items():
            masks = keep_highest(found, masks, live, (name,))
    moving = Moving(method, ladder.rungs[number], tuple(ladder.shapes), strength)
    return Job(seed, "mask", 0, apply_masks(start, masks), masks, moving=moving)


def score_batches(split: Split, seed: int, batch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Training samples for snip and grasp, SAMPLES_A_CLASS a class on average, in batches."""
    classes = int(split.y_train.max()) + 1
    order = BatchOrder(derive(seed, "scores"), len(split.x_train), batch)
    wanted = min(order.steps_per_epoch, -(-SAMPLES_A_CLASS * classes // batch))
    rows = [order.indices(step) for step in range(wanted)]
    return [(torch.from_numpy(split.x_train[index]), torch.from_numpy(split.y_train[index])) for index in rows]
