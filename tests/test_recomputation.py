"""Memory that is saved by computing twice costs time and nothing else; memory saved by half floats rounds the gradients.

plan_test.cpp forces every plan on small networks; here are whole ones, by the options and budgets that an app would give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_runtime import BudgetExceeded, Trainer, inspect
from export.to_native import to_native_bytes
from tests.architectures import ARCHITECTURES
from tests.device_runtime import nets
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.tkt_writer import artifact
from tests.export.architecture_tickets import architecture_ticket

SETTINGS: list[dict[str, Any]] = [
    {"batch": 17, "optimizer": "sgd", "momentum": 0.0},  # updates inside the backward pass
    {"batch": 6, "optimizer": "adam"},
    {"batch": 6, "optimizer": "sgd", "momentum": 0.9, "micro_batch": 5},
    {"batch": 1, "optimizer": "sgd", "momentum": 0.0},
]


def data(name: str, batch: int) -> tuple[Any, Any]:
    return ARCHITECTURES[name].samples(batch).numpy(), np.arange(batch, dtype=np.int32) % 2


def trained(content: bytes, x: Any, y: Any, **settings: Any) -> tuple[bytes, bytes]:
    """All bits of a short training: its losses and its checkpoint, which has the running statistics and the moments."""
    with Trainer.open(content, learning_rate=0.01, seed=3, **settings) as trainer:
        losses = [trainer.train_step(x, y)]
        trainer.evaluate(x, y)  # which runs forward alone, in between
        losses += [trainer.train_step(x, y)]
        return np.array(losses).tobytes(), trainer.save()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_train_to_the_same_bits(name: str) -> None:
    content = to_native_bytes(architecture_ticket(name))
    for settings in SETTINGS:
        x, y = data(name, settings["batch"])
        assert trained(content, x, y, recompute=True, **settings) == trained(content, x, y, **settings)


def test_gradients_are_the_same_bits_on_every_kernel_set() -> None:
    content = to_native_bytes(architecture_ticket("resnet-20"))
    x, y = data("resnet-20", 3)
    found = set()
    for recompute in (False, True):
        for kernels in ("auto", "scalar"):
            options: dict[str, Any] = {"recompute": recompute, "kernels": kernels, "store_gradients": True}
            with Trainer.open(content, batch=3, **options) as trainer:
                trainer.compute_gradients(x, y)
                assert (trainer.recomputed_nodes > 0) == recompute
                found.add(trainer.gradients.tobytes())
    assert len(found) == 1


def test_resnet_takes_less_than_half() -> None:
    content = to_native_bytes(architecture_ticket("resnet-20"))
    kept = inspect(content, batch=32)
    twice = inspect(content, batch=32, recompute=True)
    halves = inspect(content, batch=32, half_activations=True)
    assert kept["recomputed_nodes"] == kept["half_buffers"] == 0
    assert 0 < twice["recomputed_nodes"] < len(kept["operators"])
    assert twice["arena_bytes"] < 0.42 * kept["arena_bytes"]
    assert halves["half_buffers"] > 0
    assert halves["arena_bytes"] < 0.6 * kept["arena_bytes"]
    assert inspect(content, batch=32, recompute=True, half_activations=True)["arena_bytes"] < twice["arena_bytes"]


def test_with_batch_norm_a_budget_is_met_by_recomputation_before_parts() -> None:
    content = to_native_bytes(architecture_ticket("resnet-20"))
    x, y = data("resnet-20", 16)
    settings: dict[str, Any] = {"batch": 16, "optimizer": "sgd", "momentum": 0.0}
    most = inspect(content, **settings)["arena_bytes"]
    least = inspect(content, recompute=True, **settings)["arena_bytes"]
    whole = trained(content, x, y, **settings)
    seen = set()
    for budget in range(least, most, (most - least) // 5):
        with Trainer.open(content, budget_bytes=budget, **settings) as trainer:
            assert trainer.arena_bytes <= budget
            assert trainer.micro_batch == 16
            seen.add(trainer.recomputed_nodes)
        assert trained(content, x, y, budget_bytes=budget, **settings) == whole
    assert len(seen) > 2  # a larger budget asks for less of it
    facts = inspect(content, budget_bytes=least - 1, **settings)
    assert facts["micro_batch"] < 16
    assert facts["arena_bytes"] < least


def test_without_batch_norm_parts_come_first_and_the_refusal_names_the_least() -> None:
    builder = nets.Builder(np.random.default_rng(0), (1, 8, 8))
    for _ in range(8):
        builder.conv(8, 3, 0.5, pad=1)
        builder.unary(ops.HARDSWISH)
    builder.global_avg_pool()
    builder.linear(3, None)
    net = builder.net()
    content = artifact(net)
    settings: dict[str, Any] = {"batch": 64, "optimizer": "sgd", "momentum": 0.0}
    in_ones = inspect(content, micro_batch=1, **settings)["arena_bytes"]
    least = inspect(content, micro_batch=1, recompute=True, **settings)["arena_bytes"]
    assert least < in_ones
    parts = inspect(content, budget_bytes=in_ones, **settings)
    assert (parts["micro_batch"], parts["recomputed_nodes"]) == (1, 0)
    both = inspect(content, budget_bytes=in_ones - 1, **settings)
    assert both["recomputed_nodes"] > 0
    assert both["arena_bytes"] < in_ones
    x, y = nets.task(net, 64)
    in_parts = trained(content, x, y, micro_batch=both["micro_batch"], **settings)
    assert trained(content, x, y, budget_bytes=in_ones - 1, **settings) == in_parts
    with pytest.raises(BudgetExceeded, match=f"needs {least} bytes, but the budget is {least - 1}"):
        Trainer.open(content, budget_bytes=least - 1, **settings)
    with Trainer.open(content, budget_bytes=least, **settings) as trainer:
        assert trainer.arena_bytes == least


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_floats_keep_the_loss_and_round_the_gradient(name: str) -> None:
    content = to_native_bytes(architecture_ticket(name))
    x, y = data(name, 6)
    gradients, losses = [], []
    for half in (False, True):
        with Trainer.open(content, batch=6, half_activations=half, store_gradients=True) as trainer:
            losses.append(trainer.compute_gradients(x, y))
            gradients.append(trainer.gradients)
    assert losses[0] == losses[1]
    whole, rounded = gradients
    assert np.linalg.norm(rounded - whole) < 1e-2 * np.linalg.norm(whole)
    halved = inspect(content, batch=6, half_activations=True)["half_buffers"]
    assert (whole.tobytes() != rounded.tobytes()) == (halved > 0)


def test_what_no_half_float_holds_counts_as_the_largest() -> None:
    """Three linear layers, so that the second's input is kept while the third works."""
    builder = nets.Builder(np.random.default_rng(0), (6,))
    for _ in range(5):
        builder.linear(64, None)
        builder.relu()
    builder.linear(3, None)
    net = builder.net()
    x, y = nets.task(net, 32)
    x *= 1e6
    found = []
    for half in (False, True):
        with Trainer.open(artifact(net), batch=32, half_activations=half, store_gradients=True) as trainer:
            assert np.isfinite(trainer.compute_gradients(x, y))
            found.append(trainer.gradients)
    assert inspect(artifact(net), batch=32, half_activations=True)["half_buffers"] > 0
    assert np.isfinite(found[1]).all()
    assert np.abs(found[0]).max() > 1.5 * np.abs(found[1]).max()
