"""Several workers on one search, e.g. those of torchrun, on one machine or on many with a shared directory.

Every worker runs the same algorithm: of each round it trains what no other has claimed and reads the rest from the run
directory, which is all they share; no tensor is exchanged. A claim is an flock and gone with its process, so what a lost
worker had under way is taken up by another, from its last checkpoint. Should a lock fail, work is done twice, to the same bits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server_side.errors import UsageError
from server_side.training import Interrupted, Job, Watch

LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PULSE_SECONDS = 0.5  # how often a worker looks at what the others do
STOP, TURN = ".stop", ".turn"  # told to all workers; held by the one that writes what only one may write
CLAIM = ".claim"
NAN = float("nan")


@dataclass(frozen=True)
class Worker:
    """Who this process is among the workers of its `launch`: `rank` of `size`, on its machine `local_rank` of `local_size`.
    `is_watched`: by a torchrun, which ends or restarts the others where one exits with anything but 0."""

    launch: str
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    is_watched: bool = False

    @classmethod
    def alone(cls) -> Worker:
        return cls(f"process {os.getpid()} of {platform.node()}")

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Worker:
        """By the variables that torchrun sets; alone where there is no RANK. Raises UsageError naming what is missing."""
        if "RANK" not in environment:
            return cls.alone()
        told = {name: environment.get(name, "") for name in LAUNCH}
        for name, value in told.items():
            if not value or (name not in ("MASTER_ADDR", "MASTER_PORT") and not value.isdecimal()):
                raise UsageError(
                    f"environment {name} '{value}': a worker of several needs {', '.join(LAUNCH)}, as torchrun sets them; set "
                    "all, or none to search alone"
                )
        rank, size, local_rank, local_size = (int(told[name]) for name in LAUNCH[:4])
        if rank >= size or local_rank >= local_size:
            raise UsageError(f"environment RANK {rank} of WORLD_SIZE {size}, LOCAL_RANK {local_rank} of {local_size}")
        place = platform.node() if size == local_size else ""  # on many machines MASTER_ADDR tells them apart
        names = (place, environment.get("TORCHELASTIC_RUN_ID", ""), told["MASTER_ADDR"], told["MASTER_PORT"])
        return cls(" ".join(names), rank, size, local_rank, local_size, "TORCHELASTIC_RUN_ID" in environment)


@dataclass(frozen=True, eq=False)
class Unit:
    """What one worker trains as one: a job, or a stack of jobs. `replica_steps`: of all its jobs."""

    jobs: tuple[Job, ...]
    checkpoint: Path
    replica_steps: int


Claim = Callable[[Unit], contextlib.AbstractContextManager[Watch | None]]
"""Holds a unit for this worker and gives the watch to train it with; None where it is done or another's."""


class Team:
    """What this worker has to do with the others, in the run directory `path`."""

    def __init__(self, path: Path, worker: Worker, watch: Watch) -> None:
        self.path, self.worker, self.watch = path, worker, watch
        self._told_to_stop = False

    def work_off(
        self, units: Sequence[Unit], is_done: Callable[[Unit], bool], train: Callable[[list[Unit], Claim], None]
    ) -> None:
        """Returns when all `units` are done, whoever trained them: `train` those that it can claim, each to be done when its
        claim ends. `is_done` may be asked from any thread. Raises Interrupted where any worker was asked to stop."""
        left = [unit for unit in units if not is_done(unit)]
        others = _Others(self.watch)
        for unit in units:
            if unit not in left:
                others.finished(unit)
        try:
            with self._pulse(left, others):
                while left:
                    train(left, lambda unit: self._claim(unit, is_done, others))
                    for unit in (done := [unit for unit in left if is_done(unit)]):
                        others.finished(unit)
                    left = [unit for unit in left if unit not in done]
                    if left:  # with other workers
                        if self.stop_requested():
                            raise Interrupted
                        time.sleep(PULSE_SECONDS)
        except Interrupted:
            if self.worker.size > 1:
                (self.path / STOP).touch()
            raise

    def stop_requested(self) -> bool:
        """Whether this worker or another was asked to stop."""
        return self._told_to_stop or self.watch.stop_requested()

    @contextlib.contextmanager
    def _claim(self, unit: Unit, is_done: Callable[[Unit], bool], others: _Others) -> Iterator[Watch | None]:
        path = _claim_path(unit)
        with open(path, "a+b", buffering=0) as file:
            if not lock(file) or not _is_there(file, path):  # the one that was is gone with what it claimed
                yield None
                return
            try:
                if is_done(unit):
                    yield None
                    return
                with others.mine(unit, _Claimed(self, file)) as watch:
                    yield watch
            finally:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _pulse(self, units: list[Unit], others: _Others) -> Iterator[None]:
        """Meanwhile tells the other workers how far this one is, and to stop, and hears the same of them."""
        if self.worker.size == 1 or not units:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(PULSE_SECONDS):
                if self.watch.stop_requested():
                    (self.path / STOP).touch()
                self._told_to_stop = (self.path / STOP).exists()
                others.exchange(units if self.worker.rank == 0 else [])

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Claimed:
    """The watch of a claimed unit; counts its steps."""

    def __init__(self, team: Team, file: IO[bytes]) -> None:
        self.team, self.file, self.replica_steps = team, file, 0

    def begin(self, what: str) -> None:
        self.team.watch.begin(what)

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        self.replica_steps += replica_steps
        self.team.watch.advanced(replica_steps, train_loss, validation_accuracy)

    def stop_requested(self) -> bool:
        return self.team.stop_requested()


class _Others:
    """How many steps of each unit `watch` has seen, of those that other workers make; the numbers are in their claims."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self._lock = watch, threading.Lock()
        self._mine: dict[Unit, _Claimed] = {}
        self._seen: dict[Unit, int] = {}

    @contextlib.contextmanager
    def mine(self, unit: Unit, claimed: _Claimed) -> Iterator[Watch]:
        """While this worker trains `unit`, it counts itself."""
        with self._lock:
            self._mine[unit] = claimed
            self._show(unit, 0)
        try:
            yield claimed
        finally:
            with self._lock:
                del self._mine[unit]
                self._seen[unit] = claimed.replica_steps

    def finished(self, unit: Unit) -> None:
        with self._lock:
            self._show(unit, unit.replica_steps)

    def exchange(self, units: list[Unit]) -> None:
        """Writes into this worker's claims, and looks at those of `units` that are others'."""
        with self._lock:
            for claimed in self._mine.values():
                os.pwrite(claimed.file.fileno(), b"%-20d" % claimed.replica_steps, 0)
            for unit in units:
                if unit not in self._mine:
                    with contextlib.suppress(OSError, ValueError):  # unclaimed, done, or nothing told yet
                        self._show(unit, int(_claim_path(unit).read_bytes()))

    def _show(self, unit: Unit, replica_steps: int) -> None:
        if (more := replica_steps - self._seen.get(unit, 0)) != 0:
            self.watch.advanced(more, NAN, NAN)
        self._seen[unit] = replica_steps


def lock(file: IO[bytes] | IO[str], *, shared: bool = False) -> bool:
    """Whether this process now holds the flock of `file`; it dies with the process."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """For what one worker at a time may do in the run directory `path`."""
    with open(path / TURN, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _claim_path(unit: Unit) -> Path:
    return unit.checkpoint.with_suffix(CLAIM)


def _is_there(file: IO[bytes], path: Path) -> bool:
    """Whether `path` is still the file that was opened there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
