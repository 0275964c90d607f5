"""The parts of a ticket's card that devices train by: the recipe and the normalisation of the input.

Everything else in a card is for people and apps and is never read here. Ranges as in FORMAT.md, after rounding to f32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.ticket import Floats, Ticket, TicketError

RECIPE_KEYS = (
    "optimizer",
    "batch",
    "learning_rate",
    "momentum",
    "weight_decay",
    "beta1",
    "beta2",
    "epsilon",
    "epochs",
)
OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Recipe:
    """How a device trains: floats are rounded to f32; `epochs` is a suggestion, 0 = none."""

    optimizer: str
    batch: int
    learning_rate: float
    momentum: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    epochs: int


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean[c]) * inverse_std[c]`; one channel, or as many as the first dimension of a sample."""

    mean: Floats
    inverse_std: Floats


def recipe(ticket: Ticket) -> Recipe:
    """Raises TicketError for a key that is missing, unknown or out of range."""
    part = _part(ticket, "recipe", RECIPE_KEYS)
    if part["optimizer"] not in OPTIMIZERS:
        raise TicketError(f"card recipe: optimizer {part['optimizer']!r}; known are {', '.join(OPTIMIZERS)}")
    return Recipe(
        optimizer=part["optimizer"],
        batch=_whole(part, "batch", 1, 65536),
        learning_rate=_real(part, "learning_rate", 0, math.inf),
        momentum=_real(part, "momentum", 0, 1),
        weight_decay=_real(part, "weight_decay", 0, math.inf),
        beta1=_real(part, "beta1", 0, 1),
        beta2=_real(part, "beta2", 0, 1),
        epsilon=_real(part, "epsilon", 0, math.inf, above_low=True),
        epochs=_whole(part, "epochs", 0, 2**32 - 1),
    )


def normalisation(ticket: Ticket) -> Normalisation:
    """Raises TicketError for a key that is missing, unknown, of the wrong length or out of range."""
    part = _part(ticket, "input", ("mean", "inverse_std"))
    mean, inverse_std = _channels(part, "mean"), _channels(part, "inverse_std")
    shape = ticket.network.input_shape
    if len(mean) != len(inverse_std) or len(mean) not in (1, shape[0]):
        raise TicketError(
            f"card input: {len(mean)} means and {len(inverse_std)} inverse_stds for a sample of shape {shape}; "
            f"give 1 of each, or {shape[0]}"
        )
    if not (inverse_std > 0).all():
        raise TicketError(f"card input: inverse_std {inverse_std.min()} must be above 0; leave constant inputs at 1")
    return Normalisation(mean, inverse_std)


def _part(ticket: Ticket, name: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    part = ticket.card.get(name)
    if not isinstance(part, dict) or set(part) != set(keys):
        found = sorted(part) if isinstance(part, dict) else part
        raise TicketError(f"card {name}: {found}, but it needs exactly {', '.join(keys)}")
    return part


def _whole(part: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = part[key]
    if type(value) is not int or not low <= value <= high:
        raise TicketError(f"card recipe: {key} {value!r} must be a whole number in {low}..{high}")
    return value


def _real(part: Mapping[str, Any], key: str, low: float, high: float, *, above_low: bool = False) -> float:
    value = _f32(part[key])
    if value is None or not low <= value < high or (above_low and value == low):
        raise TicketError(
            f"card recipe: {key} {part[key]!r} must be in {'(' if above_low else '['}{low}, {high}) as f32"
        )
    return value


def _channels(part: Mapping[str, Any], key: str) -> Floats:
    values = [_f32(value) for value in part[key]] if isinstance(part[key], list) else []
    if not values or any(value is None or not math.isfinite(value) for value in values):
        raise TicketError(f"card input: {key} {str(part[key])[:60]} must be a list of finite numbers")
    return np.array(values, np.float32)


def _f32(value: Any) -> float | None:
    """Rounded to f32 (infinite if too large); None for what is not a number."""
    if type(value) not in (int, float):
        return None
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    except OverflowError:  # a whole number beyond f64
        return math.inf
