"""The program that export/to_executorch.py writes, run by ExecuTorch 1.4.1 behind the verbs of a Trainer.

Only gradients and scores come from that runtime: updates are made here, in its own parameters, because its SGD has no state
that could be saved and no other optimizer. A program is checked against its SHA-256 before that runtime reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.artifact import Source, read_artifact
from device_runtime.backends.description import read_description
from device_runtime.backends.dropout import dropout_factors
from device_runtime.backends.engine import Arrays, BackendEngine
from device_runtime.backends.optimizer import OPTIONS, optimizer_of
from device_runtime.backends.settings import settings_of
from device_runtime.backends.silence import silent
from device_runtime.engine import Floats, Targets
from device_runtime.errors import CorruptArtifact, IncompatibleArtifact, InvalidInput

with silent():  # it prints about the processor
    import torch
    from executorch.extension.pybindings import portable_lib

MAGIC = b"TKTPTE\x00\x01"
DIGEST_BYTES = 32
PREFIX = "values."  # of a parameter's name in the program


@dataclass(frozen=True)
class Method:
    """A method, and what it needs alive: the program, in whose memory it works, and the bytes of that."""

    method: Any
    program: Any
    content: bytes

    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """Its outputs, where they lie until the next run."""
        self.method.set_inputs(inputs)
        self.method.execute()
        return list(self.method.get_outputs(clone_outputs=False))


class Program:
    """An artifact's program, its description, and what one must know to call it."""

    def __init__(self, content: bytes) -> None:
        self._bytes = _checked(content)
        (text,) = self.told("description")
        self.description = read_description(text.encode(), len(content), {"program": len(self._bytes)})
        try:
            self.facts = json.loads(text)["program"]
            self.batch, self.entries, self.moving, self.dropouts = (
                self.facts[name] for name in ("batch", "entries", "moving", "dropouts")
            )
        except (KeyError, TypeError) as error:
            raise CorruptArtifact(f"the program does not say its {error}; export the ticket again") from error

    def method(self, name: str) -> Method:
        """In a loaded program of its own: from Python all methods of one work in the same memory, so that `predict` would
        overwrite the parameters of `train`."""
        with silent():
            loaded = self._or_refused(portable_lib._load_program_from_buffer, self._bytes)
            return Method(self._or_refused(loaded.load_method, name), loaded, self._bytes)

    def told(self, name: str) -> list[Any]:
        """What a method without inputs returns."""
        return list(self.method(name).method(clone_outputs=True))

    def _or_refused(self, load: Any, what: Any) -> Any:
        try:
            return load(what)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise IncompatibleArtifact(f"ExecuTorch cannot load it ({reason}); export the ticket again") from error


