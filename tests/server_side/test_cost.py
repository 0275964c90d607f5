"""Multiply-adds are those that a network's layers make; what a search did is counted by kind; no estimate without its why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.lower import lower
from server_side.cost import Assumptions, Cost, Work, explain, forward_macs, iterative_steps, training_macs, work
from server_side.summary import conclude
from tests.server_side.searches import Tiny, search


class Branched(nn.Module):
    """Two strided convolutions side by side on the input, one of them grouped, and a layer on both."""

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.Conv2d(4, 6, 1, stride=2, groups=groups)
        self.norm, self.out = nn.BatchNorm2d(6), nn.Linear(6 * 4 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(torch.relu(self.norm(self.one(x) + self.two(x))).flatten(1))
        return y


def test_macs_of_lenet_are_its_weights() -> None:
    lenet = lower(
        nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)), (784,)
    )
    assert forward_macs(lenet) == 266_200
    assert training_macs(lenet) == 3 * 266_200 - 784 * 300  # no gradient of the samples


@pytest.mark.parametrize("groups", [1, 2])
def test_macs_are_those_of_torchs_own_counter(groups: int) -> None:
    """An independent count of what PyTorch runs, forward and with the backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    net, x = Branched(groups).eval(), torch.randn(1, 4, 8, 8)
    network = lower(net, (4, 8, 8))
    with FlopCounterMode(display=False) as forward:
        net(x)
    with FlopCounterMode(display=False) as both:
        net(x).sum().backward()
    assert forward_macs(network) == forward.get_total_flops() // 2
    overcounted = (groups - 1) * 6 * 2 * 16  # torch takes the gradient of a grouped weight for that of a whole one
    assert training_macs(network) == both.get_total_flops() // 2 - overcounted


def test_live_macs_follow_the_masks_layer_by_layer() -> None:
    network = lower(Branched().eval(), (4, 8, 8))
    masks = {name: np.ones(network.parameter_shapes[name], np.bool_) for name in network.prunable}
    assert forward_macs(network, masks) == forward_macs(network)
    masks["one.weight"][0] = False  # one kernel of 4 * 9 weights, read at 16 places
    masks["out.weight"][:, 5] = False  # three weights
    assert forward_macs(network) - forward_macs(network, masks) == 36 * 16 + 3
    assert training_macs(network) - training_macs(network, masks) == 2 * 36 * 16 + 3 * 3
    done = work(network, masks, batch=10, steps=7, evaluated=100)
    assert done.live_macs == 70 * training_macs(network, masks) + 100 * forward_macs(network, masks)
    assert done.dense_macs == 70 * training_macs(network) + 100 * forward_macs(network)


def cost(**changes: Any) -> Cost:
    settings: dict[str, Any] = {
        "dense": Work(5, 5000, 10, 10),
        "tickets": Work(10, 9000, 20, 5),
        "masks": Work(),
        "controls": Work(20, 20000, 40, 10),
        "stability": Work(),
        "seconds": 7200.0,
        "iterative_steps": 34000,
        "dense_steps": 1000,
        "assumptions": Assumptions(watts=100, pue=1.5, kg_per_kwh=0.4),
    }
    return Cost(**{**settings, **changes})


def test_energy_is_seconds_times_what_is_assumed() -> None:
    told = cost().to_json()
    assert told["energy_kwh"] == pytest.approx(2 * 0.1 * 1.5)  # two hours of 100 W
    assert told["co2_kg"] == pytest.approx(0.3 * 0.4)
    assert told["assumptions"] == {"watts": 100, "pue": 1.5, "kg_per_kwh": 0.4}
    assert told["total"] == {"trainings": 35, "steps": 34000, "dense_macs": 70, "live_macs": 25}
    assert (told["steps_per_dense"], told["steps_per_iterative"]) == (34.0, 1.0)


def test_the_text_has_every_assumption_and_says_that_nothing_is_measured() -> None:
    text = explain(cost(dense=Work(5, 5000, 24_600_000_000, 10)).to_json())
    for said in ("35 trainings (5 dense, 10 tickets, 20 controls)", "24.6e9", "100 W", "PUE", "0.4 kg", "not measured"):
        assert said in text


def test_iterative_pruning_is_its_own_reference(tmp_path: Path) -> None:
    """A whole iterative search takes what the reference says, with a late rewind too: controls from step 0 or the rewind."""
    small = search(tmp_path, rewind_step="10it", reinits=2)
    told = conclude(small, small.run(), seconds=3.0)["cost"]
    assert [told[kind]["trainings"] for kind in ("dense", "tickets", "controls", "total")] == [2, 4, 12, 18]
    assert told["tickets"]["steps"] == 4 * 30
    assert told["controls"]["steps"] == 8 * 40 + 4 * 30
    assert told["steps_per_iterative"] == 1.0
    assert told["steps_per_dense"] == (2 * 40 + 4 * 30 + 8 * 40 + 4 * 30) / 40
    assert told["total"]["steps"] == iterative_steps(seeds=2, rounds=2, steps=40, rewind_step=10, control_steps=220)
    assert told["seconds"] == 3.0


def test_trainings_that_find_masks_are_counted(tmp_path: Path) -> None:
    """One a seed and round more than iterative pruning takes, and of whole length whatever the rewind."""
    small = search(tmp_path, method="rigl", rewind_step="10it")
    told = conclude(small, small.run(), seconds=3.0)["cost"]
    assert (told["masks"]["trainings"], told["masks"]["steps"]) == (4, 160)
    assert told["masks"]["dense_macs"] == 2 * told["dense"]["dense_macs"]
    reference = told["total"]["steps"] - 160
    assert told["steps_per_iterative"] == pytest.approx(1 + 160 / reference)
    assert "4 masks" in explain(told)


def test_macs_of_a_search_are_those_of_its_steps_and_evaluations(tmp_path: Path) -> None:
    small = search(tmp_path)
    rounds = small.run()
    told = conclude(small, rounds, seconds=3.0)["cost"]
    network = lower(Tiny(), (20,))
    evaluated = 5 * len(small.split.x_validation) + 2 * 80  # at 0, 10, 20, 30 and 40 steps; the test part twice
    one = 40 * 16 * training_macs(network) + evaluated * forward_macs(network)
    assert told["dense"]["dense_macs"] == told["dense"]["live_macs"] == 2 * one
    assert told["total"]["dense_macs"] == 14 * one
    live = sum(work(network, r.masks[0], 16, 40, evaluated).live_macs for r in rounds[1:])
    assert told["tickets"]["live_macs"] == 2 * live < told["tickets"]["dense_macs"]
