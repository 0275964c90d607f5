"""The learning rate of every step: warm-up, then constant, dropped at given steps, or falling to 0 by a cosine or a line.

Steps count from initialisation, so a ticket that starts at its rewind step takes up the schedule there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from server_side.training import Recipe


def learning_rates(recipe: Recipe, first: int, last: int, *, held: bool = False) -> NDArray[np.float32]:
    """Of the steps first, .., last - 1, `(last - first,)`; `held`: for each the rate of the recipe's last step, as in
    fine-tuning (Renda et al. 2020).

    During warm-up rate * (step + 1) / warmup; then with d = share of the steps after it that are done: constant; step:
    rate * factor^(drops so far); cosine: rate * (1 + cos(pi d)) / 2; linear: rate * (1 - d).
    """
    steps = np.full(last - first, recipe.steps - 1) if held else np.arange(first, last)
    return (
        recipe.learning_rate * np.where(steps < recipe.warmup, _rising(recipe, steps), _after(recipe, steps))
    ).astype(np.float32)


def _rising(recipe: Recipe, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    return (steps + 1) / max(recipe.warmup, 1)


def _after(recipe: Recipe, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    done = (steps - recipe.warmup) / (recipe.steps - recipe.warmup)
    if recipe.schedule == "step":
        return float(recipe.factor) ** np.searchsorted(np.array(recipe.drops), steps, side="right").astype(np.float64)
    if recipe.schedule == "cosine":
        return (1 + np.cos(np.pi * done)) / 2
    if recipe.schedule == "linear":
        return 1 - done
    return np.ones(len(steps))
