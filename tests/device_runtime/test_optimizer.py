"""The updates that runtimes without their own get, against those of the core, from equal gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_runtime import Trainer
from device_runtime.backends.dropout import dropout_factors
from device_runtime.backends.optimizer import optimizer_of
from tests.device_runtime import nets
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.tkt_writer import Recipe, artifact

NET = nets.small(recipe=Recipe(batch=8))
DEFAULTS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.99,
    "epsilon": 1e-7,
    "clip_norm": 0.0,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "clipped": {"clip_norm": 0.25, "momentum": 0.5},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "weight_decay": 0.05, "learning_rate": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.05, "learning_rate": 0.01, "clip_norm": 1.0},
}


@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_the_core(case: str) -> None:
    """To the last bit but one, where float64 rounds a fused multiply-add twice."""
    settings = DEFAULTS | CASES[case]
    x, y = nets.task(NET, 80)
    with Trainer.open(artifact(NET), store_gradients=True, **settings) as core:
        values = {"all": core.values}
        optimizer = optimizer_of(values, settings)
        for start in range(0, 80, 8):
            rows = slice(start, start + 8)
            core.compute_gradients(x[rows], y[rows])
            optimizer.step(settings["learning_rate"], {"all": core.gradients})
            core.train_step(x[rows], y[rows])
            np.testing.assert_array_max_ulp(values["all"], core.values, maxulp=4 * (start // 8 + 1))
            assert np.mean(values["all"] == core.values) > 0.98


def test_moments_do_not_stay_subnormal() -> None:
    values = {"w": np.ones(2, np.float32)}
    optimizer = optimizer_of(values, DEFAULTS | {"momentum": 0.5})
    optimizer.step(0.1, {"w": np.array([2.0**-126, 1.0], np.float32)})
    optimizer.step(0.1, {"w": np.zeros(2, np.float32)})
    assert optimizer.state()["velocity/w"].tolist() == [0.0, 0.5]


def test_a_state_goes_on() -> None:
    for case in ("momentum", "adamw"):
        settings, gradient = DEFAULTS | CASES[case], {"w": np.array([0.5, -2.0], np.float32)}
        values = {"w": np.ones(2, np.float32)}
        whole = optimizer_of(values, settings)
        whole.step(0.1, gradient)
        other = {"w": values["w"].copy()}
        resumed = optimizer_of(other, settings)
        resumed.load(whole.state())
        for optimizer in (whole, resumed):
            optimizer.step(0.1, gradient)
        assert other["w"].tobytes() == values["w"].tobytes()


@pytest.mark.parametrize("probability", [0.25, 0.9])
def test_dropouts_are_those_of_the_core(probability: float) -> None:
    """Read off its gradients: those of the bias of a layer before a dropout and a sum are its factors."""
    builder = nets.Builder(np.random.default_rng(0), (4,))
    builder.linear(5, None)
    dropped = builder.unary(ops.DROPOUT, probability)
    builder.linear(1, None)
    net = builder.net(loss=2, recipe=Recipe(batch=3))
    weight, bias = net.params[2].values.ravel(), slice(20, 25)
    with Trainer.open(
        artifact(net), seed=9, store_gradients=True, momentum=0.0, optimizer="sgd", learning_rate=0.0
    ) as core:
        for step in range(4):
            x, y = np.zeros((3, 4), np.float32), np.zeros((3, 1), np.float32)
            core.compute_gradients(x, y)
            factors = dropout_factors(9, step, dropped, probability, (3, 5))
            scores = (factors * net.params[1].values.ravel()) @ weight + net.params[3].values.ravel()
            wanted = ((2 / 3) * scores[:, None] * factors * weight).sum(axis=0)
            np.testing.assert_allclose(core.gradients[bias], wanted, rtol=1e-4, atol=1e-6)
            core.train_step(x, y)
