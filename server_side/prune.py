"""Which weights to remove: exactly n of the live ones with the lowest scores, by layer or over all layers.

A score is a magnitude, or what scores.py gives: high stays. A round removes `round(fraction * live)` (ties to even), as in
the authors' code. Tie rule: among equal scores the weight with the lower position (layer order, then row-major) goes
first. What is pruned never comes back; layers that are not named are neither pruned nor counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError

Masks = dict[str, NDArray[np.bool_]]
Weights = Mapping[str, NDArray[np.float32]]
Scores = Mapping[str, NDArray[np.floating[Any]]]


class LayerCollapse(Exception):
    """A layer would lose its last live weight; the text names it."""


def keep_highest(scores: Scores, masks: Masks, live: int, layers: tuple[str, ...]) -> Masks:
    """Leaves the `live` weights with the highest scores of `layers` taken together. Signs of scores count. Raises
    LayerCollapse where a layer would be left empty, UsageError where fewer are live already."""
    count = excess(masks, live, layers)
    flat_mask = np.concatenate([masks[name].ravel() for name in layers])
    flat_scores = np.concatenate([scores[name].ravel() for name in layers])
    candidates = np.flatnonzero(flat_mask)
    flat_mask[candidates[np.argsort(flat_scores[candidates], kind="stable")[:count]]] = False
    return checked({**masks, **split(flat_mask, masks, layers)})


def removed_count(live: int, fraction: float) -> int:
    """How many of `live` weights one round removes."""
    return round(fraction * live)


def live_count(masks: Masks, layers: tuple[str, ...]) -> int:
    """Live weights of `layers`."""
    return sum(int(masks[name].sum()) for name in layers)


def excess(masks: Masks, live: int, layers: tuple[str, ...]) -> int:
    """How many weights `layers` have beyond `live`; raises UsageError where they have fewer."""
    there = live_count(masks, layers)
    if live > there:
        raise UsageError(
            f"layers {', '.join(layers)}: {live} live weights asked for, but {there} are live, and what is pruned does not "
            "come back; ask for fewer"
        )
    return there - live


def split(flat: NDArray[np.bool_], masks: Masks, layers: tuple[str, ...]) -> Masks:
    """The masks of `layers`, laid end to end in `flat`, in their shapes."""
    parts = np.split(flat, np.cumsum([masks[name].size for name in layers])[:-1])
    return {name: part.reshape(masks[name].shape) for name, part in zip(layers, parts, strict=True)}


def checked(masks: Masks) -> Masks:
    """The same; raises LayerCollapse where a layer has no live weight."""
    for name, mask in masks.items():
        if not mask.any():
            raise LayerCollapse(f"layer '{name}' would lose its last live weight")
    return masks
