"""Trainings that find a mask by training: RigL, gradual pruning with regrowth, L1, hard-concrete gates.

Each is what a stack of jobs does besides its updates, on tensors with a leading axis of replicas; the arithmetic is in
regrow.py and gates.py. The mask that a training ends with has exactly the live weights it was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from server_side import gates, regrow
from server_side.ladder import ALL
from server_side.stacked_program import Stack

if TYPE_CHECKING:
    from server_side.training import Recipe

UPDATES = 100  # of a moving mask in a training, at most
STEPS_BETWEEN = (
    10  # two of them at least: an update of the mask stands in for one of the weights, and what grows begins at 0
)
GATE_RATE = 10.0  # learning rate of gates over that of weights


@dataclass(frozen=True)
class Moving:
    """How the masks of a training move. `live`: weights that are live at its end, by layer or of ALL `layers`; `strength`
    of l1 and gates, as Options.regularisation."""

    method: str  # one of MOVERS
    live: Mapping[str, int]
    layers: tuple[str, ...]
    strength: float = 0.0

    def __hash__(self) -> int:
        return hash((self.method, tuple(self.live.items()), self.layers, self.strength))

    @property
    def pools(self) -> list[tuple[tuple[str, ...], int]]:
        """Layers whose weights compete with each other, and how many of them are live at the end."""
        if ALL in self.live:
            return [(self.layers, self.live[ALL])]
        return [((name,), self.live[name]) for name in self.layers]


class Mover:
    """What a stack does besides its updates; this one does nothing, and its masks stay. It is also the program's
    Reparametrisation: here parameters are the network's own."""

    draws = False

    def __init__(self, moving: Moving, recipe: Recipe) -> None:
        self.moving, self.recipe = moving, recipe
        self.every = max(STEPS_BETWEEN, -(-recipe.steps // UPDATES))

    def extra(self, values: Stack) -> Stack:
        """Parameters to train besides the network's own, for a network of these; (replicas, *shape)."""
        return {}

    def in_training(self, values: Stack) -> tuple[Stack, torch.Tensor]:
        """What the network computes with in training, for one replica's parameters, and a penalty to add to its loss."""
        return values, torch.zeros(())

    def plain(self, values: Stack) -> Stack:
        """What the network computes with otherwise: its own parameters and buffers, with or without a replica axis."""
        return values

    def replaces_update(self, step: int, parameters: Stack, masks: Stack, gradients: Stack) -> Stack | None:
        """The masks after step `step`, where it moves them instead of updating the weights; it may write into `parameters`.
        `gradients` are those of all weights."""
        return None

    def after_update(self, rate: float, parameters: Stack) -> None:
        """May write into `parameters` what an update at this learning rate entails."""

    def final_masks(self, values: Stack, masks: Stack) -> Stack:
        """Of a training that has ended."""
        return masks


class Rigl(Mover):
    """Evci et al. 2020: a sparse network that drops its smallest weights and grows where the gradient is largest."""

    def replaces_update(self, step: int, parameters: Stack, masks: Stack, gradients: Stack) -> Stack | None:
        fraction = regrow.update_fraction(step, self.recipe.steps)
        if step == 0 or step % self.every != 0 or fraction == 0:
            return None
        moved = dict(masks)
        for name in self.moving.layers:
            values, mask = regrow.regrow(parameters[name], masks[name].bool(), gradients[name], fraction)
            parameters[name].copy_(values)
            moved[name] = mask.float()
        return moved


class Gradual(Mover):
    """Zhu & Gupta 2017 with the regrowth of GraNet (Liu et al. 2021): from dense to the density asked for, a cube of time."""

    def replaces_update(self, step: int, parameters: Stack, masks: Stack, gradients: Stack) -> Stack | None:
        last = int(regrow.RIGL_END * self.recipe.steps) // self.every * self.every
        if step == 0 or step % self.every != 0 or step > last:
            return None
        weights: Stack = {name: parameters[name] for name in self.moving.layers}
        moved: Stack = {name: masks[name].bool() for name in self.moving.layers}
        for layers, live in self.moving.pools:
            size = sum(masks[name][0].numel() for name in layers)
            now = round(size * regrow.gradual_density(step, 0, last, 1.0, live / size))
            fraction = regrow.update_fraction(step, self.recipe.steps)
            weights, moved = regrow.prune_and_regrow(weights, moved, gradients, max(now, live), fraction, layers)
        for name in self.moving.layers:
            parameters[name].copy_(weights[name])
        return {**masks, **{name: mask.float() for name, mask in moved.items()}}

    def final_masks(self, values: Stack, masks: Stack) -> Stack:
        """Of a training too short for its last cut the rest is cut here."""
        return _largest({name: values[name].abs() for name in self.moving.layers}, masks, self.moving)


class L1(Mover):
    """Training with an L1 penalty by proximal steps: weights that are not needed become exactly 0."""

    def after_update(self, rate: float, parameters: Stack) -> None:
        for name in self.moving.layers:
            parameters[name].copy_(gates.soft_threshold(parameters[name], rate * self.moving.strength))

    def final_masks(self, values: Stack, masks: Stack) -> Stack:
        return _largest({name: values[name].abs() for name in self.moving.layers}, masks, self.moving)


class Gates(Mover):
    """Louizos et al. 2018: every weight times a random gate, and a penalty on the expected share of those that are open."""

    draws = True

    def extra(self, values: Stack) -> Stack:
        return {_gate(name): torch.zeros_like(values[name]) for name in self.moving.layers}

    def in_training(self, values: Stack) -> tuple[Stack, torch.Tensor]:
        size = sum(values[name].numel() for name in self.moving.layers)
        open_gates = torch.stack([gates.expected_l0(values[_gate(name)]).sum() for name in self.moving.layers]).sum()
        drawn = {n: gates.sample_gates(values[_gate(n)], torch.rand_like(values[n])) for n in self.moving.layers}
        return self._gated(values, drawn), self.moving.strength * open_gates / size

    def plain(self, values: Stack) -> Stack:
        return self._gated(values, {name: gates.final_gates(values[_gate(name)]) for name in self.moving.layers})

    def _gated(self, values: Stack, gate: Stack) -> Stack:
        closed = {_gate(name) for name in self.moving.layers}
        weights = {name: value for name, value in values.items() if name not in closed}
        return {**weights, **{name: weights[name] * gate[name] for name in gate}}

    def final_masks(self, values: Stack, masks: Stack) -> Stack:
        return _largest({name: values[_gate(name)] for name in self.moving.layers}, masks, self.moving)


MOVERS = {"rigl": Rigl, "gradual": Gradual, "l1": L1, "gates": Gates}


def mover(moving: Moving, recipe: Recipe) -> Mover:
    """What trains by `moving`."""
    return MOVERS[moving.method](moving, recipe)


def _gate(name: str) -> str:
    return f"gate of {name}"


def _largest(scores: Stack, masks: Stack, moving: Moving) -> Stack:
    """The live weights that were asked for, by score, of equals the higher position."""
    found: Stack = {name: masks[name].bool() for name in moving.layers}
    for layers, live in moving.pools:
        flat = torch.cat([scores[name].flatten(1) for name in layers], 1)
        mask = torch.cat([found[name].flatten(1) for name in layers], 1)
        kept = regrow.without_lowest(flat, mask, mask.sum(1) - live)
        parts = torch.split(kept, [math.prod(scores[name].shape[1:]) for name in layers], 1)
        found |= {name: part.view_as(masks[name]) for name, part in zip(layers, parts, strict=True)}
    return {**masks, **{name: mask.float() for name, mask in found.items()}}
