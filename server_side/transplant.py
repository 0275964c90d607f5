"""Weights moved between networks: some places of one take the values of another, everything else stays bit for bit.

Places are masks, by layer; a layer without one is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server_side.controls import Values
from server_side.prune import Masks


def transplanted(values: Values, donor: Values, places: Masks) -> Values:
    """`values` with those of `donor` at `places`."""
    return {
        name: np.where(places[name], donor[name], value) if name in places else value for name, value in values.items()
    }


def other_places(masks: Masks, generator: np.random.Generator) -> Masks:
    """As many places of each layer at random among those that `masks` leaves; all of them where it leaves fewer."""
    return {name: _drawn(~mask, int(mask.sum()), generator) for name, mask in masks.items()}


def _drawn(free: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    candidates = np.flatnonzero(free)
    drawn = np.zeros(free.size, np.bool_)
    drawn[generator.permutation(candidates)[:count]] = True
    return drawn.reshape(free.shape)


def planted(soil: Values, tickets: Sequence[tuple[Values, Masks]]) -> tuple[Values, Masks]:
    """`soil` with the live weights of `tickets`, and their places. Where two claim a place, the earlier one has it."""
    taken = {name: np.zeros(mask.shape, np.bool_) for name, mask in tickets[0][1].items()}
    for values, masks in tickets:
        free = {name: mask & ~taken[name] for name, mask in masks.items()}
        soil = transplanted(soil, values, free)
        taken = {name: taken[name] | free[name] for name in taken}
    return soil, taken


def scattered(values: Values, places: Masks, generator: np.random.Generator) -> tuple[Values, Masks]:
    """The values at `places`, each layer's shuffled over the whole layer, and where they are then: the same numbers, no
    longer where they were found."""
    orders = {name: generator.permutation(mask.size) for name, mask in places.items()}

    def shuffled(array: np.ndarray, name: str) -> np.ndarray:
        moved: np.ndarray = array.ravel()[orders[name]].reshape(array.shape)
        return moved

    return (
        {name: shuffled(value, name) if name in places else value for name, value in values.items()},
        {name: shuffled(mask, name) for name, mask in places.items()},
    )
