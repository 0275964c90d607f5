"""Early-bird tickets (You et al. 2020): stop training the dense network once the mask it would give has settled.

The distance of two masks is the share of weights on which they differ (normalised Hamming). Training stops at the first
check at which the last five distances between successive masks are all below 0.1. It prunes by what it is given; the
paper prunes channels by the scales of batch norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from server_side.controls import Values
from server_side.prune import Masks

WINDOW = 5
THRESHOLD = 0.1


def mask_distance(first: Masks, second: Masks) -> float:
    """Share of the weights of all layers that are live in one and pruned in the other."""
    different = sum(int((first[name] != second[name]).sum()) for name in first)
    return different / sum(mask.size for mask in first.values())


@dataclass
class EarlyBird:
    """Told the weights now and then, an epoch apart in the paper; `prune` gives the mask of the wanted density.

    Once `stopped` it is a fact: `mask` and `step` are those of the check that settled it, and later checks change nothing.
    """

    prune: Callable[[Values], Masks]
    threshold: float = THRESHOLD
    window: int = WINDOW
    distances: list[float] = field(default_factory=list)
    mask: Masks | None = None
    """Of the last check."""
    step: int | None = None
    stopped: bool = False

    def check(self, step: int, weights: Values) -> bool:
        """Whether training may stop after `step` steps, with these weights."""
        if self.stopped:
            return True
        mask = self.prune(weights)
        if self.mask is not None:
            self.distances.append(mask_distance(self.mask, mask))
        self.mask, self.step = mask, step
        recent = self.distances[-self.window :]
        self.stopped = len(recent) == self.window and max(recent) < self.threshold
        return self.stopped