class ExecutorchEngine(BackendEngine):
    """SGD with momentum or Nesterov's, Adam or AdamW, by what is asked for. ExecuTorch has one pool of threads a process:
    the trainer opened last sets how many there are; no result depends on it."""

    name, takes = "executorch", OPTIONS

    @classmethod
    def open(cls, source: Source, given: Mapping[str, Any]) -> ExecutorchEngine:
        program = Program(read_artifact(source))
        return cls(program, settings_of(program.description.recipe, given))

    def __init__(self, program: Program, settings: Mapping[str, Any]) -> None:
        super().__init__(program.description, settings)
        if settings["batch"] > program.batch:
            raise InvalidInput(
                f"batch {settings['batch']} of a program that was made for {program.batch}; give at most that, or export the "
                "ticket with a larger batch in its recipe"
            )
        with silent():
            if portable_lib._threadpool_get_thread_count() != settings["threads"]:
                portable_lib._unsafe_reset_threadpool(settings["threads"])
        self._program, self._train = program, program.method("train")
        self._predict: Method | None = None  # loaded when it is asked for: it has as much memory again
        (self._first_gradient,) = program.told("__et_training_gradients_index_train")
        (first_parameter,) = program.told("__et_training_parameters_index_train")
        self._names = [name.removeprefix(PREFIX) for name in program.told("__et_training_fqn_train")]
        outputs = self._train.method.get_outputs(clone_outputs=False)
        tensors = dict(zip(self._names, outputs[first_parameter:], strict=True))
        # In that runtime's own memory, to be written in place.
        self._tensors = {p.name: tensors[p.name] for p in self.description.parameters if not p.state}
        self._optimizer = optimizer_of({name: tensor.numpy() for name, tensor in self._tensors.items()}, settings)
        state = [p.name for p in self.description.parameters if p.state]
        self._state = dict(zip(state, program.told("statistics") if state else (), strict=True))
        self._moved: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, Floats] = {name: np.zeros_like(v) for name, v in self._optimizer.values.items()}
        self._begun = {name: value.copy() for name, value in self._named_values().items()}

    def _backward(self, samples: Floats, targets: Targets) -> float:
        present = torch.zeros(self._program.batch)
        present[: len(samples)] = 1
        labels = targets.astype(np.int64) if self.description.info.loss == "cross_entropy" else targets
        outputs = self._train.run(
            [self._samples(samples), self._filled_up(labels), present, *self._state.values(), *self._factors()]
        )
        moved, gradients = outputs[1 : self._first_gradient], outputs[self._first_gradient :]
        self._moved = {name: new.clone() for name, new in zip(self._program.moving, moved, strict=True)}
        self._gradients = {name: new.numpy() for name, new in zip(self._names, gradients, strict=False)}
        return float(outputs[0])

    def _apply(self, learning_rate: float) -> None:
        self._optimizer.step(learning_rate, self._gradients)
        self._state |= self._moved

    def _gradients_are_finite(self) -> bool:
        moved = (tensor.numpy() for tensor in self._moved.values())
        return all(np.isfinite(array).all() for array in (*self._gradients.values(), *moved))

    def _scores(self, samples: Floats) -> Floats:
        if self._predict is None:
            self._predict = self._program.method("predict")
        values = {**self._tensors, **self._state}
        (scores,) = self._predict.run([self._samples(samples), *(values[p.name] for p in self.description.parameters)])
        return np.array(scores.numpy()[: len(samples)])

    def _check(self, samples: Floats, most: int | None = None) -> None:
        super()._check(samples, most)
        entries = self._program.entries
        bad = (samples < 0) | (samples >= entries) | (samples != np.floor(samples))
        if entries and bad.any():
            sample, element = np.argwhere(bad)[0]
            raise InvalidInput(
                f"samples[{sample}] has {samples[sample, element]} at element {element}, but an embedding takes whole numbers "
                f"from 0 to {entries - 1}"
            )

    def _named_gradients(self) -> dict[str, Floats]:
        return self._gradients

    def _named_values(self) -> dict[str, Floats]:
        return {name: tensor.numpy() for name, tensor in {**self._tensors, **self._state}.items()}

    def _load_values(self, values: Mapping[str, Floats]) -> None:
        for name, value in self._optimizer.values.items():
            value[...] = values[name]
        self._state = {name: torch.from_numpy(values[name].copy()) for name in self._state}

    def _optimizer_state(self) -> Arrays:
        return self._optimizer.state()

    def _load_optimizer_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        if state:
            self._optimizer.check(state)
        self._optimizer.load(state)

    def _start(self) -> dict[str, Floats]:
        return self._begun

    def _release(self) -> None:
        self._optimizer.values, self._tensors, self._gradients = {}, {}, {}  # before the memory that they lie in
        self._predict = None
        del self._train, self._program

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"moments": len(self._optimizer.moments)}

    def _samples(self, samples: Floats) -> torch.Tensor:
        return self._filled_up(samples.reshape(len(samples), *self.description.info.input_shape))

    def _filled_up(self, rows: NDArray[Any]) -> torch.Tensor:
        """As many rows as the program takes, by copies of the first."""
        missing = self._program.batch - len(rows)
        return torch.from_numpy(np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)]))

    def _factors(self) -> list[torch.Tensor]:
        seed, batch = self._order.seed, self._program.batch
        return [
            torch.from_numpy(dropout_factors(seed, self._step, d["buffer"], d["probability"], (batch, *d["shape"])))
            for d in self._program.dropouts
        ]


def _checked(content: bytes) -> bytes:
    """The program without its trailer."""
    end = len(content) - DIGEST_BYTES - len(MAGIC)
    program, magic, digest = content[: max(end, 0)], content[max(end, 0) : -DIGEST_BYTES], content[-DIGEST_BYTES:]
    if magic != MAGIC or hashlib.sha256(program).digest() != digest:
        raise CorruptArtifact(
            "not a program of this package, cut short or damaged; copy it again, or export the ticket again"
        )
    return program
