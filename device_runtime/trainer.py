"""One Trainer owns a sparse network, its optimizer and its sample order; an app needs nothing else.

The artifact carries the recipe, so samples and labels suffice. Opens no socket, starts no thread but those that `threads` asks
for, keeps no copy of the samples. A trainer serves one thread at a time (a second one is refused); different trainers share nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime import _core
from device_runtime import checkpoint as files
from device_runtime.artifact import KERNELS, ArtifactInfo, Source, make_options, memory_plan, read_artifact, read_info
from device_runtime.backends import NATIVE, open_engine, runtime_of
from device_runtime.data import check_finite, check_labels, check_targets
from device_runtime.engine import Engine
from device_runtime.errors import InvalidInput
from device_runtime.results import Evaluation, FitReport, Progress
from device_runtime.signature import checked

Floats = NDArray[np.float32]
Array = NDArray[Any]

UNASKED = {"store_gradients": False, "recompute": False, "half_activations": False, "kernels": "auto", "start": "init"}


@dataclass(frozen=True)
class Native:
    """What is known of the compiled core alone: its memory by part, and by what a budget is met."""

    core: _core.CoreTrainer
    memory: dict[str, int]
    planned: dict[str, int]


class Trainer:
    """Trains, evaluates and predicts. Made by `Trainer.open`; a context manager that closes itself.

    Samples: uint8 or float, shape (n, *input_shape) or (n, input_elements), raw units; converted a batch at a time.
    Labels: whole numbers in [0, class_count); floats (n, class_count) for losses mse and bce. After an error the weights are
    as they were before the failing step, but see `store_gradients` in ticket_runtime.h for plain SGD.
    """

    def __init__(self, engine: Engine, info: ArtifactInfo, batch: int, native: Native | None = None) -> None:
        """Use `open`."""
        self._engine, self._info, self._batch, self._native = engine, info, batch, native

    @classmethod
    def open(
        cls,
        source: Source,
        *,
        batch: int | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        beta1: float | None = None,
        beta2: float | None = None,
        epsilon: float | None = None,
        nesterov: bool | None = None,
        label_smoothing: float | None = None,
        clip_norm: float | None = None,
        schedule: str | None = None,
        warmup_steps: int | None = None,
        schedule_steps: int | None = None,
        schedule_factor: float | None = None,
        micro_batch: int | None = None,
        store_gradients: bool = False,
        recompute: bool = False,
        half_activations: bool = False,
        threads: int = 1,
        seed: int = 0,
        budget_bytes: int | None = None,
        kernels: str = "auto",
        start: str = "init",
        public_key: Source | None = None,
        signature: Source | None = None,
    ) -> Trainer:
        """A trainer at step 0 of the artifact `source`, a path or bytes. What is None comes from the artifact's recipe.

        Native artifacts are trained by the core of this package; those of ONNX Runtime (a folder) and ExecuTorch (.pte) by these, which follow
        fewer options and have no memory that is known beforehand.

        `optimizer` sgd, adam or adamw; `schedule` constant, step, cosine or linear; `start` init or trained; `seed` fixes
        the sample order and dropout. Plain SGD keeps no gradients unless `store_gradients`. What the backward pass needs is
        kept, or with `recompute` computed again where that saves memory (the same bits), or with `half_activations` kept as
        half floats (rounded gradients). Over `budget_bytes` a batch is worked through in ever smaller parts, `micro_batch`
        samples each, and if that is not enough nodes are recomputed; the other way round with batch normalisation, which
        parts would change. Results do not depend on `threads`.
        With `public_key` (PEM, or a file of it) the signature beside the artifact, or the `signature` given, is checked before anything else reads it.
        Raises CorruptArtifact, IncompatibleArtifact, UnsupportedOp, BudgetExceeded, InvalidInput, OSError.
        """
        if public_key is not None:
            source = checked(source, public_key, signature)
        elif signature is not None:
            raise InvalidInput("a signature without public_key is not checked; give both")
        given: dict[str, Any] = {
            "batch": batch,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": epsilon,
            "nesterov": nesterov,
            "label_smoothing": label_smoothing,
            "clip_norm": clip_norm,
            "schedule": schedule,
            "warmup_steps": warmup_steps,
            "schedule_steps": schedule_steps,
            "schedule_factor": schedule_factor,
            "micro_batch": micro_batch,
            "store_gradients": store_gradients,
            "recompute": recompute,
            "half_activations": half_activations,
            "threads": threads,
            "seed": seed,
            "budget_bytes": budget_bytes,
            "kernels": kernels,
            "start": start,
        }
        runtime = runtime_of(source)
        if runtime != NATIVE:
            asked = {name: value for name, value in given.items() if value is not None and value != UNASKED.get(name)}
            engine = open_engine(runtime, source, asked)
            return cls(engine, engine.description.info, engine.settings["batch"])
        artifact = read_artifact(source)
        options = make_options(artifact, **given)
        memory, planned = memory_plan(artifact, options)
        core = _core.CoreTrainer(artifact, options)
        return cls(core, read_info(artifact), options.batch, Native(core, memory, planned))

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 500,
        on_step: Callable[[Progress], bool | None] | None = None,
    ) -> FitReport:
        """Trains until the trainer has completed `epochs` or made `steps` in its whole life; None: the recipe's epochs.

        Being totals, the same call goes on after a `restore`, and gives the losses of a run that was never interrupted.
        `checkpoint` is written every `checkpoint_every` steps and at the end. `on_step` returning False cancels there.
        An exception leaves the checkpoint written last. Raises InvalidInput, NonFiniteLoss, OSError.
        """
        samples, labels = self._checked(x, y)
        done = self._goal(epochs, steps)
        if checkpoint_every < 1:
            raise InvalidInput(f"checkpoint_every {checkpoint_every} must be at least 1 step")
        begin, started = self.progress, time.perf_counter()
        progress, losses, cancelled = begin, [], False
        while not cancelled and not done(progress):
            rows = self._engine.next_batch(len(samples))
            with _naming_the_sample(samples):
                losses.append(self._engine.train_step(self._floats(samples[rows]), labels[rows]))
            progress = Progress(*self._engine.progress(), losses[-1])
            if checkpoint is not None and progress.step % checkpoint_every == 0:
                self.save(checkpoint)
            cancelled = on_step is not None and on_step(progress) is False
        if checkpoint is not None and (not losses or progress.step % checkpoint_every != 0):
            self.save(checkpoint)
        return FitReport(
            steps=len(losses),
            epochs=progress.epoch - begin.epoch,
            losses=np.array(losses, np.float32),
            progress=progress,
            cancelled=cancelled,
            seconds=time.perf_counter() - started,
        )

    def train_step(self, x: Array, y: Array) -> float:
        """One update with at most `batch` samples; the mean loss in nats before it. Leaves epoch and position alone."""
        samples, labels = self._checked(x, y)
        return self._engine.train_step(self._floats(samples), labels)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Of all later steps, by which a schedule's factors go; finite, >= 0. Not in a checkpoint."""
        self._engine.set_learning_rate(learning_rate)

    def train_steps(self, x: Array, y: Array, rows: Array, learning_rates: Array | None = None) -> Floats:
        """One update for each row of `rows` (steps, batch), which numbers samples of x; the losses (steps,).

        `learning_rates` (steps,) are set before each, as by `set_learning_rate`; the last one stays. For float32 samples, without Python between the steps, so that trainers in several threads run side by side.
        """
        samples, labels = self._checked(x, y)
        rates = None if learning_rates is None else np.ascontiguousarray(learning_rates, np.float32)
        return self._engine.train_steps(self._floats(samples), labels, np.ascontiguousarray(rows, np.uint32), rates)

    def compute_gradients(self, x: Array, y: Array) -> float:
        """The loss of `train_step` without the update; read the gradients from `gradients`. For gradient checks."""
        samples, labels = self._checked(x, y)
        return self._engine.compute_gradients(self._floats(samples), labels)

    def evaluate(self, x: Array, y: Array) -> Evaluation:
        """Loss and accuracy over any number of samples; equal scores count as the lowest class."""
        samples, labels = self._checked(x, y)
        loss_sum, correct = 0.0, 0
        whole = samples.dtype == np.float32 and samples.flags.c_contiguous  # nothing to convert
        for part in [slice(None)] if whole else self._parts(len(samples)):
            with _naming_the_sample(samples):
                part_loss, part_correct = self._engine.evaluate(self._floats(samples[part]), labels[part])
            loss_sum, correct = loss_sum + part_loss, correct + part_correct
        return Evaluation(loss_sum / len(samples), correct / len(samples), correct, len(samples))

    def predict(self, x: Array) -> Floats:
        """Probabilities (n, class_count) of any number of samples."""
        samples = self._checked_samples(x)
        with _naming_the_sample(samples):
            parts = [self._engine.predict(self._floats(samples[part])) for part in self._parts(len(samples))]
        return np.concatenate(parts)

    def save(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """The checkpoint's bytes: values, optimizer state, step, sample order, ticket hash; also to `path` if given.

        The file that was at `path` becomes `path`.previous, and no kill or full disk costs both. Raises OSError.
        """
        content = self._engine.save()
        if path is not None:
            files.save_generation(path, content)
        return content

    def restore(self, source: Source, *, missing_ok: bool = False) -> bool:
        """Goes on from a checkpoint, bytes or a path; with a CheckpointWarning from `path`.previous.

        False, and nothing changed, if there is none and `missing_ok`. Raises CorruptCheckpoint, FileNotFoundError, and
        InvalidInput if it is of another optimizer; the trainer is then as before.
        """
        if isinstance(source, bytes):
            self._engine.restore(source)
        elif missing_ok and not files.exists(source):
            self._engine.progress()  # a closed trainer must not look restored
            return False
        else:
            files.load_newest(source, self._engine.restore)
        return True

    def reset(self) -> None:
        """Back to the values it was opened with, at step 0; the seed stays."""
        self._engine.reset()

    def export(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """A new artifact: the same ticket with the present values as its trained ones; also to `path` if given."""
        content = self._engine.export_artifact()
        if path is not None:
            files.write_file(path, content)
        return content

    def close(self) -> None:
        """Gives the memory back, after a step that another thread may be in. Any number of times."""
        self._engine.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> ArtifactInfo:
        return self._info

    @property
    def is_native(self) -> bool:
        """Whether the core of this package trains, which alone writes artifacts and knows its memory."""
        return self._native is not None

    @property
    def batch(self) -> int:
        return self._batch

    @property
    def micro_batch(self) -> int:
        """Samples of a batch that are computed at a time; fewer than `batch` where a budget asks for it."""
        return self._known("micro_batch").planned["micro_batch"]

    @property
    def recomputed_nodes(self) -> int:
        """Nodes of the network that a step computes twice, to save memory."""
        return self._known("recomputed_nodes").planned["recomputed_nodes"]

    @property
    def progress(self) -> Progress:
        return Progress(*self._engine.progress())

    @property
    def memory(self) -> dict[str, int]:
        """The arena by part, in bytes, and its `total`."""
        return dict(self._known("memory").memory)

    @property
    def arena_bytes(self) -> int:
        return self._known("arena_bytes").memory["total"]

    @property
    def kernels(self) -> str:
        """The kernels that run; every choice gives the same bits."""
        code = self._known("kernels").core.kernels_in_use()
        return next(name for name, value in KERNELS.items() if value == code)

    @property
    def values(self) -> Floats:
        """A copy of every stored value in the artifact's order: live weights in CSR order, dense and masked ones row-major."""
        return self._engine.values()

    @property
    def gradients(self) -> Floats:
        """A copy, in the order of `values`; of the last `compute_gradients`."""
        return self._engine.gradients()

    def _known(self, what: str) -> Native:
        """Raises InvalidInput where another runtime trains, of which it is not known."""
        if self._native is None:
            raise InvalidInput(f"{what} is known of native artifacts alone; export the ticket as native")
        return self._native

    def _goal(self, epochs: int | None, steps: int | None) -> Callable[[Progress], bool]:
        if epochs is not None and steps is not None:
            raise InvalidInput(f"epochs {epochs} and steps {steps} were both given; give one")
        if steps is not None:
            return lambda progress: progress.step >= steps
        total = self._info.epochs if epochs is None else epochs
        if total < 1:
            remedy = "; the recipe suggests none, so give epochs" if epochs is None else ""
            raise InvalidInput(f"epochs {total} must be at least 1{remedy}")
        return lambda progress: progress.epoch >= total

    def _parts(self, count: int) -> list[slice]:
        return [slice(start, start + self._batch) for start in range(0, count, self._batch)]

    def _checked(self, x: Array, y: Array) -> tuple[Array, NDArray[np.int32] | Floats]:
        samples, labels = self._checked_samples(x), np.asarray(y)
        if self._info.loss == "cross_entropy":
            check_labels(labels, len(samples), "y", self._info.class_count)
            return samples, np.ascontiguousarray(labels, np.int32)
        return samples, check_targets(labels, len(samples), self._info.class_count)

    def _checked_samples(self, x: Array) -> Array:
        samples = np.asarray(x)
        if samples.dtype != np.uint8 and samples.dtype.kind != "f":
            raise InvalidInput(f"x has dtype {samples.dtype}; give uint8 or float samples")
        if samples.size == 0:
            raise InvalidInput(f"x is empty, shape {samples.shape}; give at least one sample")
        given, shape = samples.shape[1:], self._info.input_shape
        flat = given == (self._info.input_elements,)
        if samples.ndim == 0 or not (flat or _without_ones(given) == _without_ones(shape)):
            raise InvalidInput(f"x has shape {samples.shape} but the network takes (n, {', '.join(map(str, shape))})")
        return samples

    def _floats(self, samples: Array) -> Floats:
        """(n, ...) -> (n, input_elements); what float32 cannot hold becomes infinite and is refused by the core."""
        if samples.dtype == np.float32:
            return np.ascontiguousarray(samples.reshape(len(samples), -1))
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(samples.reshape(len(samples), -1), np.float32)


@contextmanager
def _naming_the_sample(samples: Array) -> Iterator[None]:
    """The core counts samples within a batch; a refused one is named here by its place among all."""
    try:
        yield
    except InvalidInput:
        check_finite(samples, "x")  # other faults the core names well
        raise


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)
