"""A winning ticket: a network, its fixed initial weights, and which of them are live.

Frozen and checked at construction; the mask is never inferred from a value (a live weight may be 0.0). On disk a
directory of `ticket.json` and `weights.safetensors`, written atomically. Needs numpy and safetensors, never torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from export.atomic import write_directory
from export.drawn import Drawn
from export.network import Network, NetworkError

FORMAT = "pocket-ticket/1"
JSON_NAME = "ticket.json"
WEIGHTS_NAME = "weights.safetensors"
DOCUMENT_KEYS = ("format", "network", "pruned", "has_trained", "weights_sha256", "card", "drawn")

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]


class TicketError(ValueError):
    """A ticket that breaks a rule, or files that do not hold one; the text names the thing, value and remedy."""


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse network and the weights it must be trained from. Two tickets are equal if their hashes are.

    `init` has every parameter, running statistics included, at the rewind step; pruned weights are exactly 0 (-0 becomes +0). `masks` has a bool
    array, true = live, of the weight's shape for each pruned parameter, a subset of `network.prunable`. `trained`,
    optional, has the values after training on the server, with the same zeros. `card` is JSON for people and apps; its
    `input` and `recipe` parts are what devices train by (export/card.py). `drawn`, optional, is the seed that gives every
    live value of `init` bit for bit, and what each parameter was drawn from.
    """

    network: Network
    init: Mapping[str, Floats]
    masks: Mapping[str, Bits]
    trained: Mapping[str, Floats] | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    drawn: Drawn | None = None

    def __post_init__(self) -> None:
        shapes = self.network.parameter_shapes
        masks = _frozen_arrays(self.masks, np.bool_)
        for name in masks:
            if name not in self.network.prunable:
                raise TicketError(
                    f"mask '{name}': not a prunable parameter; prunable are {', '.join(self.network.prunable)}"
                )
            _check_shape(f"mask '{name}'", masks[name], shapes[name])
            if not masks[name].any():
                raise TicketError(f"mask '{name}': no live weight is left; prune less")
        masks = {name: masks[name] for name in shapes if name in masks}  # one order, so one hash
        object.__setattr__(self, "masks", MappingProxyType(masks))
        object.__setattr__(self, "init", _checked_values("init", self.init, shapes, masks))
        if self.trained is not None:
            object.__setattr__(self, "trained", _checked_values("trained", self.trained, shapes, masks))
        object.__setattr__(self, "card", _checked_card(self.card))
        self._check_variances()
        if self.drawn is not None:
            self._check_drawn(self.drawn)

    def _check_drawn(self, drawn: Drawn) -> None:
        if list(drawn.distributions) != list(self.init):
            raise TicketError(
                f"drawn: parameters {list(drawn.distributions)} but the network has {list(self.init)}, in this order"
            )
        for name, values in self.init.items():
            live = np.flatnonzero(self.masks.get(name, np.ones(values.shape, np.bool_)))
            there, given = values.ravel()[live], drawn.at(name, live)
            if len(wrong := np.flatnonzero(there.view(np.uint32) != given.view(np.uint32))):
                raise TicketError(
                    f"init '{name}': element {live[wrong[0]]} is {there[wrong[0]]} but seed {drawn.seed} gives "
                    f"{given[wrong[0]]}; leave drawn out"
                )

    def _check_variances(self) -> None:
        for name in (node.params[role] for node in self.network.nodes for role in node.params if role == "running_var"):
            for kind, values in (("init", self.init), ("trained", self.trained)):
                if values is not None and (values[name] < 0).any():
                    raise TicketError(
                        f"{kind} '{name}': a variance of {values[name].min()} is below 0; mend the batch norm"
                    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticket) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def live(self) -> int:
        """Live weights of the pruned parameters."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def density(self) -> float:
        """Live weights over all weights of the pruned parameters; biases do not count. 1.0 when nothing is pruned."""
        total = sum(mask.size for mask in self.masks.values())
        return self.live / total if total else 1.0

    @property
    def hash(self) -> str:
        """SHA-256 of the ticket.json this ticket is saved as; it covers the weights too. Hexadecimal."""
        return hashlib.sha256(self._serialise()[0]).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the directory `path`, whole or not at all; an equal ticket there is left, any other never overwritten.

        Raises TicketError if something else stands at `path`, OSError if the disk refuses.
        """
        target = Path(path)
        document, weights = self._serialise()
        if target.exists():
            if (target / JSON_NAME).is_file() and (target / JSON_NAME).read_bytes() == document:
                load_ticket(target)
                return target
            raise TicketError(f"'{target}' exists and holds something else; choose another path or remove it")
        write_directory(target, {WEIGHTS_NAME: weights, JSON_NAME: document})
        return target

    def _serialise(self) -> tuple[bytes, bytes]:
        tensors: dict[str, np.ndarray[Any, Any]] = {f"init/{name}": array for name, array in self.init.items()}
        tensors |= {
            f"mask/{name}": np.packbits(mask, axis=None, bitorder="little") for name, mask in self.masks.items()
        }
        if self.trained is not None:
            tensors |= {f"trained/{name}": array for name, array in self.trained.items()}
        weights = save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})
        document = {
            "format": FORMAT,
            "network": self.network.to_json(),
            "pruned": list(self.masks),
            "has_trained": self.trained is not None,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "card": dict(self.card),
            **({} if self.drawn is None else {"drawn": self.drawn.to_json()}),
        }
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), weights


