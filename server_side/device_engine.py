"""Trains jobs on the sparse runtime that will train the ticket on devices, so that time falls with density.

One trainer a job, jobs side by side on CPU threads; the same bits for any thread count.
"""

from __future__ import annotations

import io
import math
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime import NonFiniteLoss, Trainer
from export.atomic import write_file
from export.layout import whole_values
from export.network import Network
from export.ticket import Ticket, TicketError
from export.to_native import to_native_bytes
from server_side.controls import Values
from server_side.data import Split
from server_side.prune import Masks
from server_side.schedule import learning_rates
from server_side.seeds import BatchOrder, derive
from server_side.training import (
    CHECKPOINT_SECONDS,
    Interrupted,
    Job,
    Recipe,
    Training,
    Watch,
    diverged,
    evaluation_steps,
)

AUGMENTED_STEPS = 16  # whose samples are made at once
Claim = Callable[[Job], AbstractContextManager[Watch | None]]  # None: not to be trained here
STATE = ("trainer", "step", "early", "snapshots", "validation", "train_loss", "losses")  # of a checkpoint


class DeviceEngine:
    """Holds the data and trains jobs of one network by `recipe`."""

    def __init__(self, network: Network, split: Split, recipe: Recipe, threads: int) -> None:
        self.network, self.split, self.recipe, self.threads = network, split, recipe, threads

    def train(
        self,
        jobs: list[Job],
        checkpoints: Mapping[str, Path],
        claim: Claim,
        finished: Callable[[Job, Training], None],
    ) -> None:
        """Trains each job that `claim` gives a watch for, and calls `finished` as it ends, within the claim and in a thread of
        its own. Asked to stop, or after an error of one job, saves every job under way at its next evaluation to its path in
        `checkpoints`, from where a next call goes on, and raises Interrupted or the error."""
        halted = threading.Event()
        ended: Exception | None = None
        with ThreadPoolExecutor(self.threads) as pool:
            futures = [
                pool.submit(self._train_claimed, job, checkpoints[job.name], claim, finished, halted) for job in jobs
            ]
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except Exception as error:
                        ended = ended or error
                        halted.set()  # what waits ends at once; a cancelled future would never complete
            finally:
                halted.set()
        if ended is not None:
            raise ended

    def _train_claimed(
        self,
        job: Job,
        checkpoint: Path,
        claim: Claim,
        finished: Callable[[Job, Training], None],
        halted: threading.Event,
    ) -> None:
        if halted.is_set():
            raise Interrupted
        with claim(job) as watch:
            if watch is not None:
                finished(job, self._train_one(job, checkpoint, watch, halted))

    def _train_one(self, job: Job, checkpoint: Path, watch: Watch, halted: threading.Event) -> Training:
        if watch.stop_requested():
            raise Interrupted
        seed = derive(job.order_seed, "dropout")
        with Trainer.open(_artifact(self.network, self.recipe, job), seed=seed) as trainer:
            run = _Run(self, job, trainer)
            try:
                self._advance_to_the_end(run, checkpoint, watch, halted)
            except NonFiniteLoss as error:
                run.diverged_step = job.first_step + trainer.progress.step
                if not job.is_control:
                    raise diverged(job, run.diverged_step, self.recipe) from error
                watch.advanced(self.recipe.steps - run.step, math.nan, math.nan)
            return run.training()

    def _advance_to_the_end(self, run: _Run, checkpoint: Path, watch: Watch, halted: threading.Event) -> None:
        if run.restore(checkpoint):
            watch.advanced(run.step - run.job.first_step, math.nan, math.nan)
        else:
            run.visit()
        saved = time.monotonic()
        while run.step < self.recipe.steps:
            stop = halted.is_set() or watch.stop_requested()
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                run.save(checkpoint)
                saved = time.monotonic()
            if stop:
                raise Interrupted
            before = run.step
            run.advance()
            watch.advanced(run.step - before, run.last_loss, run.last_accuracy)


def unfit_for_devices(network: Network, recipe: Recipe, start: Values) -> str | None:
    """Why no artifact can be made of a network with these weights: a limit of the format that it exceeds; None if one can."""
    try:
        _artifact(network, recipe, Job(0, "dense", 0, start, {}))
    except TicketError as error:
        return str(error)
    return None


def _artifact(network: Network, recipe: Recipe, job: Job) -> bytes:
    card = {
        "task": job.name,
        "labels": [str(label) for label in range(network.output_shape[0])],
        "input": {"mean": [0.0], "inverse_std": [1.0]},  # the split is normalised already
        "recipe": recipe.to_card(epochs=0),
    }
    return to_native_bytes(Ticket(network, job.start, _pruned(job), card=card))


def _pruned(job: Job) -> Masks:
    """The masks of its artifact: a weight that is whole is stored dense, which is faster."""
    return {name: mask for name, mask in job.masks.items() if not mask.all()}


