"""Whole networks, from their nn.Module to training on the device's runtime: gradients, losses and predictions of PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from device_runtime import Trainer
from export import reference as interpret
from export.gate import without_dropout
from export.ticket import Ticket
from export.to_native import to_native_bytes
from tests.architectures import ARCHITECTURES
from tests.device_runtime.reference import one_thread
from tests.export.architecture_tickets import architecture_ticket

BATCH = 6


class Reference:
    """The same ticket in PyTorch, pruned weights held at zero; plain SGD."""

    def __init__(self, ticket: Ticket, dtype: torch.dtype = torch.float64) -> None:
        self.ticket, self.document, self.dtype = ticket, ticket.network.to_json(), dtype
        state = {p.name for p in ticket.network.parameters if p.state}
        self.values = {n: torch.tensor(v, dtype=dtype, requires_grad=n not in state) for n, v in ticket.init.items()}
        self.masks = {name: torch.tensor(mask) for name, mask in ticket.masks.items()}
        mean, inverse_std = (np.array(ticket.card["input"][key]) for key in ("mean", "inverse_std"))
        shape = (1, -1, *[1] * (len(ticket.network.input_shape) - 1))
        self.mean, self.inverse_std = torch.tensor(mean).reshape(shape), torch.tensor(inverse_std).reshape(shape)

    def outputs(self, x: np.ndarray, *, training: bool) -> torch.Tensor:
        samples = ((torch.tensor(x) - self.mean) * self.inverse_std).to(self.dtype)
        live = {
            name: value * self.masks.get(name, 1.0) if name in self.masks else value
            for name, value in self.values.items()
        }
        return interpret.run(self.document, live, samples, training=training)

    def gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        with one_thread():
            loss = F.cross_entropy(self.outputs(x, training=True), torch.tensor(y, dtype=torch.int64))
            trained = {name: value for name, value in self.values.items() if value.requires_grad}
            found = torch.autograd.grad(loss, list(trained.values()))
        return float(loss.detach()), {name: gradient.numpy() for name, gradient in zip(trained, found, strict=True)}

    def step(self, gradients: dict[str, np.ndarray], rate: float) -> None:
        with torch.no_grad():
            for name, gradient in gradients.items():
                self.values[name] -= rate * torch.tensor(gradient) * self.masks.get(name, torch.tensor(1.0))


def samples_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    x = ARCHITECTURES[name].samples(BATCH).numpy()
    return x, np.arange(BATCH, dtype=np.int32) % 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_and_training_equal_pytorch(name: str) -> None:
    ticket = without_dropout(architecture_ticket(name))
    reference, rate = Reference(ticket), 1e-3
    x, y = samples_of(name)
    settings = {"optimizer": "sgd", "learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0}
    with Trainer.open(to_native_bytes(ticket), batch=BATCH, store_gradients=True, **settings) as trainer:  # type: ignore[arg-type]
        for step in range(3):
            loss, wanted = reference.gradients(x, y)
            assert trainer.compute_gradients(x, y) == pytest.approx(loss, rel=1e-5)
            if step == 0:
                _, single = Reference(ticket, torch.float32).gradients(x, y)
                assert_gradients_equal(ticket, trainer.gradients, wanted, single)
            assert trainer.train_step(x, y) == pytest.approx(loss, rel=1e-5)
            reference.step(wanted, rate)
        scores = reference.outputs(x, training=False).detach()
        np.testing.assert_allclose(trainer.predict(x), F.softmax(scores, 1).numpy(), rtol=2e-3, atol=1e-5)


Arrays = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]


def assert_gradients_equal(ticket: Ticket, found: np.ndarray, wanted: Arrays, single: Arrays) -> None:
    """Parameter by parameter, to 1e-4, or ten times as far off as PyTorch is in float32: where a batch norm divides by next
    to nothing, or an element lies on the kink of a ReLU, nobody is nearer.
    """
    start, whole = 0, max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
    for parameter in ticket.network.parameters:
        if parameter.state:
            continue
        name = parameter.name
        mask = ticket.masks.get(name, np.ones(parameter.shape, bool))
        live = wanted[name][mask]
        part = found[start : start + live.size]
        start += live.size
        scale = max(float(np.linalg.norm(live)), 1e-2 * whole)
        theirs = float(np.linalg.norm(single[name][mask] - live))
        assert np.linalg.norm(part - live) <= max(1e-4 * scale, 10 * theirs), name
    assert start == found.size


def test_a_budget_is_met_by_smaller_parts() -> None:
    name = "conv-2"  # without batch norm
    artifact = to_native_bytes(architecture_ticket(name))
    x, y = ARCHITECTURES[name].samples(64).numpy(), np.zeros(64, np.int32)
    with Trainer.open(artifact, batch=64) as whole, Trainer.open(artifact, batch=1) as least:
        needed, smallest = whole.arena_bytes, least.arena_bytes
    budget = (needed + smallest) // 2
    with Trainer.open(artifact, batch=64, budget_bytes=budget) as trainer:
        assert trainer.arena_bytes <= budget
        assert trainer.micro_batch < 64
        trainer.train_step(x, y)
