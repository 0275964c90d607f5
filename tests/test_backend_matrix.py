"""One ticket, every runtime that Trainer.open has: the same order of samples, losses, values and predictions, and the same
simulated devices.

Steps of a few networks each, on a data set whose last batch of an epoch is not full, through several epochs. Packed artifacts
give the native bits; the other runtimes add in other orders. That such a run follows PyTorch is for the gate (test_gate.py).
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from device_runtime import Data, Evaluation, Progress, Trainer
from device_runtime.simulator import Settings, simulate
from export.formats import FORMATS, Content, Wanted, place, written
from export.lower import lower
from export.ticket import Floats, Ticket
from tests.device_runtime.runtime_cases import by_parameter, worst
from tests.export.tickets import CARD, RECIPE

BATCH, SAMPLES, STEPS, SEED = 8, 50, 45, 5  # 6 epochs of 7 steps, the last of two samples, and some more
LOSS_TOLERANCE = 3e-6  # of a loss, or of 1; the worst measured is 4.8e-7
VALUE_TOLERANCE = 1e-5  # of the largest value; the worst measured is 2.4e-6
NEEDED = {"ort": "onnxruntime.training.api", "executorch": "executorch"}
OTHERS = ("packed", "ort", "executorch")
SCRATCH = tempfile.TemporaryDirectory()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


def conv() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4))


def sensor() -> nn.Sequential:
    layers = nn.Conv1d(3, 8, 5, 2), nn.Tanh(), nn.Conv1d(8, 8, 3), nn.LeakyReLU(0.1), nn.MaxPool1d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 4))


def batch_norm() -> nn.Sequential:
    first = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    second = nn.Conv2d(6, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    return nn.Sequential(*first, *second, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 4))


def wide() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 4))


NETS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (12,)),
    "conv": (conv, (2, 6, 6)),
    "sensor": (sensor, (3, 24)),
    "batch norm": (batch_norm, (2, 8, 8)),
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "clip_norm": 1.0},
    # Before a batch norm there are gradients of 0 but for rounding; a smaller epsilon would make steps of them.
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.05, "epsilon": 1e-3}
    | {"schedule": "cosine", "warmup_steps": 5, "schedule_steps": 40, "schedule_factor": 0.1},
}


@dataclass(frozen=True)
class Run:
    """What a runtime makes of STEPS steps."""

    losses: Floats
    values: Mapping[str, Floats]
    progress: Progress
    evaluation: Evaluation
    probabilities: Floats


@functools.cache
def ticket_of(net: str, recipe: str) -> Ticket:
    """A third of the weights, at random, of torch's initialisation."""
    torch.manual_seed(0)
    build, shape = {**NETS, "wide": (wide, (12,))}[net]
    module = build()
    network, state = lower(module, shape), {name: v.numpy() for name, v in module.state_dict().items()}
    random = np.random.default_rng(0)
    density = 0.05 if net == "wide" else 0.35
    masks = {name: random.random(network.parameter_shapes[name]) < density for name in network.prunable}
    init = {p.name: state[p.name] * masks.get(p.name, np.float32(1)) for p in network.parameters}
    return Ticket(network, init, masks, card=CARD | {"recipe": {**RECIPE, "batch": BATCH, **RECIPES[recipe]}})