class _Run:
    """One job on one trainer."""

    def __init__(self, engine: DeviceEngine, job: Job, trainer: Trainer) -> None:
        self.engine, self.job, self.trainer = engine, job, trainer
        self.order = BatchOrder(job.order_seed, len(engine.split.x_train), engine.recipe.batch)
        self.step = job.first_step
        self.evaluations = evaluation_steps(engine.recipe, job.first_step)
        self._due = frozenset(self.evaluations)
        self.train_loss: list[float] = []
        self.validation: list[tuple[float, float]] = []
        self.early = trainer.values
        self.snapshots: dict[int, NDArray[np.float32]] = {}
        self.last_loss = self.last_accuracy = float("nan")
        self.diverged_step: int | None = None
        self._losses: list[NDArray[np.float32]] = []

    def advance(self) -> None:
        """Trains to the next step where something is to be done. Raises NonFiniteLoss."""
        until = min(due for due in (*self.evaluations, *self.job.snapshot_steps) if due > self.step)
        rates = learning_rates(self.engine.recipe, self.step, until, held=self.job.holds_rate)
        at_once = until - self.step if self.engine.recipe.augmentation is None else AUGMENTED_STEPS
        for first in range(self.step, until, at_once):
            last = min(first + at_once, until)
            x, y, rows = self._samples(first, last)
            self._losses.append(self.trainer.train_steps(x, y, rows, rates[first - self.step : last - self.step]))
        self.step = until
        self.visit()

    def _samples(self, first: int, last: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Samples, labels, and for each step from `first` to before `last` which of them make up its batch."""
        split, augmentation = self.engine.split, self.engine.recipe.augmentation
        rows = np.stack([self.order.indices(step) for step in range(first, last)])
        if augmentation is None:
            return split.x_train, split.y_train, rows
        size = split.x_train.shape[-2:]
        draws = [augmentation.draws(self.job.order_seed, step, rows.shape[1], size) for step in range(first, last)]
        pictures = split.x_train.reshape(len(split.x_train), -1, *size)  # grey ones may have no channel
        batches = [augmentation.apply_numpy(pictures[r], d) for r, d in zip(rows, draws, strict=True)]
        return (
            np.concatenate(batches).reshape(-1, *split.x_train.shape[1:]),
            split.y_train[rows].ravel(),
            np.arange(rows.size).reshape(rows.shape),
        )

    def visit(self) -> None:
        """Keeps a snapshot and evaluates, where this step asks for it. Raises NonFiniteLoss."""
        if self.step in self.job.snapshot_steps:
            self.snapshots[self.step] = self.trainer.values
        if self.step not in self._due:
            return
        evaluation = self.trainer.evaluate(self.engine.split.x_validation, self.engine.split.y_validation)
        if not math.isfinite(evaluation.loss):
            raise NonFiniteLoss(f"the validation loss is {evaluation.loss} at step {self.step}")
        if not self.validation or evaluation.loss < min(loss for loss, _ in self.validation):
            self.early = self.trainer.values
        self.validation.append((evaluation.loss, evaluation.accuracy))
        self.train_loss.append(float(np.mean(np.concatenate(self._losses))) if self._losses else float("nan"))
        self.last_loss, self.last_accuracy = self.train_loss[-1], evaluation.accuracy
        self._losses.clear()

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(
            buffer,
            trainer=np.frombuffer(self.trainer.save(), np.uint8),
            step=self.step,
            early=self.early,
            snapshots=np.array([self.snapshots[step] for step in sorted(self.snapshots)]),
            validation=np.array(self.validation),
            train_loss=np.array(self.train_loss),
            losses=np.concatenate(self._losses) if self._losses else np.empty(0, np.float32),
        )
        write_file(path, buffer.getvalue())

    def restore(self, path: Path) -> bool:
        """False, and nothing changed, if there is no checkpoint or it is damaged."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                saved = {name: archive[name] for name in STATE}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return False
        self.trainer.restore(saved["trainer"].tobytes())
        self.step = int(saved["step"])
        self.early = saved["early"]
        self.snapshots = dict(zip(sorted(self.job.snapshot_steps), saved["snapshots"], strict=False))
        self.validation = [(loss, accuracy) for loss, accuracy in saved["validation"].tolist()]
        self.train_loss = saved["train_loss"].tolist()
        self._losses = [saved["losses"]] if len(saved["losses"]) else []
        return True

    def training(self) -> Training:
        """Of a control its figures alone; those after it diverged are NaN."""
        final, job, whole = self.trainer.values, self.job, self.diverged_step is None
        missing = [math.nan] * (len(self.evaluations) - len(self.validation))
        losses, accuracies = np.array([*self.validation, *((math.nan, math.nan) for _ in missing)]).T
        return Training(
            steps=np.array(self.evaluations),
            train_loss=np.array([*self.train_loss, *missing]),
            validation_loss=losses,
            validation_accuracy=accuracies,
            early_accuracy=self._test(self.early) if whole else math.nan,
            final_accuracy=self._test(final) if whole else math.nan,
            early={} if job.drops_weights else self._dense(self.early),
            final={} if job.drops_weights else self._dense(final),
            snapshots={step: self._dense(values) for step, values in self.snapshots.items()},
            diverged_step=self.diverged_step,
        )

    def _dense(self, values: NDArray[np.float32]) -> Values:
        return whole_values(self.engine.network, _pruned(self.job), values)

    def _test(self, values: NDArray[np.float32]) -> float:
        """Accuracy on the test part of a network with these values, in a trainer of its own."""
        job = Job(self.job.seed, self.job.kind, self.job.index, self._dense(values), self.job.masks)
        with Trainer.open(_artifact(self.engine.network, self.engine.recipe, job)) as trainer:
            return trainer.evaluate(self.engine.split.x_test, self.engine.split.y_test).accuracy