def load_ticket(path: str | os.PathLike[str]) -> Ticket:
    """Reads and checks the directory `path`; raises TicketError if it is not exactly a saved ticket."""
    directory = Path(path)
    try:
        document = json.loads((directory / JSON_NAME).read_bytes())
        weights = (directory / WEIGHTS_NAME).read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise TicketError(f"'{directory}' is not a ticket: {error}; expected {JSON_NAME} and {WEIGHTS_NAME}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise TicketError(f"'{directory}': format {found!r}, but this version reads {FORMAT!r}")
    if unknown := sorted(set(document) - set(DOCUMENT_KEYS)):
        raise TicketError(f"'{directory}': {JSON_NAME} has a key '{unknown[0]}' that this version does not know")
    if hashlib.sha256(weights).hexdigest() != document.get("weights_sha256"):
        raise TicketError(
            f"'{directory}': {WEIGHTS_NAME} is damaged or of another ticket (SHA-256 differs); copy it again"
        )
    try:
        network = Network.from_json(document["network"])
        tensors = load(weights)
        shapes = network.parameter_shapes
        masks = {name: _unpack(tensors.pop(f"mask/{name}"), shapes[name]) for name in document["pruned"]}
        init = {name: tensors.pop(f"init/{name}") for name in shapes}
        trained = {name: tensors.pop(f"trained/{name}") for name in shapes} if document["has_trained"] else None
        if tensors:
            raise TicketError(f"unknown tensor '{min(tensors)}'")
        return Ticket(network, init, masks, trained, document["card"], _drawn(document))
    except (NetworkError, TicketError) as error:
        raise TicketError(f"'{directory}': {error}") from error
    except (KeyError, TypeError, SafetensorError) as error:
        raise TicketError(f"'{directory}' is not a ticket: {type(error).__name__} {error}; copy it again") from error


def _drawn(document: Mapping[str, Any]) -> Drawn | None:
    try:
        return Drawn.from_json(document["drawn"]) if "drawn" in document else None
    except ValueError as error:
        raise TicketError(f"drawn: {error}; copy it again") from error


def _unpack(packed: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Bits:
    size = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != ((size + 7) // 8,):
        raise TicketError(f"mask of {packed.size} bytes for a weight of shape {shape}")
    bits = np.unpackbits(packed, bitorder="little")
    if bits[size:].any():
        raise TicketError("mask has bits set behind its end")
    return bits[:size].astype(np.bool_).reshape(shape)


def _frozen_arrays(arrays: Mapping[str, Any], dtype: type[np.generic]) -> Mapping[str, Any]:
    frozen = {}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            raise TicketError(
                f"'{name}' must be a numpy array of {dtype.__name__}, not {getattr(array, 'dtype', type(array))}"
            )
        frozen[name] = np.array(array, order="C")
        frozen[name].setflags(write=False)
    return MappingProxyType(frozen)


def _check_shape(what: str, array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise TicketError(f"{what}: shape {array.shape} but the network says {shape}")


def _checked_values(
    kind: str, values: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]], masks: Mapping[str, Bits]
) -> Mapping[str, Floats]:
    if set(values) != set(shapes):
        raise TicketError(f"{kind}: parameters {sorted(values)} but the network has {sorted(shapes)}")
    frozen = _frozen_arrays({name: values[name] for name in shapes}, np.float32)
    for name, array in frozen.items():
        _check_shape(f"{kind} '{name}'", array, shapes[name])
        if not np.isfinite(array).all():
            raise TicketError(f"{kind} '{name}': holds NaN or infinite values")
    return MappingProxyType({name: _pruned_exactly(kind, name, frozen[name], masks.get(name)) for name in frozen})


def _pruned_exactly(kind: str, name: str, array: Floats, mask: Bits | None) -> Floats:
    if mask is None:
        return array
    if np.any(array[~mask]):
        raise TicketError(f"{kind} '{name}': a pruned weight is not exactly 0; multiply by the mask first")
    array = np.where(mask, array, np.float32(0))  # a product with the mask leaves -0 behind
    array.setflags(write=False)
    return array


def _checked_card(card: Any) -> Mapping[str, Any]:
    if not isinstance(card, Mapping):
        raise TicketError(f"card: {type(card).__name__}, but it must be a JSON object")
    try:
        return MappingProxyType(json.loads(json.dumps(dict(card), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TicketError(f"card: {error}; it must hold plain numbers, texts and lists") from error
