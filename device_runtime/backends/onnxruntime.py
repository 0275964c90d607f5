"""The folder that export/to_ort.py writes, trained by ONNX Runtime 1.19.2 behind the verbs of a Trainer.

Every file is read once and checked against its SHA-256 before that runtime gets it, which loads flipped bits without a word. It cannot
change momentum, betas or decay of an artifact, nor draw dropout that a resumed training would repeat.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.training.api import CheckpointState, Module, Optimizer

from device_runtime.artifact import Source
from device_runtime.backends.description import Description, read_description
from device_runtime.backends.engine import Arrays, BackendEngine, check_floats
from device_runtime.backends.settings import settings_of
from device_runtime.engine import Floats, Targets
from device_runtime.errors import CorruptArtifact, CorruptCheckpoint, IncompatibleArtifact
from device_runtime.folder import Folder

DESCRIPTION, CHECKPOINT = "description.json", "checkpoint"
TRAINING, EVAL, OPTIMIZER = "training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"
UNSIGNED = b"0" * 64  # stands for the description's SHA-256 in what it is of
LOSS = "loss"  # of the training model's outputs
SCALE = "gradient_scale"  # another one: by which clipping multiplied the gradients
NEXT = "/next"  # after a running statistic's name: yet another, which is to be its new value


class OnnxRuntimeEngine(BackendEngine):
    """Plain SGD, momentum SGD, Adam or AdamW, as the artifact has it; running statistics are moved here after each step."""

    name, takes = "onnxruntime", frozenset[str]()

    @classmethod
    def open(cls, source: Source, given: Mapping[str, Any]) -> OnnxRuntimeEngine:
        assert not isinstance(source, bytes)
        description, files = _checked(source if isinstance(source, Folder) else Path(source))
        return cls(files, description, settings_of(description.recipe, given))

    def __init__(self, files: Mapping[str, bytes], description: Description, settings: Mapping[str, Any]) -> None:
        """`files` of the folder, with the checkpoint of step 0. They are kept where the optimizer has moments, which ONNX Runtime
        only loads together with everything else."""
        super().__init__(description, settings)
        self._outputs: dict[str, Any] = {}
        self._files = files
        try:
            self._load(files[CHECKPOINT])
        except _NotLoaded as error:
            raise IncompatibleArtifact(f"{error}; export the ticket again") from error
        self._files = files if self._has_moments else {}
        self._begun = self._named_values()

    def _load(self, checkpoint: bytes) -> None:
        """A module and an optimizer of the values and moments in `checkpoint`, in ONNX Runtime's own form. Raises _NotLoaded, and
        then nothing has changed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = int(self.settings["threads"]), 1
        options.log_severity_level = 3  # errors, which are raised too
        try:
            with tempfile.TemporaryDirectory() as scratch:
                for name, content in {**self._files, CHECKPOINT: checkpoint}.items():
                    Path(scratch, name).write_bytes(content)
                state = CheckpointState.load_checkpoint(Path(scratch, CHECKPOINT))
                training, evaluation, updating = (Path(scratch, name) for name in (TRAINING, EVAL, OPTIMIZER))
                module = Module(training, state, evaluation, session_options=options)
                optimizer = Optimizer(updating, module)
        except OSError:
            raise
        except Exception as error:  # it has no common class of its own
            told = " ".join(str(error).split())[:200]
            raise _NotLoaded(f"ONNX Runtime {onnxruntime.__version__} cannot load it ({told})") from error
        self._state, self._module, self._optimizer = state, module, optimizer

    def _backward(self, samples: Floats, targets: Targets) -> float:
        self._module.train()
        self._module.lazy_reset_grad()
        found = self._module(self._shaped(samples), self._targets(targets))
        outputs = found if isinstance(found, tuple) else (found,)
        self._outputs = dict(zip(self._module.output_names(), outputs, strict=True))
        return float(self._outputs[LOSS])

    def _apply(self, learning_rate: float) -> None:
        self._optimizer.set_learning_rate(learning_rate)
        self._optimizer.step()
        self._load_values({n.removesuffix(NEXT): value for n, value in self._outputs.items() if n.endswith(NEXT)})

    def _gradients_are_finite(self) -> bool:
        """Adam squares them, into moments that nobody can look at."""
        squared = self.settings["optimizer"] != "sgd"
        trained = (self._state.parameters[p.name].grad for p in self.description.parameters if not p.state)
        moved = (value for name, value in self._outputs.items() if name.endswith(NEXT))
        with np.errstate(over="ignore"):
            gradients = (gradient * gradient if squared else gradient for gradient in trained)
            return all(np.isfinite(array).all() for array in (*gradients, *moved))

    def _scores(self, samples: Floats) -> Floats:
        info = self.description.info
        shape = (len(samples),) if info.loss == "cross_entropy" else (len(samples), info.class_count)
        self._module.eval()
        _, scores, *_ = self._module(self._shaped(samples), self._targets(np.zeros(shape, np.float32)))
        return np.asarray(scores, np.float32)

    def _shaped(self, samples: Floats) -> Floats:
        return samples.reshape(len(samples), *self.description.info.input_shape)

    def _targets(self, targets: Targets) -> NDArray[Any]:
        return targets.astype(np.int64 if self.description.info.loss == "cross_entropy" else np.float32)

    def _named_gradients(self) -> dict[str, Floats]:
        """Without clipping and decay, which the graph adds, as long as no step has followed."""
        found = {}
        scale = self._outputs.get(SCALE, np.float32(1))
        decay = np.float32(0 if self.settings["optimizer"] == "adamw" else self.settings["weight_decay"])
        for name in (p.name for p in self.description.parameters if not p.state):
            parameter = self._state.parameters[name]
            found[name] = ((parameter.grad - decay * parameter.data) / scale).reshape(-1)
        return found

    def _named_values(self) -> dict[str, Floats]:
        return {p.name: self._state.parameters[p.name].data.reshape(-1).copy() for p in self.description.parameters}

    def _load_values(self, values: Mapping[str, Floats]) -> None:
        for parameter in self.description.parameters:
            if parameter.name in values:
                shape = parameter.shape if parameter.live is None else (parameter.live,)
                self._state.parameters[parameter.name] = values[parameter.name].reshape(shape).astype(np.float32)

    def _optimizer_state(self) -> Arrays:
        if not self._has_moments:
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, CHECKPOINT)
            CheckpointState.save_checkpoint(self._state, path, include_optimizer_state=True)
            return {CHECKPOINT: np.frombuffer(path.read_bytes(), np.uint8)}

    def _load_optimizer_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """What stands in ONNX Runtime's own file is for it to judge."""
        if not self._has_moments:
            return
        values, before = self._named_values(), (self._state, self._module, self._optimizer)
        try:
            self._load(state[CHECKPOINT].tobytes() if state else self._files[CHECKPOINT])
            for name, value in self._named_values().items():
                check_floats(f"parameter '{name}'", value, values[name])
        except (_NotLoaded, CorruptCheckpoint, KeyError, ValueError, TypeError, RuntimeError) as error:
            self._state, self._module, self._optimizer = before
            raise CorruptCheckpoint(
                f"the checkpoint's optimizer state is damaged ({error}); take an older one"
            ) from error
        self._load_values(values)

    @property
    def _has_moments(self) -> bool:
        return bool(self.settings["optimizer"] != "sgd" or self.settings["momentum"])

    def _start(self) -> dict[str, Floats]:
        return self._begun

    def _release(self) -> None:
        del self._optimizer, self._module, self._state, self._files


