"""Masks that move while training: RigL (Evci et al. 2020), gradual pruning (Zhu & Gupta 2017), both at once (GraNet, Liu et
al. 2021), and the densities of layers they start from.

Tensors have a leading axis of replicas, (replicas, *shape); replicas never mix. Counts are exact; among equals the weight
with the lower position goes first, and comes back first. The caller zeroes the moments of weights that were dropped or
grown, and asks for gradients of all weights, not of the live ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from server_side.errors import UsageError

Stack = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
RIGL_FRACTION = 0.3
RIGL_END = 0.75


def update_fraction(step: int, steps: int, first: float = RIGL_FRACTION, end: float = RIGL_END) -> float:
    """The share of a layer's live weights to replace at `step`: a half cosine from `first` to 0 at the share `end` of
    training, 0 from there on."""
    if not 0 < end <= 1:
        raise UsageError(f"end {end} of the mask updates must be a share of training, above 0 and at most 1")
    return first / 2 * (1 + math.cos(math.pi * step / (end * steps))) if step < end * steps else 0.0


def gradual_density(step: int, first_step: int, last_step: int, start: float, end: float) -> float:
    """The density after pruning at `step`: from `start` to `end`, fast at first, as a cube (Zhu & Gupta 2017)."""
    if not first_step < last_step:
        raise UsageError(f"gradual pruning from step {first_step} to {last_step}: it must end later than it starts")
    progress = min(max((step - first_step) / (last_step - first_step), 0.0), 1.0)
    return end + (start - end) * (1 - progress) ** 3


def without_lowest(scores: torch.Tensor, mask: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """`mask` (replicas, *shape) without the `count` (replicas,) live weights with the lowest scores, by the rule of
    prune.py; NaN counts as the highest, so that a replica that diverged keeps its count."""
    return mask & ~_lowest(_finite(scores).where(mask, torch.inf), count)


def with_highest(scores: torch.Tensor, mask: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """`mask` with the `count` weights of the highest scores that are not live."""
    return mask | _lowest((-_finite(scores)).where(~mask, torch.inf), count)


def regrow(
    weights: torch.Tensor, mask: torch.Tensor, gradient: torch.Tensor, fraction: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update of RigL in a layer: the weights and the mask after it, with as many live weights as before.

    Drops `round(fraction * live)` live weights of the smallest magnitude, then grows as many of the largest gradient among
    all that are not live now. What was dropped a moment ago may come back, with its value, as in the authors' code;
    what was not live starts at 0.
    """
    count = torch.round(fraction * mask.flatten(1).sum(1).double()).long()
    kept = without_lowest(weights.abs(), mask, count)
    moved = with_highest(gradient.abs(), kept, count)
    return weights.where(moved & mask, 0.0), moved


def prune_stack(weights: Stack, masks: Stack, live: int, layers: tuple[str, ...]) -> Stack:
    """Masks with the `live` weights of the largest magnitude of `layers` taken together, in every replica; all of
    them where no more are live. A layer may lose its last one: that of a replica that diverged can, so it is not raised."""
    mask = torch.cat([masks[name].flatten(1) for name in layers], 1)
    magnitudes = torch.cat([weights[name].flatten(1) for name in layers], 1).abs()
    kept = without_lowest(magnitudes, mask, mask.sum(1) - live)
    parts = torch.split(kept, [masks[name][0].numel() for name in layers], 1)
    return {**masks, **{name: part.view_as(masks[name]) for name, part in zip(layers, parts, strict=True)}}


def prune_and_regrow(
    weights: Stack, masks: Stack, gradients: Stack, live: int, fraction: float, layers: tuple[str, ...]
) -> tuple[Stack, Stack]:
    """One step of GraNet: prunes `layers` together to `live` weights, then in each regrows a share of what is left."""
    masks = prune_stack(weights, masks, live, layers)
    moved = {name: regrow(weights[name], masks[name], gradients[name], fraction) for name in layers}
    return (
        {**weights, **{name: values for name, (values, _) in moved.items()}},
        {**masks, **{name: mask for name, (_, mask) in moved.items()}},
    )


def erk_counts(shapes: Shapes, density: float) -> dict[str, int]:
    """Live weights of each layer where densities go with the sum of a weight's dimensions over their product
    (Erdos-Renyi-kernel, Evci et al. 2020); a layer that would have more than all is dense. Together exactly `round(density * size)`."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        sums = {name: sum(shape) for name, shape in shapes.items() if name not in dense}
        shares = {name: left * part / sum(sums.values()) for name, part in sums.items()}
        over = {name for name, share in shares.items() if share > sizes[name]}
        if not over:
            return _apportioned({name: shares.get(name, sizes[name]) for name in shapes}, sizes, density)
        dense |= over


def _apportioned(shares: Mapping[str, float], sizes: Mapping[str, int], density: float) -> dict[str, int]:
    """Whole numbers that add up: rounded down, then one more for the largest remainders, the earlier layer of equals."""
    if not 0 < density <= 1:
        raise UsageError(f"density {density} must be above 0 and at most 1")
    counts = {name: min(math.floor(share), sizes[name]) for name, share in shares.items()}
    missing = round(density * sum(sizes.values())) - sum(counts.values())
    by_remainder = sorted((name for name in counts if counts[name] < sizes[name]), key=lambda n: counts[n] - shares[n])
    for name in by_remainder[:missing]:
        counts[name] += 1
    if empty := [name for name, count in counts.items() if count == 0]:
        raise UsageError(f"density {density} leaves '{empty[0]}' without a weight; take a larger one")
    return counts


def _finite(scores: torch.Tensor) -> torch.Tensor:
    largest = torch.finfo(scores.dtype).max
    return scores.nan_to_num(nan=largest, posinf=largest, neginf=-largest)


def _lowest(keys: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """True at the `count` lowest of each replica's keys, the first of equals. Without a sort of them all: a third of the time."""
    counts = torch.as_tensor(count, device=keys.device).reshape(-1, 1).expand(len(keys), 1)
    flat = keys.flatten(1)
    ends = flat.topk(max(int(counts.max()), 1), dim=1, largest=False).values  # ascending
    end = ends.gather(1, (counts - 1).clamp(min=0))
    below, equal = flat < end, flat == end
    room = counts - below.sum(1, keepdim=True)
    return (below | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))).view_as(keys)
