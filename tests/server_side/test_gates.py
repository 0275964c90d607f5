"""Soft thresholds solve the proximal problem and give exact zeros; gates have the probabilities and limits of the paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server_side.gates import expected_l0, final_gates, sample_gates, soft_threshold
from server_side.moving import Gates, Moving
from server_side.training import Recipe


@given(st.floats(-3, 3, width=32), st.floats(0, 2, width=32))
def test_soft_threshold_solves_its_problem(weight: float, amount: float) -> None:
    """argmin over v of (v - w)^2 / 2 + amount |v|, on a grid that holds the answer."""
    found = soft_threshold(torch.tensor([weight], dtype=torch.float64), amount)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)

    def cost(v: torch.Tensor) -> torch.Tensor:
        return (v - weight).square() / 2 + amount * v.abs()

    assert cost(found).item() <= cost(grid).min().item() + 1e-12


def test_soft_threshold_gives_plus_zero_and_takes_amounts_by_weight() -> None:
    weights = torch.tensor([[-2.0, -0.1, 0.0, 0.1, -0.0, 2.0, 0.3]])
    found = soft_threshold(weights, 0.25)
    assert found.tolist() == [[-1.75, 0.0, 0.0, 0.0, 0.0, 1.75, pytest.approx(0.05)]]
    assert not torch.signbit(found[found == 0]).any()
    by_weight = soft_threshold(weights, torch.tensor([[3.0, 0.0, 0.0, 0.05, 0.0, 1.0, 0.3]]))
    assert by_weight.tolist() == [[0.0, pytest.approx(-0.1), 0.0, pytest.approx(0.05), 0.0, 1.0, 0.0]]
    assert torch.isnan(soft_threshold(torch.tensor([torch.nan]), 0.1)).all()  # a divergence is not hidden


def test_l1_training_prunes_what_does_not_matter() -> None:
    """Least squares with three of ten inputs that count, by proximal steps: the others end at exactly 0, in both replicas."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 200, 10, generator=generator)
    y = x[..., :3] @ torch.tensor([1.0, -2.0, 0.5])
    weights = torch.randn(2, 10, generator=generator)
    for _ in range(300):
        gradient = ((x @ weights[..., None])[..., 0] - y)[..., None].mul(x).mean(1)
        weights = soft_threshold(weights - 0.1 * gradient, 0.1 * 0.05)
    assert (weights[:, 3:] == 0).all()
    assert (weights[:, :3].sign() == torch.tensor([1.0, -1.0, 1.0])).all()


def test_expected_l0_is_the_frequency_of_open_gates() -> None:
    log_alpha = torch.linspace(-4, 4, 9)
    uniform = (torch.arange(20_000) + 0.5).expand(9, -1) / 20_000
    gates = sample_gates(log_alpha[:, None], uniform)
    torch.testing.assert_close(
        expected_l0(log_alpha), (gates > 0).float().mean(1), rtol=0, atol=2e-4
    )  # the grid's own step is 5e-5
    assert ((gates == 0).any(1) & (gates == 1).any(1))[3:6].all()
    assert ((gates >= 0) & (gates <= 1)).all()


def test_a_gate_is_the_stretched_sigmoid_of_its_noise() -> None:
    gate = sample_gates(torch.tensor([0.4]), torch.tensor([0.3])).item()
    s = 1 / (1 + math.exp(-(math.log(0.3 / 0.7) + 0.4) * 1.5))
    assert gate == pytest.approx(s * 1.2 - 0.1, rel=1e-5)
    final = 1.2 / (1 + math.exp(-0.4)) - 0.1
    assert final_gates(torch.tensor([0.4])).item() == pytest.approx(final, rel=1e-5)
    assert final_gates(torch.tensor([-4.0, 4.0])).tolist() == [0.0, 1.0]


def test_gates_and_their_cost_have_finite_gradients_at_every_noise() -> None:
    log_alpha = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    gates = sample_gates(log_alpha, torch.tensor([0.0, 0.5, 0.999999]))
    (gradient,) = torch.autograd.grad(gates.sum() + expected_l0(log_alpha).sum(), log_alpha)
    assert torch.isfinite(gradient).all()
    assert gates[0].item() == 0
    (by_gate,) = torch.autograd.grad(sample_gates(log_alpha, torch.full((3,), 0.5)).sum(), log_alpha)
    assert (by_gate > 0).all()
    (by_cost,) = torch.autograd.grad(expected_l0(log_alpha).sum(), log_alpha)
    assert (by_cost > 0).all()


@pytest.mark.parametrize(
    ("live", "expected"),
    [(3, [[[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]]), (4, [[[1, 0, 0], [1, 1, 1]], [[0, 0, 1], [1, 1, 1]]])],
)
def test_the_mask_has_exactly_so_many_of_the_highest_whatever_the_final_gates_are(live: int, expected: Any) -> None:
    log_alpha = torch.tensor([[[-8.0, -9.0, 9.0], [8.0, -7.0, 7.0]], [[5.0] * 3, [5.0] * 3]])
    mask = torch.ones(2, 2, 3)
    mask[0, 0, 2] = 0
    recipe = Recipe("adam", 1e-3, momentum=0.0, weight_decay=0.0, batch=1, steps=1, evaluate_every=1)
    training = Gates(Moving("gates", {"w": live}, ("w",)), recipe)
    found = training.final_masks({"w": torch.zeros(2, 2, 3), "gate of w": log_alpha}, {"w": mask})
    assert found["w"].int().tolist() == expected
