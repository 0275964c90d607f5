"""What a user sees of a search or an experiment, on stderr: the plan before it, one line of progress in it.

round 3/12, 51.4% of the weights, 25 networks: 31%|███   | 4.65k/15.0k [00:31<01:02, 150step/s, accuracy=97.6%, loss=0.083]
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from server_side.options import Options
    from server_side.search import Search

PIPE_SECONDS = 30.0  # between two lines where stderr is not a terminal


class Progress:
    """Follows what `command` trains (training.Watch). Thread-safe; shows nothing when `quiet`."""

    def __init__(self, quiet: bool, command: str = "find") -> None:
        self.quiet, self.command = quiet, command
        self._stop = False
        self._lock = threading.Lock()
        self._bar: Any = None
        self._total = 0

    def show_plan(self, search: Search) -> None:
        """Says what will happen, how much of it, and where."""
        options, recipe, ladder = search.options, search.recipe, search.ladder.live
        rounds = range(len(ladder))
        trainings = sum(search.training_count(number) for number in rounds) + search.extra_training_count()
        self._total = sum(search.step_count(number) for number in rounds)
        self._total += search.extra_training_count() * recipe.steps
        data = search.data
        # What reads a pruned unit is pruned too, beyond the quota.
        or_less = " or less" if options.structure == "rows" else ""
        self._say(
            f"find: {options.model} ({ladder[0]:,} prunable weights) on {data.name}: {len(search.split.x_train):,} samples to train, "
            f"{len(search.split.x_validation):,} to validate, {len(search.split.x_test):,} to test",
            f"      {many(len(ladder) - 1, 'round')} down to {ladder[-1] / ladder[0]:.2%} of the weights{or_less}, "
            f"{many(options.seeds, 'seed')}, {_controls(options)}: {trainings:,} trainings of {recipe.steps:,} steps",
            f"      on {search.device()}, {options.threads} threads{_memory(search)}; run directory {search.directory.path} (Ctrl-C stops, the same command goes on)",
            *(f"find: warning: {warning}" for warning in search.warnings()),
        )

    def show_stages(self, stages: list[tuple[str, int, int]], path: Path) -> None:
        """The same of an experiment whose results go to `path`: for each stage its trainings and steps in all."""
        self._total = sum(steps for _, _, steps in stages)
        told = [f"{trainings:,} trainings, {steps:,} steps: {name}" for name, trainings, steps in stages if trainings]
        self._say(
            f"{self.command}: {'; '.join(told) or 'nothing is trained'}",
            f"{self.command}: directory {path} (Ctrl-C stops, the same command goes on)",
        )

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """The progress line, while the search runs."""
        interval = 0.5 if sys.stderr.isatty() else PIPE_SECONDS
        self._bar = tqdm(
            total=self._total, disable=self.quiet or not self._total, file=sys.stderr, unit="step", unit_scale=True, mininterval=interval,
            maxinterval=2 * interval, dynamic_ncols=True,
        )  # fmt: skip
        try:
            yield
        finally:
            self._bar.close()

    def begin(self, what: str) -> None:
        self._bar.set_description(what, refresh=False)

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        with self._lock:
            if not math.isnan(validation_accuracy):
                self._bar.set_postfix(loss=f"{train_loss:.3f}", accuracy=f"{validation_accuracy:.1%}", refresh=False)
            self._bar.update(replica_steps)

    def stop_requested(self) -> bool:
        return self._stop

    def request_stop(self) -> None:
        self._stop = True
        self._say(f"\n{self.command}: stopping as soon as all is saved; once more to stop at once")

    def _say(self, *lines: str) -> None:
        if not self.quiet:
            print("\n".join(lines), file=sys.stderr)


def _memory(search: Search) -> str:
    from server_side.stack_memory import in_words

    memory = search.stack_memory
    return f", about {in_words(memory.total_bytes)} of memory" if memory else ""


def many(count: int, noun: str) -> str:
    """`1 round`, `12 rounds`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _controls(options: Options) -> str:
    """Those of each ticket."""
    counts = {"reinit": options.reinits, "same-sign": options.same_signs, "shuffle": options.shuffles}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{told} of each ticket" if told else "no controls"
