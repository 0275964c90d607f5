"""Devices of many users, simulated: each trains the ticket on its own user's samples alone, and may die at any step.

A death drops the trainer without saving, some in the middle of writing a checkpoint; the device then opens the artifact
anew and goes on from its last checkpoint file. With a delta each device then takes the server's update of the ticket. Runs one device
after another; nothing is shared between them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime import checkpoint as files
from device_runtime.artifact import Source, read_artifact
from device_runtime.data import Data
from device_runtime.delta import apply_delta
from device_runtime.errors import InvalidInput
from device_runtime.rebase import update
from device_runtime.results import Progress
from device_runtime.trainer import Trainer

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Settings:
    """How to simulate. `options` go to Trainer.open; `users` limits how many devices; `epochs` None: the recipe's."""

    held_out: float = 0.3
    epochs: int | None = None
    seed: int = 0
    interruptions: int = 0
    users: int | None = None
    min_samples: int = 20
    checkpoint_every: int = 10

    def check(self) -> None:
        """Raises InvalidInput for a setting that makes no sense."""
        if not 0.0 < self.held_out < 1.0:
            raise InvalidInput(
                f"held_out {self.held_out} must lie between 0 and 1; 0.3 keeps 30 % of the samples apart"
            )
        for name, least in (("interruptions", 0), ("seed", 0), ("min_samples", 2), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} {getattr(self, name)} must be at least {least}")
        if self.users is not None and self.users < 1:
            raise InvalidInput(f"users {self.users} must be at least 1")


@dataclass(frozen=True)
class Device:
    """One simulated device: accuracies `before` and `after` on its `held_out` samples, and of an update: `updated` with what was learnt,
    `replaced` by the server's new values alone; `steps_redone` died unsaved. `arena_bytes` is None where another runtime
    trains, of which it is not known."""

    user: int | str
    before: float
    after: float
    samples: int
    held_out: int
    steps: int
    steps_redone: int
    interruptions: int
    arena_bytes: int | None
    checkpoint_bytes: int
    seconds: float
    updated: float | None = None
    replaced: float | None = None


@dataclass(frozen=True)
class _Update:
    """The server's update of `base`, what training began from, and how the new artifact is opened."""

    base: bytes
    delta: bytes
    start: str
    open_trainer: Callable[[], Trainer]


class _Died(Exception):
    """The simulated device lost its power."""


def simulate(
    artifact: Source,
    data: Data,
    settings: Settings,
    options: dict[str, Any],
    *,
    delta: bytes | None = None,
    output_dir: Path | None = None,
    on_device: Callable[[Device, int], None] | None = None,
) -> dict[str, Any]:
    """One device for each user of `data`; a JSON object of `users` and `summary`. Devices' checkpoints go to `output_dir`, and what
    native ones have trained.

    `delta` is the server's update of the artifact. Raises InvalidInput if no user has enough samples, BudgetExceeded if the arena does not fit, and as Trainer does.
    """
    settings.check()
    everyone = list(_users(data))
    chosen = [(user, rows) for user, rows in everyone if len(rows) >= settings.min_samples][: settings.users]
    if not chosen:
        most = max(len(rows) for _, rows in everyone)
        raise InvalidInput(f"no user has {settings.min_samples} samples, the most is {most}; lower min_samples")
    devices = []
    newer = None
    if delta is not None:
        base = read_artifact(artifact)
        new = partial(Trainer.open, apply_delta(base, delta), **options, seed=settings.seed)
        newer = _Update(base, delta, options.get("start") or "init", new)
    with tempfile.TemporaryDirectory() as scratch:
        for index, (user, rows) in enumerate(chosen):
            folder = (output_dir or Path(scratch)) / f"device-{index:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            random = np.random.default_rng([settings.seed, index])
            samples = _Samples.of(data, rows, settings.held_out, random)
            open_trainer = partial(Trainer.open, artifact, **options, seed=settings.seed)
            devices.append(_run_device(user, samples, open_trainer, settings, random, folder, newer))
            if on_device is not None:
                on_device(devices[-1], len(chosen))
    few = sum(len(rows) < settings.min_samples for _, rows in everyone)
    return {"users": [_told(device) for device in devices], "summary": _summary(devices) | {"users_with_too_few": few}}


def _users(data: Data) -> Iterator[tuple[int | str, Rows]]:
    if data.user is None:
        yield 0, np.arange(len(data.x))
        return
    for user in np.unique(data.user):
        yield user.item(), np.flatnonzero(data.user == user)