def data_of(net: str) -> Data:
    """Four classes around points of their own, raw: of mean 0.25 and a standard deviation of about 0.25."""
    random = np.random.default_rng(1)
    y = random.integers(0, 4, SAMPLES)
    shape = ticket_of(net, "sgd").network.input_shape
    points, noise = (random.normal(size=(count, *shape)) for count in (4, SAMPLES))
    x = 0.25 + 0.25 * (points[y] + noise)
    return Data(x.astype(np.float32), y, np.repeat(["ann", "bob"], SAMPLES // 2))


@functools.cache
def content_of(backend: str, net: str, recipe: str) -> Content:
    return written(backend, ticket_of(net, recipe), Wanted())


def opened(backend: str, net: str, recipe: str) -> tuple[Path, dict[str, Any]]:
    """The artifact in a folder that is removed with the process, and options: ONNX Runtime has its optimizer in the artifact,
    the others follow options, so that one artifact, which ExecuTorch takes seconds for, does."""
    if backend in NEEDED:
        pytest.importorskip(NEEDED[backend], reason=f"needs the `{backend}` extra")
    of_artifact = recipe if backend == "ort" else "sgd"
    path = Path(SCRATCH.name, f"{net} {of_artifact}{FORMATS[backend].suffix}")
    if not path.exists():
        place(content_of(backend, net, of_artifact), path)
    return path, {} if backend == "ort" else dict(RECIPES[recipe])


@functools.cache
def run(backend: str, net: str, recipe: str, seed: int = SEED) -> Run:
    ticket, data = ticket_of(net, recipe), data_of(net)
    path, options = opened(backend, net, recipe)
    with Trainer.open(path, seed=seed, **options) as trainer:
        report = trainer.fit(data.x, data.labels, steps=STEPS)
        values = by_parameter(ticket, trainer.values, native=FORMATS[backend].is_native, state=True)
        progress = replace(report.progress, loss=None)
        return Run(report.losses, values, progress, trainer.evaluate(data.x, data.labels), trainer.predict(data.x))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("backend", OTHERS)
def test_every_runtime_trains_a_ticket_to_the_same_losses_and_values(backend: str, net: str, recipe: str) -> None:
    found, native = run(backend, net, recipe), run("native", net, recipe)
    assert found.progress == native.progress == Progress(STEPS, 6, 3 * BATCH, None)
    assert len(native.losses) == STEPS
    if backend == "packed":
        assert found.losses.tobytes() == native.losses.tobytes()
        assert all(found.values[name].tobytes() == value.tobytes() for name, value in native.values.items())
    np.testing.assert_allclose(found.losses, native.losses, rtol=LOSS_TOLERANCE, atol=LOSS_TOLERANCE)
    assert worst(found.values, native.values) < VALUE_TOLERANCE
    assert found.evaluation.loss == pytest.approx(native.evaluation.loss, rel=10 * LOSS_TOLERANCE)
    assert found.evaluation.correct == native.evaluation.correct
    np.testing.assert_allclose(found.probabilities, native.probabilities, atol=VALUE_TOLERANCE)


@pytest.mark.parametrize("backend", ["native", *OTHERS])
def test_predicting_between_steps_changes_no_bit(backend: str) -> None:
    """ExecuTorch's methods work in one memory where they are loaded from one program: predicting then spoilt the parameters."""
    data = data_of("wide")
    path, options = opened(backend, "wide", "momentum")
    with Trainer.open(path, seed=SEED, **options) as calm, Trainer.open(path, seed=SEED, **options) as asked:
        wanted, found = [], []
        for step in range(1, 9):
            wanted.append(calm.fit(data.x, data.labels, steps=step).losses)
            values = asked.values.tobytes()
            first = asked.predict(data.x).tobytes()
            assert asked.predict(data.x).tobytes() == first
            assert asked.values.tobytes() == values
            found.append(asked.fit(data.x, data.labels, steps=step).losses)
        asked.compute_gradients(data.x[:BATCH], data.labels[:BATCH])
        gradients = asked.gradients.tobytes()
        asked.evaluate(data.x, data.labels)
        assert asked.gradients.tobytes() == gradients
        assert np.concatenate(found).tobytes() == np.concatenate(wanted).tobytes()


@pytest.mark.parametrize("net", NETS)
def test_what_is_compared_is_a_training_that_depends_on_the_order(net: str) -> None:
    """Else all could agree for no reason."""
    for recipe in RECIPES:
        native, other = run("native", net, recipe), run("native", net, recipe, seed=SEED + 1)
        assert native.losses[-7:].mean() < native.losses[:7].mean() - 0.02, recipe
        assert np.abs(native.losses - other.losses).max() > 100 * LOSS_TOLERANCE
        assert worst(native.values, other.values) > 10 * VALUE_TOLERANCE


@pytest.mark.parametrize("backend", OTHERS)
def test_simulated_devices_learn_the_same_and_deaths_change_nothing(backend: str, tmp_path: Path) -> None:
    """Optimizer state and sample order of every runtime outlive a device's death, and its torn checkpoints are not read."""
    data, settings = data_of("conv"), Settings(epochs=6, seed=3, checkpoint_every=2)
    path, options = opened(backend, "conv", "momentum")
    calm = simulate(path, data, settings, options)
    dying = simulate(path, data, replace(settings, interruptions=4), options, output_dir=tmp_path / "devices")
    core, its = opened("native", "conv", "momentum")
    native = simulate(core, data, settings, its)
    assert dying["summary"]["interruptions"] == 8
    same = ("user", "before", "after", "samples", "held_out", "steps", "arena_bytes")
    for one, other, wanted in zip(calm["users"], dying["users"], native["users"], strict=True):
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
        assert {key: one[key] for key in same[:-1]} == {key: wanted[key] for key in same[:-1]}
        assert (one["arena_bytes"] is not None) == (backend == "packed")
    written_there = {p.name for p in (tmp_path / "devices" / "device-0000").iterdir()}
    assert ("trained.tkt" in written_there) == (backend == "packed")


def test_every_format_that_trains_is_in_the_matrix() -> None:
    assert {name for name, form in FORMATS.items() if form.places is not None} == {"native", *OTHERS}
