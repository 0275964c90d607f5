"""Which elements a dropout keeps in a step: the choice of the core (core/elementwise.cpp), for runtimes that cannot repeat
their own after a restore.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from device_runtime.engine import Floats

U32, U64 = 2**32 - 1, 2**64 - 1


def dropout_factors(seed: int, step: int, buffer: int, probability: float, shape: tuple[int, ...]) -> Floats:
    """(samples, *sample shape) what the elements are multiplied by, 0 or 1 / (1 - probability); `buffer` is the number of
    the one that the dropout writes."""
    key = (seed * 0x9E3779B97F4A7C15 + step) & U64
    key = ((key ^ (key >> 32)) * 0xD6E8FEB86659FD93 + buffer) & U64
    (mixed_key,) = _mixed(np.array([(key ^ (key >> 32)) & U32], np.uint32))
    places = np.arange(math.prod(shape), dtype=np.uint64).astype(np.uint32).reshape(shape)
    hashes = _mixed(_mixed(places + mixed_key) ^ mixed_key)
    rounded = np.float32(probability)
    scale = np.float32(1) / (np.float32(1) - rounded)
    return np.asarray(np.where(hashes < int(float(rounded) * 2**32), np.float32(0), scale), np.float32)


def _mixed(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A bijection; products wrap."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    return np.asarray(h ^ (h >> np.uint32(16)), np.uint32)
