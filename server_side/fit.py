"""Does a ticket fit a device: the bytes of its artifact, the memory to train it, the time of a step.

Bytes are exact, as `device_runtime inspect` counts them; the time of a step is measured here, on one thread, and so differs
from run to run. A training batch is halved as often as the memory asks for.
"""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from device_runtime import Trainer, inspect
from export.compact import compact
from export.ticket import Ticket
from export.to_native import to_native_bytes
from server_side.errors import UsageError

UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
STEPS = 31  # timed, after WARM others
WARM = 5


@dataclass(frozen=True)
class Limits:
    """What a device has; None where that does not matter."""

    artifact_bytes: int | None = None
    arena_bytes: int | None = None
    step_ms: float | None = None

    def __str__(self) -> str:
        limits = ("fit_bytes", self.artifact_bytes), ("fit_arena", self.arena_bytes), ("fit_step_ms", self.step_ms)
        return ", ".join(f"{name} {limit:,}" for name, limit in limits if limit is not None)

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.artifact_bytes, self.arena_bytes, self.step_ms))


@dataclass(frozen=True)
class Footprint:
    """What a ticket takes there, trained with `batch` samples a step; the time only where it was asked for."""

    batch: int
    artifact_bytes: int
    arena_bytes: int
    step_ms: float | None = None

    def fits(self, limits: Limits) -> bool:
        pairs = (
            (self.artifact_bytes, limits.artifact_bytes),
            (self.arena_bytes, limits.arena_bytes),
            (self.step_ms, limits.step_ms),
        )
        return all(limit is None or (taken is not None and taken <= limit) for taken, limit in pairs)

    def __str__(self) -> str:
        time = "" if self.step_ms is None else f", {self.step_ms:.3g} ms a step"
        return f"{self.artifact_bytes:,} bytes, {self.arena_bytes:,} of memory with batches of {self.batch}{time}"

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def footprint(ticket: Ticket, limits: Limits) -> Footprint:
    """Of the artifact that `python -m export` makes of it, with the largest batch, the recipe's or that halved, that
    `limits` have memory and time for; else with a batch of one."""
    artifact = to_native_bytes(compact(ticket))
    batch = int(ticket.card["recipe"]["batch"])
    while True:
        arena = int(inspect(artifact, batch=batch)["arena_bytes"])
        found = Footprint(batch, len(artifact), arena)
        if limits.step_ms is not None and (limits.arena_bytes is None or arena <= limits.arena_bytes):
            found = replace(found, step_ms=_step_ms(artifact, batch))
        if batch == 1 or found.fits(replace(limits, artifact_bytes=None)):
            return found
        batch //= 2


def parse_bytes(text: str, name: str) -> int:
    """Bytes of `65536`, `64KB` (of 1,024 bytes each) or `1.5MB`; raises UsageError naming the option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?B|)", text.strip(), re.IGNORECASE)
    count = round(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if count < 1:
        raise UsageError(f"{name} '{text}': expected bytes like 65536, 64KB or 1.5MB")
    return count


def _step_ms(artifact: bytes, batch: int) -> float:
    """The median of STEPS steps."""
    random = np.random.default_rng(0)
    with Trainer.open(artifact, batch=batch, threads=1) as trainer:
        x = random.standard_normal((batch, *trainer.info.input_shape)).astype(np.float32)
        y = random.integers(0, trainer.info.class_count, batch).astype(np.int32)
        times = []
        for _ in range(WARM + STEPS):
            begun = time.perf_counter()
            trainer.train_step(x, y)
            times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[WARM:])