def split(y: NDArray[Any], held_out: float, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Indices to train on and to hold out; each class gives its share but keeps one for training. None is empty."""
    apart: list[int] = []
    for label in np.unique(y):
        of_class = random.permutation(np.flatnonzero(y == label))
        apart.extend(of_class[: min(round(len(of_class) * held_out), len(of_class) - 1)])
    if not apart:  # one sample a class, or too small a share
        apart = [int(random.integers(len(y)))]
    return np.setdiff1d(np.arange(len(y)), apart), np.sort(np.array(apart, np.intp))


@dataclass(frozen=True)
class _Samples:
    """One user's own: `x`, `y` to train on, `x_apart`, `y_apart` held out."""

    x: NDArray[Any]
    y: NDArray[Any]
    x_apart: NDArray[Any]
    y_apart: NDArray[Any]

    @classmethod
    def of(cls, data: Data, rows: Rows, held_out: float, random: np.random.Generator) -> _Samples:
        y = data.labels
        train, apart = (rows[part] for part in split(y[rows], held_out, random))
        return cls(data.x[train], y[train], data.x[apart], y[apart])


def _run_device(
    user: int | str,
    samples: _Samples,
    open_trainer: Callable[[], Trainer],
    settings: Settings,
    random: np.random.Generator,
    folder: Path,
    newer: _Update | None,
) -> Device:
    started = time.perf_counter()
    checkpoint = folder / "checkpoint.tkc"
    files.remove(checkpoint)
    with open_trainer() as trainer:
        before = trainer.evaluate(samples.x_apart, samples.y_apart).accuracy
        epochs = trainer.info.epochs if settings.epochs is None else settings.epochs
        last_step = epochs * -(-len(samples.x) // trainer.batch)
    deaths = _death_steps(last_step, settings.interruptions, random)
    redone = 0
    for number, death in enumerate(deaths):
        redone += death - _live_until(death, number % 2 == 1, samples, open_trainer, settings, checkpoint)
    with open_trainer() as trainer:
        trainer.restore(checkpoint, missing_ok=True)
        _fit(trainer, samples, settings, checkpoint)
        if trainer.is_native:
            trainer.export(folder / "trained.tkt")
        updated, replaced = _updated(newer, trainer.save(), samples, folder) if newer else (None, None)
        return Device(
            user=user,
            before=before,
            after=trainer.evaluate(samples.x_apart, samples.y_apart).accuracy,
            samples=len(samples.x),
            held_out=len(samples.x_apart),
            steps=trainer.progress.step,
            steps_redone=redone,
            interruptions=len(deaths),
            arena_bytes=trainer.arena_bytes if trainer.is_native else None,
            checkpoint_bytes=len(trainer.save()),
            seconds=time.perf_counter() - started,
            updated=updated,
            replaced=replaced,
        )


def _updated(newer: _Update, checkpoint: bytes, samples: _Samples, folder: Path) -> tuple[float, float]:
    """Accuracies of the update with what was learnt, and of the new artifact alone."""
    content = update(checkpoint, newer.delta, base=newer.base, start=newer.start)
    with newer.open_trainer() as trainer:
        replaced = trainer.evaluate(samples.x_apart, samples.y_apart).accuracy
        trainer.restore(content)
        trainer.save(folder / "updated.tkc")
        return trainer.evaluate(samples.x_apart, samples.y_apart).accuracy, replaced


def _death_steps(last_step: int, interruptions: int, random: np.random.Generator) -> list[int]:
    """Distinct steps before the last one, in order; fewer where there are not as many."""
    steps = np.arange(1, max(last_step, 1))
    return sorted(random.choice(steps, min(interruptions, len(steps)), replace=False).tolist())


def _live_until(
    death: int,
    torn: bool,
    samples: _Samples,
    open_trainer: Callable[[], Trainer],
    settings: Settings,
    checkpoint: Path,
) -> int:
    """One life from the last checkpoint to step `death`; returns the step that a next life can go on from."""
    with open_trainer() as trainer:
        trainer.restore(checkpoint, missing_ok=True)
        try:
            _fit(trainer, samples, settings, checkpoint, _dying_at(death))
        except _Died:
            if torn:  # the death fell into a checkpoint write
                content = trainer.save()
                files.partial_path(checkpoint).write_bytes(content[: len(content) // 2])
    with open_trainer() as trainer:
        trainer.restore(checkpoint, missing_ok=True)
        return trainer.progress.step


def _fit(
    trainer: Trainer,
    samples: _Samples,
    settings: Settings,
    checkpoint: Path,
    on_step: Callable[[Progress], None] | None = None,
) -> None:
    every = settings.checkpoint_every
    trainer.fit(
        samples.x, samples.y, epochs=settings.epochs, checkpoint=checkpoint, checkpoint_every=every, on_step=on_step
    )


def _dying_at(step: int | None) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise _Died

    return on_step


def _told(device: Device) -> dict[str, Any]:
    """Without the figures of an update where there was none."""
    return {
        name: value
        for name, value in asdict(device).items()
        if value is not None or name not in ("updated", "replaced")
    }


def _summary(devices: list[Device]) -> dict[str, Any]:
    figures: dict[str, float | None] = {}
    for name in ("before", "after", "updated", "replaced"):
        if getattr(devices[0], name) is not None:
            accuracies = [getattr(device, name) for device in devices]
            figures |= {f"{name}_mean": fmean(accuracies), f"{name}_sd": _spread(accuracies)}
    return {
        "devices": len(devices),
        **figures,
        "improved": sum(device.after > device.before for device in devices),
        "samples": sum(device.samples for device in devices),
        "held_out": sum(device.held_out for device in devices),
        "steps": sum(device.steps for device in devices),
        "steps_redone": sum(device.steps_redone for device in devices),
        "interruptions": sum(device.interruptions for device in devices),
        "arena_bytes": max((d.arena_bytes for d in devices if d.arena_bytes is not None), default=None),
        "checkpoint_bytes": max(device.checkpoint_bytes for device in devices),
        "seconds": sum(device.seconds for device in devices),
    }


def _spread(values: list[float]) -> float | None:
    """Standard deviation over the devices; None for a single one."""
    return stdev(values) if len(values) > 1 else None