class _NotLoaded(Exception):
    """By ONNX Runtime."""


def _checked(folder: Path | Folder) -> tuple[Description, dict[str, bytes]]:
    """What the folder says of itself, and its other files. Raises CorruptArtifact, IncompatibleArtifact, OSError."""
    text = _content(folder, DESCRIPTION)
    if text is None:
        raise CorruptArtifact(
            f"'{folder}' has no {DESCRIPTION}; give a folder that `python -m export --formats ort` wrote"
        )
    path = f"{folder}/{DESCRIPTION}"
    try:
        told = json.loads(text)
        checksum = str(told["checksum"])
        whole = checksum == _digest(text.replace(checksum.encode(), UNSIGNED, 1))
        digests = {str(name): str(file["sha256"]) for name, file in told["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"'{path}' is damaged ({error!r}); export the ticket again") from error
    if not whole or set(digests) != {CHECKPOINT, TRAINING, EVAL, OPTIMIZER}:
        raise CorruptArtifact(f"'{path}' is damaged; export the ticket again")
    contents: dict[str, bytes] = {}
    for name, digest in digests.items():
        content = _content(folder, name)
        if content is None:
            raise CorruptArtifact(f"'{folder}/{name}' is missing; export the ticket again")
        if _digest(content) != digest:
            raise CorruptArtifact(f"'{folder}/{name}' is damaged; export the ticket again")
        contents[name] = content
    sections = {DESCRIPTION: len(text), **{name: len(content) for name, content in contents.items()}}
    return read_description(text, sum(sections.values()), sections), contents


def _content(folder: Path | Folder, name: str) -> bytes | None:
    """None where there is no such file."""
    if isinstance(folder, Folder):
        return folder.contents.get(name)
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
