"""Paired comparisons over seeds: Student intervals, one-sided t tests, Holm's correction.

Every input is one number a seed, a difference of two networks of that seed; NaN (a control that diverged) is left out.
The seeds are the sample; the test part is the same for all, so nothing here speaks of other test parts. With fewer than
two numbers there is no interval and no p-value, only None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # of the two-sided interval of a single figure
ROUNDING = 1e-12  # a spread below this, of the largest number, is rounding


def interval(
    values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float, float | None, float | None]:
    """Mean and the ends of its two-sided interval over the values that are not NaN; without any the mean is NaN, with
    fewer than two the ends are None."""
    from scipy.special import stdtrit  # scipy takes a while to import: only here

    there = _there(values)
    mean = float(there.mean()) if len(there) else float("nan")
    if len(there) < 2:
        return mean, None, None
    half = float(stdtrit(len(there) - 1, (1 + confidence) / 2) * there.std(ddof=1) / np.sqrt(len(there)))
    return mean, mean - half, mean + half


def estimate(values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Mean, ends of its interval and the value of each seed, as JSON: None for NaN."""
    mean, low, high = interval(values, confidence)
    by_seed = [known(float(value)) for value in np.asarray(values, np.float64)]
    return {"mean": known(mean), "low": low, "high": high, "by_seed": by_seed}


def share(hits: int, count: int, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """The share of `hits` among `count` with its exact interval (Clopper & Pearson 1934), as JSON."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return {"mean": hits / count, "low": low, "high": high, "hits": hits, "count": count}


def p_above(differences: Sequence[float] | NDArray[np.float64], bound: float) -> float | None:
    """The p-value of Student's one-sided t test of "the mean is at most `bound`" against "it is above".

    Where all differences are the same the limit is taken: 0 above the bound, 1 at or below it.
    """
    from scipy.special import stdtr

    there = _there(differences)
    if len(there) < 2:
        return None
    gap, spread = float(there.mean() - bound), float(there.std(ddof=1))
    if spread <= _rounding(there):
        return 0.0 if gap > _rounding(there) else 1.0
    return float(stdtr(len(there) - 1, -gap / (spread / np.sqrt(len(there)))))


def p_below(differences: NDArray[np.float64], bound: float) -> float | None:
    """The same of "the mean is at least `bound`" against "it is below"."""
    return p_above(-differences, -bound)


def p_equivalent(differences: NDArray[np.float64], margin: float) -> float | None:
    """Two one-sided tests (Schuirmann 1987) of "the mean is `margin` or more from 0": the larger of their p-values."""
    above, below = p_above(differences, -margin), p_below(differences, margin)
    return None if above is None or below is None else max(above, below)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values (Holm 1979), in the given order: those of at most alpha can be called significant together, and
    any wrongly so with a probability of at most alpha, however they depend on each other. None counts as 1 and stays None.
    """
    order = sorted(range(len(p_values)), key=lambda i: _certain(p_values[i]))
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * _certain(p_values[i])))
        adjusted[i] = None if p_values[i] is None else largest
    return adjusted


def has_no_spread(differences: NDArray[np.float64]) -> bool:
    """Whether two seeds or more have the same difference, down to rounding: a t test then claims more than can be known."""
    there = _there(differences)
    return len(there) > 1 and float(there.std(ddof=1)) <= _rounding(there)


def known(value: float) -> float | None:
    """As JSON: None for NaN."""
    return None if np.isnan(value) else value


def _certain(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value


def _rounding(values: NDArray[np.float64]) -> float:
    return ROUNDING * max(1.0, float(np.abs(values).max()))


def _there(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array[~np.isnan(array)]
