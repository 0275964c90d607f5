"""Learning rates of every step, against PyTorch's schedulers and against the formulas of devices; lengths of a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server_side.errors import UsageError
from server_side.schedule import learning_rates
from server_side.steps import parse_steps, scaled
from server_side.training import Recipe


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 0.4,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "batch": 8,
        "steps": 50,
        "evaluate_every": 10,
    }
    return Recipe(**{**settings, **changes})


def torch_rates(make: Any, steps: int = 50) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.4)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_every_schedule_is_pytorchs() -> None:
    schedules = torch.optim.lr_scheduler
    steps = recipe(schedule="step", drops=(20, 35), factor=0.1)
    expected = torch_rates(lambda o: schedules.MultiStepLR(o, [20, 35], 0.1))
    np.testing.assert_allclose(learning_rates(steps, 0, 50), expected, rtol=1e-6)
    expected = torch_rates(lambda o: schedules.CosineAnnealingLR(o, 50))
    np.testing.assert_allclose(learning_rates(recipe(schedule="cosine"), 0, 50), expected, rtol=1e-5)
    expected = torch_rates(lambda o: schedules.LinearLR(o, 1.0, 0.0, 50))
    np.testing.assert_allclose(learning_rates(recipe(schedule="linear"), 0, 50), expected, rtol=1e-5)
    assert learning_rates(recipe(), 3, 9).tolist() == [np.float32(0.4)] * 6


def test_the_warm_up_rises_to_the_rate_and_the_schedule_takes_what_is_left() -> None:
    rates = learning_rates(recipe(schedule="cosine", warmup=10), 0, 50)
    np.testing.assert_allclose(rates[:10], 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(
        rates[10:], torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40), 40), rtol=1e-5
    )


def test_a_rewound_ticket_takes_the_schedule_up_where_it_starts() -> None:
    whole = recipe(schedule="step", drops=(20, 35), warmup=5)
    assert learning_rates(whole, 17, 50).tolist() == learning_rates(whole, 0, 50)[17:].tolist()
    assert not whole.has_constant_rate
    assert recipe().has_constant_rate


def test_fine_tuning_holds_the_last_rate() -> None:
    rates = learning_rates(recipe(schedule="step", drops=(20, 35), factor=0.1), 10, 50, held=True)
    np.testing.assert_allclose(rates, np.full(40, 0.004), rtol=1e-6)


def test_lengths_of_a_protocol_go_with_its_steps() -> None:
    preset = {
        "steps": "30000it",
        "warmup": "20000it",
        "learning_rate_drops": ["20000it", "25000it"],
        "rewind_step": "0it",
    }
    shorter = scaled(preset, preset, "3000it")
    assert shorter["warmup"] == "2000it"
    assert shorter["learning_rate_drops"] == ["2000it", "2500it"]
    assert shorter["rewind_step"] == "0it"
    assert scaled(preset, preset, None) == preset
    with pytest.raises(UsageError, match=r"steps '20ep': this model's protocol is in it; give them as e.g. 30000it"):
        scaled(preset, preset, "20ep")


def test_lengths_are_steps_or_epochs() -> None:
    assert (parse_steps("500it", 16, "steps"), parse_steps("3ep", 16, "steps")) == (500, 48)
    for text in ("500", "it", "-1it", "1.5ep", "3 ep"):
        with pytest.raises(UsageError, match="expected steps like 500it"):
            parse_steps(text, 16, "steps")
