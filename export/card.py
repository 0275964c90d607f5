"""The parts of a ticket's card that devices train by: the recipe and the normalisation of the input.

Everything else in a card is for people and apps and is never read here. Ranges as in FORMAT.md, after rounding to f32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.operators import f32
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
OPTIONAL_KEYS = (
    "nesterov",
    "label_smoothing",
    "clip_norm",
    "schedule",
    "warmup_steps",
    "schedule_steps",
    "schedule_factor",
    "class_weights",
)
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES: Mapping[str, float] = {"constant": 1.0, "step": 0.1, "cosine": 0.0, "linear": 0.0}  # and its usual factor
U32_MAX = 2**32 - 1


@dataclass(frozen=True)
class Recipe:
    """How a device trains: floats are rounded to f32; `epochs` is a suggestion, 0 = none; `clip_norm` 0 = no limit.

    `class_weights` has one weight a class, or None where all weigh the same.
    """

    optimizer: str
    batch: int
    learning_rate: float
    momentum: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    epochs: int
    nesterov: bool
    label_smoothing: float
    clip_norm: float
    schedule: str
    warmup_steps: int
    schedule_steps: int
    schedule_factor: float
    class_weights: Floats | None


@dataclass(frozen=True)
class Normalisation:
    """`(x - mean[c]) * inverse_std[c]`; one channel, or as many as the first dimension of a sample."""

    mean: Floats
    inverse_std: Floats


def recipe(ticket: Ticket) -> Recipe:
    """Raises TicketError for a key that is missing, unknown or out of range, or that the network's loss has no use for."""
    part = _part(ticket, "recipe", RECIPE_KEYS, OPTIONAL_KEYS)
    _one_of(part, "optimizer", OPTIMIZERS)
    schedule = _one_of(part, "schedule", tuple(SCHEDULES)) if "schedule" in part else "constant"
    part = {
        "nesterov": False,
        "label_smoothing": 0.0,
        "clip_norm": 0.0,
        "warmup_steps": 0,
        "schedule_steps": 0,
        "schedule_factor": SCHEDULES[schedule],
        **part,
    }
    found = Recipe(
        optimizer=part["optimizer"],
        batch=_whole(part, "batch", 1, 65536),
        learning_rate=_real(part, "learning_rate", 0, math.inf),
        momentum=_real(part, "momentum", 0, 1),
        weight_decay=_real(part, "weight_decay", 0, math.inf),
        beta1=_real(part, "beta1", 0, 1),
        beta2=_real(part, "beta2", 0, 1),
        epsilon=_real(part, "epsilon", 0, math.inf, above_low=True),
        epochs=_whole(part, "epochs", 0, U32_MAX),
        nesterov=part["nesterov"],
        label_smoothing=_real(part, "label_smoothing", 0, 1),
        clip_norm=_real(part, "clip_norm", 0, math.inf),
        schedule=schedule,
        warmup_steps=_whole(part, "warmup_steps", 0, U32_MAX),
        schedule_steps=_whole(part, "schedule_steps", 0, U32_MAX),
        schedule_factor=_real(part, "schedule_factor", 0, 1, to_high=True),
        class_weights=_class_weights(part, ticket),
    )
    _check_together(found, ticket.network.loss)
    return found


def _check_together(r: Recipe, loss: str) -> None:
    """What a key allows another one."""
    if type(r.nesterov) is not bool or (r.nesterov and r.momentum == 0):
        raise TicketError(
            f"card recipe: nesterov {r.nesterov!r} with momentum {r.momentum}; it is true or false, and true needs momentum > 0"
        )
    if r.schedule == "constant" and (r.schedule_steps, r.schedule_factor) != (0, 1.0):
        raise TicketError(
            f"card recipe: schedule 'constant' with schedule_steps {r.schedule_steps} and schedule_factor "
            f"{r.schedule_factor}; leave both out, or choose another schedule"
        )
    if r.schedule != "constant" and r.schedule_steps == 0:
        raise TicketError(f"card recipe: schedule {r.schedule!r} with schedule_steps 0; give the steps it takes")
    if r.label_smoothing > 0 and loss != "cross_entropy":
        raise TicketError(
            f"card recipe: label_smoothing {r.label_smoothing} with the loss {loss}; only cross_entropy has labels to "
            "smooth, leave it out"
        )


def _class_weights(part: Mapping[str, Any], ticket: Ticket) -> Floats | None:
    if "class_weights" not in part:
        return None
    given, loss, (classes,) = part["class_weights"], ticket.network.loss, ticket.network.output_shape
    if loss != "cross_entropy":
        raise TicketError(
            f"card recipe: class_weights with the loss {loss}; only cross_entropy has classes, leave them out"
        )
    weights = [_f32(value) for value in given] if isinstance(given, list) else []
    finite = [w for w in weights if w is not None and 0 <= w < math.inf]
    if len(finite) != classes or len(weights) != classes or not any(finite):
        raise TicketError(
            f"card recipe: class_weights {str(given)[:60]}; give one finite weight >= 0 for each of the {classes} classes, not all 0"
        )
    return np.array(finite, np.float32)


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
    if any(node.op == "embedding" for node in ticket.network.nodes) and (mean.any() or (inverse_std != 1).any()):
        raise TicketError(
            "card input: the network's embedding reads whole numbers, which must stay as they are; give mean 0 and inverse_std 1"
        )
    return Normalisation(mean, inverse_std)


def _part(ticket: Ticket, name: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Any]:
    part = ticket.card.get(name)
    if not isinstance(part, dict) or not set(keys) <= set(part) <= {*keys, *optional}:
        found = sorted(part) if isinstance(part, dict) else part
        also = f", and may have {', '.join(optional)}" if optional else ""
        raise TicketError(f"card {name}: {found}, but it needs exactly {', '.join(keys)}{also}")
    return part


def _one_of(part: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = part[key]
    if value not in known:
        raise TicketError(f"card recipe: {key} {value!r}; known are {', '.join(known)}")
    return str(value)


def _whole(part: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = part[key]
    if type(value) is not int or not low <= value <= high:
        raise TicketError(f"card recipe: {key} {value!r} must be a whole number in {low}..{high}")
    return value


def _real(
    part: Mapping[str, Any], key: str, low: float, high: float, *, above_low: bool = False, to_high: bool = False
) -> float:
    value = _f32(part[key])
    if value is None or not low <= value <= high or (above_low and value == low) or (value == high and not to_high):
        raise TicketError(
            f"card recipe: {key} {part[key]!r} must be in {'(' if above_low else '['}{low}, {high}{']' if to_high else ')'} as f32"
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
        return f32(float(value))
    except OverflowError:  # a whole number beyond f64
        return math.inf
