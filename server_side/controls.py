"""The controls of a ticket: the same sparse network with other weights, and the same weights on another mask.

A ticket that does not beat both has not won anything: reinit shows whether the initial weights matter, shuffle whether
the places of the live weights do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from server_side.prune import Masks

Values = dict[str, NDArray[np.float32]]


def apply_masks(values: Values, masks: Masks) -> Values:
    """Pruned weights exactly +0, every other value bit for bit; parameters without a mask unchanged."""
    return {
        name: np.where(masks[name], value, np.float32(0)) if name in masks else value for name, value in values.items()
    }


def shuffle_masks(masks: Masks, generator: np.random.Generator) -> Masks:
    """Each layer's mask permuted at random: the density of every layer stays, the places do not."""
    return {name: generator.permutation(mask.ravel()).reshape(mask.shape) for name, mask in masks.items()}


def moved_onto(values: Values, masks: Masks, places: Masks, generator: np.random.Generator) -> Values:
    """The live weights of `masks`, each layer's in random order, at `places`, of which there are as many, or nearly (where units
    were shuffled that are added to each other): then some are left over, or used twice. Pruned ones 0."""
    moved = dict(values)
    for name, mask in masks.items():
        moved[name] = np.zeros_like(values[name])
        moved[name][places[name]] = np.resize(generator.permutation(values[name][mask]), int(places[name].sum()))
    return moved


def with_signs_of(fresh: Values, values: Values, names: Iterable[str]) -> Values:
    """`fresh` with the signs that the weights `names` have in `values` (Zhou et al. 2019); where one is 0 it has none."""
    signed = {name: np.copysign(fresh[name], values[name]) * (values[name] != 0) for name in names}
    return {**fresh, **signed}
