"""The order of samples: `tkt_next_batch` of FORMAT.md in Python, for runtimes that have none of their own.

A four-round Feistel network over the smallest even-bit domain, keyed by splitmix64 (Steele, Lea, Flood 2014) of seed and epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4


@dataclass
class SampleOrder:
    """Where training is: `epoch` epochs are completed, and `position` samples of the present one drawn."""

    seed: int
    epoch: int = 0
    position: int = 0

    def next_batch(self, batch: int, sample_count: int) -> NDArray[np.uint32]:
        """At most `batch` numbers below `sample_count`; fewer at the end of an epoch."""
        if self.position >= sample_count:
            self._turn()
        count = min(batch, sample_count - self.position)
        places = np.arange(self.position, self.position + count, dtype=np.uint64)
        chosen = permuted(places, self.seed, self.epoch, sample_count)
        self.position += count
        if self.position == sample_count:
            self._turn()
        return chosen.astype(np.uint32)

    def _turn(self) -> None:
        self.position, self.epoch = 0, self.epoch + 1


def permuted(places: NDArray[np.uint64], seed: int, epoch: int, sample_count: int) -> NDArray[np.uint64]:
    """Which samples stand at `places` of the epoch's order."""
    half_bits = next(bits for bits in range(1, 17) if bits == 16 or 4**bits >= sample_count)
    state, keys = _splitmix64(_splitmix64(seed) ^ epoch), []
    for _ in range(ROUNDS):
        state = _splitmix64(state)
        keys.append(state)
    numbers = _feistel(places, keys, half_bits)
    while (outside := numbers >= sample_count).any():  # the domain may be larger: walk on until inside
        numbers[outside] = _feistel(numbers[outside], keys, half_bits)
    return numbers


def _feistel(numbers: NDArray[np.uint64], keys: list[int], half_bits: int) -> NDArray[np.uint64]:
    mask, shift = np.uint64(2**half_bits - 1), np.uint64(half_bits)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(np.uint64(key) ^ right) & mask)
    return (left << shift) | right


def _splitmix64(x: int) -> int:
    return int(_mixed(np.array([x], np.uint64))[0])


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of each; products wrap."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
