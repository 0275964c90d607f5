"""Initial weights from a seed alone, as the core draws them on every target; refuses numbers that are no distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_runtime import _core
from device_runtime.errors import InvalidInput

DISTRIBUTIONS = {"constant": 0, "uniform": 1, "normal": 2}


def draw(seed: int, stream: int, kind: str, a: float, b: float, count: int, *, first: int = 0) -> NDArray[np.float32]:
    """(count,) elements first, first + 1, ... of stream `stream` of a u64 `seed`: each a pure function of its number.

    `kind`: constant (`a`, with b = 0), uniform (from a to b) or normal (mean a, standard deviation b), a and b in float32.
    Raises InvalidInput. Source: export/FORMAT.md, Drawn values.
    """
    if kind not in DISTRIBUTIONS:
        raise InvalidInput(f"distribution {kind!r}: take one of {', '.join(DISTRIBUTIONS)}")
    for name, value, limit in (
        ("seed", seed, 2**64),
        ("stream", stream, 2**32),
        ("first", first, 2**32),
        ("count", count, 2**32),
    ):
        if not 0 <= value < limit:
            raise InvalidInput(f"{name} {value}: must be at least 0 and below {limit}")
    return _core.draw(seed, stream, DISTRIBUTIONS[kind], a, b, first, count)
