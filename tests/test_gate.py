"""The gate of export: what trains as its ticket says passes, and every way to be a little wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from device_runtime import Trainer
from export.gate import GateError, Passed, _Gate, check, without_dropout
from export.kinks import Sides
from export.layout import layouts
from export.ticket import Ticket
from export.to_native import to_native_bytes
from tests.device_runtime.reference import one_thread
from tests.export.architecture_tickets import architecture_ticket
from tests.export.tickets import RECIPE, small_ticket


def gate(ticket: Ticket, wrap: Callable[[Trainer], Any] = lambda trainer: trainer) -> Passed:
    """Of the native artifact, with its trainer spoilt by `wrap`."""
    ticket = without_dropout(ticket)
    artifact = to_native_bytes(ticket)
    places = {name: layout.stored for name, layout in layouts(ticket.network, ticket.masks).items()}
    with one_thread():
        return check(ticket, places, lambda: wrap(Trainer.open(artifact, store_gradients=True)))


@pytest.mark.parametrize("name", ["mlp", "sensor", "text"])
def test_sound_artifacts_pass(name: str) -> None:
    ticket = architecture_ticket(name)
    found = gate(ticket)
    trained = {parameter.name for parameter in ticket.network.parameters if not parameter.state}
    assert set(found.gradients) == set(found.finite_differences) == trained
    assert 0 < max(found.gradients.values()) < 1e-4
    assert found.losses < 1e-4
    assert 0 < found.outputs < 1e-5 < found.outputs_allowed
    assert found.to_json()["largest_gradient_error"] == max(found.gradients.values())
    assert all(found.gradients[name] <= found.allowed[name] for name in trained)
    assert min(found.allowed.values()) >= 5e-4
    assert found.losses <= found.losses_allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv-2", "mobilenet", "resnet-20"])
def test_large_sound_artifacts_pass(name: str) -> None:
    assert max(gate(architecture_ticket(name)).gradients.values()) < 0.01  # as far off as PyTorch is in float32


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 0.05},
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
        {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "cosine", "warmup_steps": 5, "schedule_steps": 40},
        {"label_smoothing": 0.1, "class_weights": [0.5, 2.0], "batch": 1},
    ],
)
def test_every_recipe_is_followed(recipe: dict[str, Any]) -> None:
    card = small_ticket().card
    assert gate(small_ticket(card={**card, "recipe": {**RECIPE, **recipe}})).losses < 1e-3


class Spoilt:
    """A trainer with something wrong."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.calls = trainer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def __enter__(self) -> Spoilt:
        return self

    def __exit__(self, *_: object) -> None:
        self.trainer.close()


class Scaled(Spoilt):
    """As ExecuTorch's gradient of a convolution before a maximum was, but for one part in a hundred."""

    @property
    def gradients(self) -> Any:
        found = self.trainer.gradients
        found[:5] *= 1.01  # those of a.weight
        return found


class Accumulating(Spoilt):
    """A gradient that is right in the first step and keeps a little of it in the next: memory that nobody cleared."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.kept: Any = 0.0

    @property
    def gradients(self) -> Any:
        found = self.trainer.gradients + self.kept
        self.kept = 0.01 * found
        return found


class Forgetful(Spoilt):
    """An optimizer that is made anew each step, so that momentum is none."""

    def train_step(self, x: Any, y: Any) -> float:
        values = self.trainer.save()
        self.trainer.reset()
        self.trainer.restore(values)
        self.calls += 1
        return self.trainer.train_step(x, y) if self.calls % 2 else self.trainer.evaluate(x, y).loss


class Overwritten(Spoilt):
    """Predicting works in the memory that a parameter lies in, as ExecuTorch's methods do when they are loaded together."""

    def predict(self, x: Any) -> Any:
        found = self.trainer.predict(x)
        self.trainer.train_step(x, np.zeros(len(x), np.int32))
        return found


class Frozen(Spoilt):
    """What it predicts is of values that have since moved."""

    def predict(self, x: Any) -> Any:
        first = Trainer.open(to_native_bytes(small_ticket()))
        with first:
            return first.predict(x)


class Unscaled(Spoilt):
    """Samples that are not normalised."""

    def compute_gradients(self, x: Any, y: Any) -> float:
        return self.trainer.compute_gradients(x * 1.01, y)


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (Scaled, r"the gradient of 'a.weight' is off by 0.00\d+ of its norm in step \d \(allowed: 0.0005\)"),
        (Accumulating, "in step 1"),
        (Forgetful, r"the loss of step \d is"),
        (Unscaled, "the gradient of '.*' is off by"),
        (Overwritten, "the gradient of '.*' is off by .* in step 0"),
        (Frozen, r"a prediction is off by 0.0\d+ in step 1 \(allowed: 0.0001\d*\)"),
    ],
)
def test_what_is_wrong_is_named(spoilt: Callable[[Trainer], Any], told: str) -> None:
    with pytest.raises(GateError, match=told):
        gate(small_ticket(), spoilt)


