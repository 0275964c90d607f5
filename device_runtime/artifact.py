"""What an artifact holds and what training from it would cost, told before anything is allocated.

The C core checks every byte; only the sizes of the sections and the recipe's number of epochs, which the C interface
does not hand out, are read here (export/FORMAT.md).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_runtime import _core
from device_runtime.errors import CorruptArtifact, InvalidInput

OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 3}
SCHEDULES = {"constant": 0, "step": 1, "cosine": 2, "linear": 3}
LOSSES = {"cross_entropy": 1, "mse": 2, "bce": 3}
KERNELS = {"auto": 0, "scalar": 1, "avx2": 2, "avx512": 3, "neon": 4}
STARTS = {"init": 0, "trained": 1}

_SECTIONS = {1: "card", 2: "recipe", 3: "input", 4: "graph", 5: "params", 6: "pattern", 7: "init", 8: "trained"}
_SECTIONS |= {9: "class_weights", 10: "origin", 11: "packed_pattern", 12: "packed_init", 13: "packed_trained"}
_CHOICES: dict[str, Mapping[str, int]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "kernels": KERNELS,
    "start": STARTS,
}

Source = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class ArtifactInfo:
    """An artifact in numbers. `nnz` counts the live weights of pruned layers, `value_count` all floats kept.

    `density` and `dense_count` are relative to the original network, with the units that export left out.
    """

    input_shape: tuple[int, ...]
    input_elements: int
    class_count: int
    loss: str
    operators: tuple[str, ...]
    parameter_count: int
    has_trained: bool
    nnz: int
    density: float
    value_count: int
    dense_count: int
    epochs: int
    ticket_hash: str
    artifact_bytes: int
    sections: Mapping[str, int]
    card: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """One name a class: the card's, or the numbers where it has none that fit."""
        labels = self.card.get("labels")
        if isinstance(labels, list) and len(labels) == self.class_count:
            return tuple(str(label) for label in labels)
        return tuple(str(index) for index in range(self.class_count))


def read_artifact(source: Source) -> bytes:
    """The bytes of the file `source`, or `source` itself if it is bytes. Raises OSError if it cannot be read."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def read_info(artifact: bytes) -> ArtifactInfo:
    """Checks the whole artifact; raises CorruptArtifact, IncompatibleArtifact or UnsupportedOp."""
    facts = _core.inspect(artifact)
    sections = _sections(artifact)
    recipe_offset, _ = sections["recipe"]
    weights = facts["pruned_layer_weights"]
    return ArtifactInfo(
        input_shape=facts["input_shape"],
        input_elements=facts["input_elements"],
        class_count=facts["class_count"],
        loss=_name(LOSSES, facts["loss"]),
        operators=tuple(_core.operators(artifact)),
        parameter_count=facts["parameter_count"],
        has_trained=facts["has_trained"],
        nnz=facts["pruned_layer_live"],
        density=facts["pruned_layer_live"] / weights if weights else 1.0,
        value_count=facts["value_count"],
        dense_count=facts["dense_count"],
        epochs=struct.unpack_from("<I", artifact, recipe_offset + 32)[0],
        ticket_hash=facts["ticket_hash"].hex(),
        artifact_bytes=len(artifact),
        sections={name: size for name, (_, size) in sections.items()},
        card=_card(facts["card"]),
    )


def make_options(artifact: bytes, **given: Any) -> _core.Options:
    """The recipe's options, with what is `given` and not None in place; raises InvalidInput naming what is bad."""
    options = _core.default_options(artifact)
    for name, value in given.items():
        if value is None:
            continue
        if name in _CHOICES and value not in _CHOICES[name]:
            raise InvalidInput(f"{name} {value!r} is not known; choose {', '.join(_CHOICES[name])}")
        try:
            setattr(options, name, _CHOICES[name][value] if name in _CHOICES else value)
        except (TypeError, OverflowError):
            kind = type(getattr(options, name)).__name__
            raise InvalidInput(f"{name} {value!r} is out of range or not a number; give {_KINDS[kind]}") from None
    return options


PLANNED = ("micro_batch", "recomputed_nodes", "half_buffers")


def memory_plan(artifact: bytes, options: _core.Options) -> tuple[dict[str, int], dict[str, int]]:
    """The arena by part in bytes, with its `total`; and by what it is met, the names of PLANNED."""
    memory = _core.memory_plan(artifact, options)
    return memory, {name: memory.pop(name) for name in PLANNED}


_KINDS = {"int": "a whole number from 0 on", "float": "a number"}


def inspect(source: Source, **options: Any) -> dict[str, Any]:
    """Everything about an artifact, and about a trainer with these options (as in Trainer.open), as plain JSON values.

    `arena_bytes` is exact: the memory a trainer takes, artifact apart. Raises as Trainer.open does.
    """
    artifact = read_artifact(source)
    info = read_info(artifact)
    chosen = make_options(artifact, **options)
    memory, planned = memory_plan(artifact, chosen)
    result: dict[str, Any] = {
        "ticket_hash": info.ticket_hash,
        "artifact_bytes": info.artifact_bytes,
        "sections": dict(info.sections),
        "input_shape": list(info.input_shape),
        "class_count": info.class_count,
        "operators": list(info.operators),
        "nnz": info.nnz,
        "density": info.density,
        "value_count": info.value_count,
        "dense_count": info.dense_count,
        "has_trained": info.has_trained,
        "arena_bytes": _core.arena_bytes(artifact, chosen),
        "memory": memory,
        "batch": chosen.batch,
        **planned,
        "epochs": info.epochs,
    }
    return result | optimizer_settings(_name(OPTIMIZERS, chosen.optimizer), chosen) | {"card": dict(info.card)}


def optimizer_settings(optimizer: str, options: _core.Options) -> dict[str, Any]:
    """The optimizer's name and the settings that it reads, rounded as the float32 they are."""
    names = ["learning_rate", "weight_decay"] + (["momentum"] if optimizer == "sgd" else ["beta1", "beta2", "epsilon"])
    return {"optimizer": optimizer} | {name: float(f"{getattr(options, name):.7g}") for name in names}


def _name(codes: Mapping[str, int], wanted: int) -> str:
    return next(name for name, code in codes.items() if code == wanted)


def _sections(artifact: bytes) -> dict[str, tuple[int, int]]:
    """Offset and size by name, out of the section table of an artifact that was checked."""
    (count,) = struct.unpack_from("<I", artifact, 16)
    table = [struct.unpack_from("<4I", artifact, 64 + 16 * index) for index in range(count)]
    return {_SECTIONS.get(kind, f"0x{kind:04x}"): (offset, size) for kind, offset, size, _ in table}


def _card(text: bytes) -> Mapping[str, Any]:
    try:
        card = json.loads(text)
        json.dumps(card, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate pair could not be printed
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise CorruptArtifact("the card is not a JSON object; export the ticket again")
    return card
