"""Which weights to remove: exactly n of the smallest live magnitudes, by layer or over all layers.

n is `round(fraction * live)` (ties to even), as in the authors' code. Tie rule: among equal magnitudes the weight with
the lower position (layer order, then row-major) goes first. Layers outside `fractions` are neither pruned nor counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Masks = dict[str, NDArray[np.bool_]]
Weights = Mapping[str, NDArray[np.float32]]


class LayerCollapse(Exception):
    """A layer would lose its last live weight; the text names it."""


def prune_layerwise(weights: Weights, masks: Masks, fractions: Mapping[str, float]) -> Masks:
    """Removes `fractions[name]` of the live weights of each layer."""
    pruned = dict(masks)
    for name, fraction in fractions.items():
        pruned[name] = _without_smallest(weights[name], masks[name], removed_count(int(masks[name].sum()), fraction))
    return _checked(pruned)


def prune_global(weights: Weights, masks: Masks, fraction: float, layers: tuple[str, ...]) -> Masks:
    """Removes `fraction` of the live weights of `layers` taken together; others keep theirs and do not count."""
    sizes = [masks[name].size for name in layers]
    flat_mask = np.concatenate([masks[name].ravel() for name in layers])
    flat_weights = np.concatenate([weights[name].ravel() for name in layers])
    kept = _without_smallest(flat_weights, flat_mask, removed_count(int(flat_mask.sum()), fraction))
    parts = np.split(kept, np.cumsum(sizes)[:-1])
    return _checked(
        {**masks, **{name: part.reshape(masks[name].shape) for name, part in zip(layers, parts, strict=True)}}
    )


def removed_count(live: int, fraction: float) -> int:
    """How many of `live` weights one round removes."""
    return round(fraction * live)


def _without_smallest(weights: NDArray[np.float32], mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    live = np.flatnonzero(mask)
    by_magnitude = live[np.argsort(np.abs(weights.ravel()[live]), kind="stable")]
    kept = mask.copy()
    kept.ravel()[by_magnitude[:count]] = False
    return kept


def _checked(masks: Masks) -> Masks:
    for name, mask in masks.items():
        if not mask.any():
            raise LayerCollapse(f"layer '{name}' would lose its last live weight")
    return masks
