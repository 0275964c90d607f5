"""Shorter products and compiled steps: the same training but for rounding, and the same rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from server_side.search import Search
from server_side.stacked import StackedEngine
from server_side.stacked_program import Arithmetic, StackedProgram, seeded
from server_side.training import Interrupted, Job, Training
from tests.server_side.searches import Watcher, search

CPU = torch.device("cpu")
# pytest turns into errors what torch's compiler warns itself of
COMPILES = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COMPILED, BFLOAT16 = Arithmetic(compiled=True), Arithmetic("bf16-mixed")


class Net(nn.Module):
    """Batch norm, whose buffers are written, and dropout, which draws."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.out(self.dropout(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))
        return scores


def step(arithmetic: Arithmetic) -> tuple[Any, Any, torch.Tensor]:
    """Gradients, buffers and losses of three replicas of one step."""
    torch.manual_seed(0)
    module = Net()
    parameters = {name: torch.randn(3, *p.shape) / 3 for name, p in module.named_parameters()}
    buffers = {name: torch.ones(3, *b.shape) for name, b in module.named_buffers() if b.is_floating_point()}
    x, y = torch.randn(3, 8, 2, 5, 5), torch.randint(0, 3, (3, 8))
    with seeded(7, CPU):
        return StackedProgram(module, draws=True, arithmetic=arithmetic).gradients(parameters, buffers, x, y)


def distance(ours: Any, theirs: Any) -> float:
    """The norm of the difference as a share of that of the tensor, of the worst of all."""
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


@COMPILES
def test_a_compiled_step_is_the_same_but_for_rounding() -> None:
    """Dropout draws the same too, so whatever draws must draw in the same order."""
    plain, compiled = step(Arithmetic()), step(COMPILED)
    assert distance(compiled[0], plain[0]) < 1e-5
    assert distance(compiled[1], plain[1]) < 1e-6
    assert torch.allclose(compiled[2], plain[2], rtol=1e-6)


def test_bfloat16_rounds_the_products_of_training_and_keeps_float32() -> None:
    plain, mixed = step(Arithmetic()), step(BFLOAT16)
    assert all(value.dtype == torch.float32 for part in mixed[:2] for value in part.values())
    assert 1e-4 < distance(mixed[0], plain[0]) < 0.1
    assert distance(mixed[1], plain[1]) < 0.02


def train(small: Search, arithmetic: Arithmetic, checkpoint: Path, stop_after: int | None = None) -> Training:
    masks = {
        name: np.random.default_rng(1).random(value.shape) < 0.5
        for name, value in small.theta(0).items()
        if value.ndim > 1
    }
    start = {n: np.where(masks[n], v, np.float32(0)) if n in masks else v for n, v in small.theta(0).items()}
    engine = StackedEngine(small.model, small.split, small.recipe, CPU, arithmetic)
    return engine.train([Job(0, "ticket", 0, start, masks)], checkpoint, Watcher(stop_after))[0]


@COMPILES
@pytest.mark.parametrize("arithmetic", [COMPILED, BFLOAT16])
def test_a_training_goes_on_with_its_bits_and_its_mask(tmp_path: Path, arithmetic: Arithmetic) -> None:
    small = search(tmp_path)
    whole = train(small, arithmetic, tmp_path / "whole.pt")
    with pytest.raises(Interrupted):
        train(small, arithmetic, tmp_path / "parts.pt", stop_after=9)
    parts = train(small, arithmetic, tmp_path / "parts.pt")
    plain = train(small, Arithmetic(), tmp_path / "plain.pt")
    assert all(np.array_equal(value, parts.final[name]) for name, value in whole.final.items())
    assert any(not np.array_equal(value, plain.final[name]) for name, value in whole.final.items())  # it is not ignored
    assert np.allclose(whole.validation_loss, plain.validation_loss, rtol=0.02)


def test_evaluations_are_in_float32(tmp_path: Path) -> None:
    """A device computes so; the weights are what the training made of them."""
    torch.manual_seed(0)
    module = Net()
    values = {name: torch.rand(1, *p.shape) for name, p in module.state_dict().items() if p.is_floating_point()}
    part = torch.randn(9, 2, 5, 5), torch.randint(0, 3, (9,))
    plain, mixed = (StackedProgram(module, arithmetic=a).evaluate(values, part) for a in (Arithmetic(), BFLOAT16))
    assert plain[0] == mixed[0]
