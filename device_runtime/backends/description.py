"""What an artifact of another runtime says of itself: the JSON that export/description.py writes, checked.

Refuses what is missing, of another version or of the wrong type as CorruptArtifact or IncompatibleArtifact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_runtime.artifact import ArtifactInfo
from device_runtime.errors import CorruptArtifact, IncompatibleArtifact

VERSION = 1


@dataclass(frozen=True)
class Parameter:
    """`live`: how many of its weights are left, None where none was pruned; state parameters are not trained."""

    name: str
    shape: tuple[int, ...]
    live: int | None
    state: bool

    @property
    def size(self) -> int:
        """Values that are kept of it."""
        return math.prod(self.shape) if self.live is None else self.live


@dataclass(frozen=True)
class Description:
    """A ticket's facts, and the `recipe` by which devices train it."""

    info: ArtifactInfo
    parameters: tuple[Parameter, ...]
    recipe: Mapping[str, Any]


def read_description(text: bytes, artifact_bytes: int, sections: Mapping[str, int]) -> Description:
    """Of the JSON in `text`; `artifact_bytes` in all, by part in `sections`."""
    try:
        told = json.loads(text)
        version = told["version"]
        if version != VERSION:
            raise IncompatibleArtifact(
                f"description version {version}, but this package reads {VERSION}; export the ticket again"
            )
        parameters = tuple(Parameter(p["name"], tuple(p["shape"]), p["live"], p["state"]) for p in told["parameters"])
        pruned = [p for p in parameters if p.live is not None]
        shape = tuple(int(extent) for extent in told["input_shape"])
        info = ArtifactInfo(
            input_shape=shape,
            input_elements=math.prod(shape),
            class_count=int(told["class_count"]),
            loss=str(told["loss"]),
            operators=tuple(told["operators"]),
            parameter_count=len(parameters),
            has_trained=bool(told["has_trained"]),
            nnz=sum(p.size for p in pruned),
            density=float(told["density"]),
            value_count=sum(p.size for p in parameters),
            dense_count=int(told["dense_count"]),
            epochs=int(told["recipe"]["epochs"]),
            ticket_hash=str(told["ticket_hash"]),
            artifact_bytes=artifact_bytes,
            sections=dict(sections),
            card=dict(told["card"]),
        )
        return Description(info, parameters, dict(told["recipe"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptArtifact(f"the description is damaged ({error!r}); export the ticket again") from error
