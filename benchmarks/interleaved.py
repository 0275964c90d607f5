"""Times several contenders in one process, in interleaved rounds, so that a busy machine slows everyone alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

Step = Callable[[int], float]  # of the number of the step; gives its loss, or NaN

BLOCK_SECONDS = 0.02  # a contender runs about this long before the next one's turn
WARM_UP_STEPS = 20


@dataclass
class Entry:
    """One contender and the milliseconds a step it took in each round."""

    step: Step
    block: int = 1
    every: int = 1  # takes part in each `every`-th round
    number: int = 0
    losses: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        self.losses = [self.step(number) for number in range(3)]
        self.number = 3
        started = time.perf_counter()
        while self.number < WARM_UP_STEPS and time.perf_counter() - started < 5 * BLOCK_SECONDS:
            self.step(self.number)
            self.number += 1
        seconds = (time.perf_counter() - started) / max(self.number - 3, 1)
        self.block = max(1, round(BLOCK_SECONDS / seconds))
        self.every = 4 if seconds > BLOCK_SECONDS else 1

    def run_block(self) -> None:
        started = time.perf_counter()
        for number in range(self.number, self.number + self.block):
            self.step(number)
        self.step_ms.append((time.perf_counter() - started) / self.block * 1e3)
        self.number += self.block

    def result(self) -> dict[str, Any]:
        quartiles = quantiles(self.step_ms, n=4) if len(self.step_ms) > 1 else [self.step_ms[0]] * 3
        return {
            "median_ms": median(self.step_ms),
            "quartiles_ms": [quartiles[0], quartiles[2]],
            "rounds": len(self.step_ms),
            "steps_a_round": self.block,
            "first_losses": [loss for loss in self.losses if loss == loss],
        }


def run_interleaved(entries: list[Entry], rounds: int, checked: Callable[[], None] = lambda: None) -> None:
    """Warms everyone up, lets `checked` look at the first losses, and runs the rounds."""
    for entry in entries:
        entry.warm_up()
    checked()
    for number in range(rounds):
        for entry in entries:
            if number % entry.every == 0:
                entry.run_block()
