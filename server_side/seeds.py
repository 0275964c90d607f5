"""Named random streams: one 63-bit seed for every purpose of every replicate.

A stream depends on its name alone, never on what was drawn before or on which replicas share a batch, so a resumed or
regrouped run draws the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose`, e.g. `derive(0, "reinit", 3, 1)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator for `purpose`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))


class BatchOrder:
    """Which samples make up the batch of each step: a fresh permutation an epoch, the last partial batch dropped.

    A pure function of (seed, step): dense, ticket and controls of one seed see the same batches, and a run that goes on
    from a step needs no state. Keeps the permutation of the current epoch only.
    """

    def __init__(self, seed: int, samples: int, batch: int) -> None:
        self.seed, self.samples, self.batch = seed, samples, batch
        self.steps_per_epoch = samples // batch
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """(batch,) sample numbers of step `step`, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = generator(self.seed, "order", epoch).permutation(self.samples)
            self._epoch = epoch
        return self._order[position * self.batch : (position + 1) * self.batch]