def test_a_wrong_reference_would_be_found_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should runtime and reference be wrong in the same way, the loss itself still tells."""
    from export import gate as module

    monkeypatch.setattr(module._Gate, "errors", lambda self, found, wanted: dict.fromkeys(found, 0.0))
    with pytest.raises(GateError, match="from finite differences"):
        gate(small_ticket(), Halved)


class Halved(Spoilt):
    @property
    def gradients(self) -> Any:
        return 0.5 * self.trainer.gradients


def test_without_dropout_nothing_else_changes() -> None:
    ticket = architecture_ticket("sensor")
    quiet = without_dropout(ticket)
    assert [node.op for node in quiet.network.nodes] == [node.op for node in ticket.network.nodes]
    assert without_dropout(small_ticket()).hash == small_ticket().hash


def on_a_kink() -> tuple[_Gate, dict[str, torch.Tensor], Any]:
    """A gate, and values and a batch whose first element of the first ReLU is 1e-9."""
    judge = _Gate(small_ticket(), {}, np.random.default_rng(0))
    values = {name: torch.from_numpy(array.astype(np.float64)) for name, array in small_ticket().init.items()}
    values["b.weight"] = torch.tensor([[0.5, -1.0, 0.25], [1.5, 0.5, -0.5]], dtype=torch.float64)
    batch = judge.batch(4)
    with Sides() as sides:
        judge.wanted(values, batch, torch.float64)
    values["a.bias"][0] += 1e-9 - sides.inputs[0][0, 0]
    return judge, values, batch


def test_an_element_on_a_kink_may_lie_on_its_other_side() -> None:
    judge, values, batch = on_a_kink()
    wanted = judge.wanted(values, batch, torch.float64)
    room = dict.fromkeys(wanted, 5e-4)
    with Sides({(0, 0)}):
        other = judge.wanted(values, batch, torch.float64)
    assert max(judge.errors(other, wanted).values()) > 0.01
    assert max(judge.least_errors(values, batch, other, wanted, room).values()) == 0
    wrong = {name: 1.01 * gradient for name, gradient in other.items()}  # which no kink explains
    assert max(judge.least_errors(values, batch, wanted | wrong, wanted, room).values()) == pytest.approx(0.01)


def test_an_element_away_from_the_kink_may_not() -> None:
    judge, values, batch = on_a_kink()
    wanted = judge.wanted(values, batch, torch.float64)
    with Sides({(0, 4)}):
        other = judge.wanted(values, batch, torch.float64)
    errors = judge.errors(other, wanted)
    least = judge.least_errors(values, batch, other, wanted, dict.fromkeys(wanted, 5e-4))
    assert min(max(errors.values()), max(least.values())) > 0.01


@pytest.mark.slow
def test_each_step_of_a_deep_network_is_right_though_runs_drift_apart() -> None:
    """Gradients, moved statistics and Adam's updates of the core, each from its own values: where a run of ResNet-20 leaves
    PyTorch's, it is by kinks (docs/gate.md)."""
    ticket = architecture_ticket("resnet-20")
    places = {name: layout.stored for name, layout in layouts(ticket.network, ticket.masks).items()}
    reference, rate = _Gate(ticket, places, np.random.default_rng(0)), 0.0012
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    with one_thread(), Trainer.open(to_native_bytes(ticket), store_gradients=True) as trainer:
        for step in range(1, 13):
            batch, before = reference.batch(trainer.batch), reference.values(trainer)
            trainer.compute_gradients(*batch)
            found = reference.named(trainer.gradients, state=False)
            assert max(reference.errors(found, reference.wanted(before, batch, torch.float64)).values()) < 1e-4, step
            expected = {name: value.clone() for name, value in before.items()}
            reference.loss(expected, batch)  # moves the statistics
            for name, gradient in found.items():
                first[name] = 0.9 * first.get(name, 0.0) + 0.1 * gradient
                second[name] = 0.999 * second.get(name, 0.0) + 0.001 * gradient**2
                spread = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
                expected[name] = before[name] - rate * first[name] / (1 - 0.9**step) / spread
            trainer.train_step(*batch)
            for name, value in reference.values(trainer).items():
                room = 1e-6 * value.abs() + (1e-6 if name in reference.state else 1e-4 * rate)
                assert ((value - expected[name]).abs() <= room).all(), (name, step)
