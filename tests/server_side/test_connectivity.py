"""Instability is 0 between equal networks, exact on a parabola, high between networks whose units are permuted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from server_side.connectivity import (
    LAYER_BYTES,
    Tensors,
    along_line,
    classification_error,
    instability,
    samples_at_once,
)
from tests.server_side.searches import Tiny, blobs


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Normed(nn.Module):
    """A convolution with batch norm, and dropout, on samples of 2 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6)
        self.drop, self.out = nn.Dropout(0.5), nn.Linear(6 * 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(x.view(-1, 2, 10))))
        y: torch.Tensor = self.out(self.drop(hidden.flatten(1)))
        return y


def values(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items() if value.is_floating_point()}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(blobs()["x"]), torch.from_numpy(blobs()["y"])


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """By 100 steps in an order that `seed` fixes."""
    x, y = data()
    optimizer, random = torch.optim.Adam(module.parameters(), 0.01), torch.Generator().manual_seed(seed)
    module.train()
    for _ in range(100):
        batch = torch.randint(0, len(x), (32,), generator=random)
        optimizer.zero_grad()
        F.cross_entropy(module(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module


def initial(build: type[nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return build()


def test_a_network_is_connected_with_itself() -> None:
    net = values(trained(initial(Tiny)))
    assert instability(along_line(net, copy.deepcopy(net), classification_error(Tiny(), *data()))) == 0.0


def test_every_point_is_the_parabola_at_its_place() -> None:
    """Errors -(w - 3)^2 from w = 1 to w = 4: the ends are -4 and -1, and 0 at w = 3, which the 4 points hit."""

    def error(at: Tensors) -> torch.Tensor:
        return -((at["w"] - 3) ** 2).sum()

    first, second = {"w": np.array([1.0], np.float32)}, {"w": np.array([4.0], np.float32)}
    assert along_line(first, second, error, points=4).tolist() == [-4.0, -1.0, 0.0, -1.0]
    assert instability(along_line(first, second, error, points=4)) == 2.5
    places = np.linspace(1, 4, 30)
    assert along_line(first, second, error) == pytest.approx(-((places - 3) ** 2), abs=1e-5)


def test_a_lower_error_at_one_end_is_not_taken_for_the_level() -> None:
    """Falling all the way there is no barrier, but the higher end is half the fall above the mean."""
    line = {"w": np.array([1.0], np.float32)}, {"w": np.array([0.0], np.float32)}
    assert instability(along_line(*line, lambda at: at["w"].sum())) == 0.5


def test_permuted_units_are_the_same_function_but_not_connected() -> None:
    net = Tiny()
    net.load_state_dict(trained(initial(Tiny)).state_dict())
    turned, order = copy.deepcopy(net), torch.arange(16).flip(0)
    turned.fc1.weight.data, turned.fc1.bias.data = turned.fc1.weight.data[order], turned.fc1.bias.data[order]
    turned.fc2.weight.data = turned.fc2.weight.data[:, order]
    error = classification_error(Tiny(), *data())
    errors = along_line(values(net), values(turned), error)
    assert errors[0] == errors[-1] < 0.1
    assert instability(along_line(values(net), values(turned), error)) == errors.max() - errors[0] > 0.05


@pytest.mark.parametrize("at_once", [30, 7, 1])
@pytest.mark.parametrize("build", [Tiny, Normed])
def test_the_batched_program_predicts_as_one_network_at_a_time(build: type[nn.Module], at_once: int) -> None:
    """Chunks of samples and of points, statistics of batch norm interpolated, dropout off, the module untouched."""
    first, second = (trained(copy.deepcopy(initial(build)), seed) for seed in (1, 2))
    module, (x, y) = build(), data()
    before = copy.deepcopy(module.state_dict())
    errors = along_line(values(first), values(second), classification_error(module, x, y, batch=77), at_once=at_once)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert len(errors) == 30
    for share, error in zip(np.linspace(0, 1, 30), errors, strict=True):
        ends = first.state_dict(), second.state_dict()
        one = build()
        one.load_state_dict({n: v if "num" in n else (1 - share) * v + share * ends[1][n] for n, v in ends[0].items()})
        expected = (one.eval()(x).argmax(1) != y).double().mean()
        assert error == pytest.approx(float(expected), abs=1.5 / len(x))  # one sample may stand on a boundary
    assert errors[0] == pytest.approx(float((first.eval()(x).argmax(1) != y).double().mean()), abs=1e-12)


def test_as_many_samples_at_once_as_the_largest_layer_has_room_for() -> None:
    """Its input counts too; at least one; the module has no hooks left and no mode changed."""
    x = torch.zeros(5, 3, 8, 8)
    wide = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(2048, 10))
    assert samples_at_once(wide, x) == LAYER_BYTES["cpu"] // (32 * 8 * 8 * 4)
    assert wide.training
    assert wide[1].num_batches_tracked == 0
    assert not any(layer._forward_hooks for layer in wide.modules())
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    assert samples_at_once(narrow, x) == LAYER_BYTES["cpu"] // (192 * 4)
    assert samples_at_once(nn.Identity(), torch.zeros(1, LAYER_BYTES["cpu"])) == 1


def test_what_does_not_fit_is_refused() -> None:
    line = {"w": np.zeros(3, np.float32)}, {"w": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match=r"'w': shapes \(3,\) and \(4,\); give two trainings of one network"):
        along_line(*line, lambda at: at["w"].sum())
    with pytest.raises(ValueError, match="'v' is in one of the two networks only"):
        along_line(line[0], {**line[0], "v": np.zeros(3, np.float32)}, lambda at: at["w"].sum())
    with pytest.raises(ValueError, match="points 1: a line has two ends"):
        along_line(line[0], line[0], lambda at: at["w"].sum(), points=1)
    with pytest.raises(ValueError, match="3 samples and 2 labels"):
        classification_error(Tiny(), torch.zeros(3, 20), torch.zeros(2))
