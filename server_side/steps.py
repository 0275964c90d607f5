"""Lengths of a training as users write them: 500it are steps, 20ep epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server_side.errors import UsageError

WITH_STEPS = ("warmup", "learning_rate_drops", "rewind_step")  # lengths of a preset that go with its steps


def parse_steps(text: str, steps_per_epoch: int, name: str) -> int:
    """Steps of `500it` or `20ep`; raises UsageError naming the option."""
    number, unit = _parts(text, name)
    return number * (1 if unit == "it" else steps_per_epoch)


def scaled(values: Mapping[str, Any], preset: Mapping[str, Any], steps: str | None) -> dict[str, Any]:
    """`values` with the lengths that the preset measures in steps changed in proportion, where a user chose other `steps`."""
    if steps is None or "steps" not in preset or not any(name in values for name in WITH_STEPS):
        return dict(values)
    new, unit = _parts(steps, "steps")
    old, preset_unit = _parts(preset["steps"], "steps")

    def changed(text: str) -> str:
        if text == "auto":
            return text
        number, its_unit = _parts(text, "steps")
        if number == 0:
            return text
        if unit != preset_unit:
            raise UsageError(
                f"steps '{steps}': this model's protocol is in {preset_unit}; give them as e.g. {old}{preset_unit}"
            )
        return f"{max(1, round(number * new / old))}{its_unit}"  # a net rewound to step 0 is another experiment

    drops = values.get("learning_rate_drops") or []
    if len({changed(text) for text in drops}) < len(drops):
        raise UsageError(
            f"steps '{steps}': too short for this model's learning_rate_drops {drops} of {preset['steps']}, which fall together "
            "there; take more steps, or --learning-rate-schedule constant"
        )
    return {
        name: ([changed(text) for text in value] if isinstance(value, list) else changed(value))
        if name in WITH_STEPS
        else value
        for name, value in values.items()
    }


def _parts(text: str, name: str) -> tuple[int, str]:
    number, unit = text[:-2], text[-2:]
    if unit not in ("it", "ep") or not number.isdecimal():
        raise UsageError(f"{name} '{text}': expected steps like 500it or epochs like 20ep")
    return int(number), unit
