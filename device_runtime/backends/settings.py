"""What a trainer of another runtime works by: the recipe of its artifact with what was asked for in place, checked.

The ranges and rules are those of the core (core/options.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_runtime.artifact import SCHEDULES
from device_runtime.errors import InvalidInput

WHOLE = {
    "batch": (1, 65536),
    "seed": (0, 2**64 - 1),
    "threads": (1, 64),
    "warmup_steps": (0, 2**32 - 1),
    "schedule_steps": (0, 2**32 - 1),
}
MAX_FLOAT = 3.4028234663852886e38  # the largest f32, which the core takes
REAL = {"learning_rate": MAX_FLOAT, "schedule_factor": 1.0}


def settings_of(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Raises InvalidInput naming what is bad."""
    chosen = {"seed": 0, "threads": 1, **recipe, **given}
    for name, (low, high) in WHOLE.items():
        if type(chosen[name]) is not int or not low <= chosen[name] <= high:
            raise InvalidInput(f"{name} {chosen[name]!r} must be a whole number in {low} to {high}")
    for name, most in REAL.items():
        value = chosen[name]
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise InvalidInput(f"{name} {value!r} must be in 0 to {most:.4g}")
    if chosen["schedule"] not in SCHEDULES:
        raise InvalidInput(f"schedule {chosen['schedule']!r} is not known; choose {', '.join(SCHEDULES)}")
    if (chosen["schedule"] == "constant") != (chosen["schedule_steps"] == 0):
        raise InvalidInput(
            f"schedule_steps {chosen['schedule_steps']} must be 0 for a constant schedule and at least 1 for every other"
        )
    return chosen
