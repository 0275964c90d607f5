"""The verbs of a Trainer over a runtime that an app ships already; what such a runtime lacks is made up for here.

That is: the sample order of the native core, schedules, checkpoints bound to their ticket by hash and checksum, a step that
a loss of NaN does not spoil, and one thread at a time. A subclass gives gradients, updates and scores.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from device_runtime.artifact import Source
from device_runtime.backends.description import Description
from device_runtime.backends.order import SampleOrder
from device_runtime.backends.settings import MAX_FLOAT
from device_runtime.engine import Floats, Targets
from device_runtime.errors import CorruptCheckpoint, InvalidInput, NonFiniteLoss

MAGIC = b"TKB\x01"
DIGEST_BYTES = 32
MOST = {"step": 2**64 - 1, "epoch": 2**64 - 1, "seed": 2**64 - 1, "position": 2**32 - 2}  # as in STATE of FORMAT.md
Arrays = dict[str, NDArray[Any]]


class BackendEngine(ABC):
    """An Engine (engine.py). `name` is what users know the runtime by, `takes` which options of Trainer.open it can follow
    besides batch, seed, threads, learning_rate and the schedule's."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[str]]
    ALWAYS = frozenset(
        {"batch", "seed", "threads", "learning_rate", "schedule", "warmup_steps", "schedule_steps", "schedule_factor"}
    )

    def __init__(self, description: Description, settings: Mapping[str, Any]) -> None:
        """`settings`: the recipe with what was asked for in place, `seed` and `threads`."""
        self.description, self.settings = description, dict(settings)
        self._order, self._step = SampleOrder(int(settings["seed"])), 0
        self._one_at_a_time, self._closed = threading.Lock(), False

    @classmethod
    @abstractmethod
    def open(cls, source: Source, given: Mapping[str, Any]) -> BackendEngine:
        """Of an artifact, at step 0, with the options that are `given` in place of the recipe's."""

    @abstractmethod
    def _backward(self, samples: Floats, targets: Targets) -> float:
        """Loss of a batch; its gradients are then known to the runtime."""

    @abstractmethod
    def _apply(self, learning_rate: float) -> None:
        """The update by the gradients of the last `_backward`, which are finite."""

    @abstractmethod
    def _gradients_are_finite(self) -> bool:
        """Those of the last `_backward`, and what running statistics it would move to."""

    @abstractmethod
    def _scores(self, samples: Floats) -> Floats:
        """(n, class_count) what the network gives at inference, of at most a batch."""

    @abstractmethod
    def _named_gradients(self) -> dict[str, Floats]:
        """Of the last `_backward`, by parameter that is trained, each flat: live weights row-major."""

    @abstractmethod
    def _named_values(self) -> dict[str, Floats]:
        """Of every parameter, state ones too, likewise."""

    @abstractmethod
    def _load_values(self, values: Mapping[str, Floats]) -> None: ...

    @abstractmethod
    def _optimizer_state(self) -> Arrays:
        """Moments; empty where there are none."""

    @abstractmethod
    def _load_optimizer_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """What `_optimizer_state` gave, or nothing: that of step 0. Raises CorruptCheckpoint for anything else, and then nothing has
        changed."""

    @abstractmethod
    def _start(self) -> dict[str, Floats]:
        """The values that the trainer was opened with."""

    @abstractmethod
    def _release(self) -> None:
        """Gives the runtime's memory back."""

    def next_batch(self, sample_count: int) -> NDArray[np.uint32]:
        with self._alone():
            return self._order.next_batch(self.settings["batch"], sample_count)

    def train_step(self, samples: Floats, targets: Targets) -> float:
        with self._alone():
            return self._trained(samples, targets)

    def train_steps(
        self, samples: Floats, targets: Targets, rows: NDArray[np.uint32], learning_rates: Floats | None
    ) -> Floats:
        losses = []
        with self._alone():
            for position, chosen in enumerate(rows):
                if learning_rates is not None:
                    self._set_rate(float(learning_rates[position]))
                losses.append(self._trained(samples[chosen], targets[chosen]))
        return np.array(losses, np.float32)

    def compute_gradients(self, samples: Floats, targets: Targets) -> float:
        with self._alone():
            self._check(samples, self.settings["batch"])
            return self._backward(samples, targets)

    def set_learning_rate(self, learning_rate: float) -> None:
        with self._alone():
            self._set_rate(learning_rate)

    def evaluate(self, samples: Floats, targets: Targets) -> tuple[float, int]:
        with self._alone():
            scores = self._all_scores(samples)
        return losses(scores, targets, self.description.info.loss)

    def predict(self, samples: Floats) -> Floats:
        with self._alone():
            scores = self._all_scores(samples)
        return probabilities(scores, self.description.info.loss)

    def values(self) -> Floats:
        with self._alone():
            return self._flat(self._named_values(), state=True)

    def gradients(self) -> Floats:
        with self._alone():
            return self._flat(self._named_gradients(), state=False)

    def progress(self) -> tuple[int, int, int]:
        with self._alone():
            return self._step, self._order.epoch, self._order.position

    def reset(self) -> None:
        with self._alone():
            self._load_optimizer_state({})
            self._load_values(self._start())
            self._order, self._step = SampleOrder(self._order.seed), 0

    def save(self) -> bytes:
        with self._alone():
            told = {**self._identity(), "step": self._step, "epoch": self._order.epoch}
            told |= {"position": self._order.position, "seed": self._order.seed}
            arrays = {f"values/{name}": value for name, value in self._named_values().items()}
            arrays |= {f"optimizer/{name}": value for name, value in self._optimizer_state().items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise NonFiniteLoss(
                "training has diverged: a value is not finite, so no checkpoint is written; reset the trainer or restore an earlier one"
            )
        buffer = io.BytesIO()
        np.savez(buffer, told=np.frombuffer(json.dumps(told, sort_keys=True).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        return MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()

    def restore(self, checkpoint: bytes) -> None:
        with self._alone():
            told, values, state = self._read(checkpoint)
            self._load_optimizer_state(state)  # first: it alone may fail still, and then nothing has changed
            self._load_values(values)
            self._order = SampleOrder(told["seed"], told["epoch"], told["position"])
            self._step = told["step"]

    def export_artifact(self) -> bytes:
        raise InvalidInput(
            f"export by {self.name}: only the native trainer writes artifacts; save() keeps what was learnt"
        )

    def close(self) -> None:
        with self._one_at_a_time:  # waits for a step that another thread may be in
            if not self._closed:
                self._closed = True
                self._release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(blocking=False):
            raise InvalidInput("the trainer is busy in another thread; use one trainer a thread")
        try:
            if self._closed:
                raise InvalidInput("the trainer is closed; open another one")
            yield
        finally:
            self._one_at_a_time.release()

    def _trained(self, samples: Floats, targets: Targets) -> float:
        self._check(samples, self.settings["batch"])
        loss = self._backward(samples, targets)
        if not math.isfinite(loss):
            raise NonFiniteLoss(
                f"the loss of step {self._step} is {loss}; nothing was changed; lower the learning rate"
            )
        if not self._gradients_are_finite():
            raise NonFiniteLoss(
                f"a gradient of step {self._step} is not finite; nothing was changed; lower the learning rate"
            )
        self._apply(scheduled(self.settings, self._step))
        self._step += 1
        return loss

    def _check(self, samples: Floats, most: int | None = None) -> None:
        if most is not None and len(samples) > most:
            raise InvalidInput(f"{len(samples)} samples in a step of at most {most}; open with a larger batch")
        if not np.isfinite(samples).all():
            at = int(np.argmin(np.isfinite(samples).all(axis=1)))
            raise InvalidInput(f"sample {at} holds NaN or infinite values; leave it out")

    def _all_scores(self, samples: Floats) -> Floats:
        self._check(samples)
        batch = self.settings["batch"]
        return np.concatenate([self._scores(samples[at : at + batch]) for at in range(0, len(samples), batch)])

    def _set_rate(self, learning_rate: float) -> None:
        if not 0 <= learning_rate <= MAX_FLOAT:
            raise InvalidInput(f"learning_rate {learning_rate} must be in 0 to {MAX_FLOAT:.4g}")
        self.settings["learning_rate"] = learning_rate

    def _flat(self, named: Mapping[str, Floats], *, state: bool) -> Floats:
        chosen = [p.name for p in self.description.parameters if state or not p.state]
        return np.concatenate([named[name].reshape(-1) for name in chosen])

    def _identity(self) -> dict[str, Any]:
        return {
            "ticket_hash": self.description.info.ticket_hash,
            "engine": self.name,
            "optimizer": self.settings["optimizer"],
        }

    def _read(self, checkpoint: bytes) -> tuple[dict[str, int], dict[str, Floats], Arrays]:
        """Where training was, the values and the optimizer's arrays, the first two such as training can leave them."""
        start = len(MAGIC) + DIGEST_BYTES
        payload = checkpoint[start:]
        if checkpoint[: len(MAGIC)] != MAGIC or hashlib.sha256(payload).digest() != checkpoint[len(MAGIC) : start]:
            raise CorruptCheckpoint(f"not a checkpoint of {self.name}, cut short or damaged; take an older one")
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            told = dict(json.loads(arrays.pop("told").tobytes()))
        except (ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise CorruptCheckpoint(f"a checkpoint of another version ({error}); train anew") from error
        self._check_origin(told)
        state = {n.removeprefix("optimizer/"): a for n, a in arrays.items() if n.startswith("optimizer/")}
        values = {n.removeprefix("values/"): a for n, a in arrays.items() if n.startswith("values/")}
        self._check_values(values)
        if set(state) != set(self._optimizer_state()):
            raise CorruptCheckpoint("the checkpoint holds another optimizer's state; take an older one")
        return {name: _progress(told, name) for name in MOST}, values, state

    def _check_origin(self, told: Mapping[str, Any]) -> None:
        """Raises CorruptCheckpoint for one of another ticket or runtime, InvalidInput of another optimizer."""
        for name, wanted in self._identity().items():
            if name not in told:
                raise CorruptCheckpoint(f"the checkpoint does not say its {name}; train anew")
            found = f"the checkpoint is of {name} {str(told[name])[:16]}, not {str(wanted)[:16]}"
            if told[name] != wanted and name in ("ticket_hash", "engine"):
                raise CorruptCheckpoint(f"{found}; train anew")
            if told[name] != wanted:
                raise InvalidInput(f"{found}; open the trainer with the checkpoint's optimizer and momentum")

    def _check_values(self, values: Mapping[str, Floats]) -> None:
        present = self._named_values()
        if set(values) != set(present):
            raise CorruptCheckpoint("the checkpoint holds other parameters than the artifact; take an older one")
        for name, value in values.items():
            check_floats(f"parameter '{name}'", value, present[name])
            if name.endswith("running_var") and (value < 0).any():
                raise CorruptCheckpoint(
                    f"the checkpoint's parameter '{name}' has a variance below 0; take an older one"
                )


def check_floats(what: str, found: NDArray[Any], present: NDArray[Any]) -> None:
    """Raises CorruptCheckpoint unless the array of a checkpoint is like the present one, and finite."""
    if (found.dtype, found.shape) != (present.dtype, present.shape):
        raise CorruptCheckpoint(
            f"the checkpoint's {what} is {found.dtype} of shape {found.shape}, not {present.dtype} of shape {present.shape}; "
            "take an older one"
        )
    if not np.isfinite(found).all():
        raise CorruptCheckpoint(f"the checkpoint's {what} is not finite; take an older one")


def _progress(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    if type(value) is not int or not 0 <= value <= MOST[name]:
        raise CorruptCheckpoint(f"the checkpoint's {name} {str(value)[:40]!r} cannot be; take an older one")
    return value


def scheduled(settings: Mapping[str, Any], step: int) -> float:
    """The learning rate of update `step`, as FORMAT.md has it."""
    rate, factor = float(settings["learning_rate"]), float(settings["schedule_factor"])
    warmup, steps = int(settings["warmup_steps"]), int(settings["schedule_steps"])
    since = step - warmup
    if since < 0:
        return rate * (step + 1) / warmup
    if settings["schedule"] == "step":
        return float(rate * factor ** (since // steps))
    done = min(since / steps, 1.0) if steps else 0.0
    if settings["schedule"] == "cosine":
        return rate * (factor + (1 - factor) * 0.5 * (1 + math.cos(math.pi * done)))
    return rate * (factor + (1 - factor) * (1 - done)) if settings["schedule"] == "linear" else rate


def probabilities(scores: Floats, loss: str) -> Floats:
    """Softmax or sigmoid by the loss; the scores themselves for mse."""
    if loss == "mse":
        return scores
    if loss == "bce":
        return (1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32)
    z = scores.astype(np.float64)
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def losses(scores: Floats, targets: Targets, loss: str) -> tuple[float, int]:
    """The sum over samples, without smoothing or class weights, and the hits: the best class is the label, equal scores counting as the lowest;
    for bce all outputs are on their target's side of 0.5; none for mse."""
    z = scores.astype(np.float64)
    if loss == "cross_entropy":
        top = z.max(axis=1)
        of_label = z[np.arange(len(z)), targets]
        total = float((top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - of_label).sum())
        return total, int((z.argmax(axis=1) == targets).sum())
    if loss == "mse":
        return float(((z - targets) ** 2).mean(axis=1).sum()), 0
    terms = np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z)))
    return float(terms.mean(axis=1).sum()), int(((z > 0) == (targets > 0.5)).all(axis=1).sum())
