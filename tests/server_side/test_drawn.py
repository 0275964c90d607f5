"""Weights that a seed is enough for: what each parameter is drawn from, what is refused, and a search with them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.drawn import Distribution
from export.ticket import load_ticket
from server_side import find
from server_side.drawn import Watching
from server_side.errors import UsageError
from server_side.lab import open_lab
from server_side.models import Model, load_model
from server_side.options import Options
from server_side.presets import PRESETS
from server_side.seeds import derive
from server_side.training import Interrupted
from tests.server_side.searches import SMALL, Watcher, options, search

ARRAYS = ("weights.safetensors", "ticket.json")


def model_of(make: Callable[[], nn.Module], shape: tuple[int, ...] = (6,)) -> Model:
    with torch.no_grad():
        classes = make()(torch.zeros(2, *shape)).shape[1]
    return load_model("mine", shape, classes, given=make)


def near(found: Distribution, kind: str, a: float, b: float = 0.0) -> bool:
    return found.kind == kind and math.isclose(found.a, a, rel_tol=1e-6) and math.isclose(found.b, b, rel_tol=1e-6)


def by_torch(module: nn.Module, name: str) -> tuple[str, float, float]:
    """What torch documents of the default initialisation of a module's tensor."""
    role = name.rpartition(".")[2]
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
        return "constant", float(role in ("weight", "running_var")), 0.0
    bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(module.weight)[0])  # type: ignore[arg-type]
    return "uniform", -bound, bound


def documented(preset: str, module: nn.Module, name: str) -> tuple[str, float, float]:
    """The same of a preset: architectures.py says how it initialises."""
    role, weight = name.rpartition(".")[2], getattr(module, "weight", None)
    assert isinstance(weight, torch.Tensor)
    fans = nn.init._calculate_fan_in_and_fan_out(weight) if weight.dim() > 1 else (0, 0)
    if isinstance(module, nn.BatchNorm2d):
        if role == "weight" and preset != "mobilenet":
            return "uniform", 0.0, 1.0
        return by_torch(module, name)
    if preset in ("vgg-16", "resnet-20", "mobilenet"):
        return ("normal", 0.0, math.sqrt(2 / fans[0])) if role == "weight" else by_torch(module, name)
    return ("normal", 0.0, math.sqrt(2 / sum(fans))) if role == "weight" else ("constant", 0.0, 0.0)


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "vgg-16", "resnet-20", "mobilenet", "sensor-1d"])
def test_presets_are_drawn_from_what_their_initialisation_documents(name: str) -> None:
    preset = PRESETS[name]
    model = load_model(name, preset.input_shape, preset.classes).from_seed()
    module = model.factory()
    assert model.distributions is not None
    assert list(model.distributions) == list(model.network.parameter_shapes)
    for parameter, found in model.distributions.items():
        of = module.get_submodule(parameter.rpartition(".")[0])
        assert near(found, *documented(name, of, parameter)), parameter


def test_layers_of_torch_are_drawn_from_what_it_documents() -> None:
    layers = [nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5), nn.LayerNorm(5)]

    def make() -> nn.Module:
        return nn.Sequential(*(type(layer)(*arguments) for layer, arguments in zip(layers, ARGUMENTS, strict=True)))

    model = model_of(make, (2, 6)).from_seed()
    assert model.distributions is not None
    for name, found in model.distributions.items():
        assert near(found, *by_torch(layers[int(name.partition(".")[0])], name)), name


ARGUMENTS: tuple[tuple[Any, ...], ...] = ((2, 6, 3), (6,), (), (), (24, 5), (5,))


class Plain(nn.Module):
    """One matrix, filled by `fill`."""

    def __init__(self, fill: Callable[[nn.Linear], object]) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 40, bias=False)
        fill(self.fc)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x)
        return y


def replaced(make: Callable[[], torch.Tensor]) -> Callable[[nn.Linear], object]:
    def fill(layer: nn.Linear) -> None:
        layer.weight = nn.Parameter(make())

    return fill


ACCEPTED: dict[str, tuple[Callable[[nn.Linear], object], tuple[Any, ...]]] = {
    "normal_": (lambda fc: nn.init.normal_(fc.weight, 0.5, 0.25), ("normal", 0.5, 0.25)),
    "normal_ of data": (lambda fc: fc.weight.data.normal_(std=0.02), ("normal", 0.0, 0.02)),
    "uniform_": (lambda fc: fc.weight.data.uniform_(to=2), ("uniform", 0.0, 2.0)),
    "kaiming": (lambda fc: nn.init.kaiming_normal_(fc.weight), ("normal", 0.0, math.sqrt(2 / 6))),
    "xavier": (
        lambda fc: nn.init.xavier_uniform_(fc.weight),
        ("uniform", -math.sqrt(6 / 46), math.sqrt(6 / 46)),
    ),
    "the last of several": (
        lambda fc: (nn.init.orthogonal_(fc.weight), nn.init.normal_(fc.weight)),
        ("normal", 0.0, 1.0),
    ),
    "another parameter": (replaced(lambda: torch.rand(40, 6)), ("uniform", 0.0, 1.0)),
    "a view of all": (replaced(lambda: torch.randn(6, 40).t()), ("normal", 0.0, 1.0)),
    "a view of all, filled before": (
        replaced(lambda: torch.empty(240).normal_(1, 2).view(40, 6)),
        ("normal", 1.0, 2.0),
    ),
    "torch.normal": (replaced(lambda: torch.normal(1.0, 3.0, (40, 6))), ("normal", 1.0, 3.0)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_whole_fills_are_seen(name: str) -> None:
    fill, expected = ACCEPTED[name]
    model = model_of(lambda: Plain(fill)).from_seed()
    assert model.distributions is not None
    assert near(model.distributions["fc.weight"], *expected)


def through_numpy(layer: nn.Linear) -> None:
    layer.weight.data.numpy()[0, :] *= 2


REFUSED: dict[str, tuple[Callable[[nn.Linear], object], str]] = {
    "orthogonal": (lambda fc: nn.init.orthogonal_(fc.weight), "written by aten.mul_"),
    "truncated": (lambda fc: nn.init.trunc_normal_(fc.weight, std=0.02), "read by aten."),
    "scaled": (lambda fc: fc.weight.data.mul_(0.5), "written by aten.mul_"),
    "scaled by 1": (lambda fc: fc.weight.data.mul_(1.0), "written by aten.mul_"),
    "computed": (replaced(lambda: torch.randn(40, 6) * 0.02), "computed, or made of other memory"),
    "copied": (replaced(lambda: torch.randn(40, 6).clone()), "computed, or made of other memory"),
    "filled in part": (lambda fc: fc.weight.data[3].normal_(), "filled in parts"),
    "a part of more": (replaced(lambda: torch.randn(80, 6)[:40]), "cut out of a larger tensor"),
    "sparse": (lambda fc: nn.init.sparse_(fc.weight, 0.5), "written by aten|filled in parts|read by"),
    "through numpy": (through_numpy, "changed behind torch's back"),
    "bernoulli": (lambda fc: fc.weight.data.bernoulli_(), "written by aten.bernoulli_"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_seed_gives_is_refused_by_name(name: str) -> None:
    fill, reason = REFUSED[name]
    model = model_of(lambda: Plain(fill))
    with pytest.raises(
        UsageError, match=rf"'mine': init_from_seed cannot draw 'fc.weight', which was .*({reason})"
    ) as told:
        model.from_seed()
    assert "\n" not in str(told.value)
    assert "or leave init_from_seed out" in str(told.value)


def test_a_fill_that_is_no_distribution_is_refused() -> None:
    """Infinite constants, and normal draws each with a mean of its own: no distribution of one pair of numbers."""
    with Watching() as watching:
        module = nn.Linear(2, 3, bias=False)
        module.weight.data.fill_(float("inf"))
        means = torch.normal(torch.zeros(2, 3), 1.0)
    for tensor in (module.weight, means):
        assert watching._origin(tensor) == "filled with what is no distribution of finite numbers"


def test_weights_are_drawn_by_the_seed_alone() -> None:
    model = load_model("lenet-300-100-digits", (8, 8), 10).from_seed()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (model.initial_weights(seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    drawn = model.drawn(5)
    assert drawn is not None
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert value.numpy().tobytes() == drawn.at(name, np.arange(value.numel())).tobytes()
    assert not any(torch.equal(first[name], other[name]) for name in model.network.prunable)
    assert model.fingerprint(5) != load_model("lenet-300-100-digits", (8, 8), 10).fingerprint(5)


def test_the_spread_is_that_of_torch() -> None:
    """Of every weight of a preset, by its standard deviation, within five standard errors of both."""
    plain = load_model("sensor-1d", (9, 128), 6)
    ours, theirs = plain.from_seed().initial_weights(1), plain.initial_weights(1)
    for name, value in ours.items():
        error = 5 / math.sqrt(value.numel())
        assert abs(float(value.std()) - float(theirs[name].std())) <= error * float(theirs[name].std()), name


def test_controls_are_drawn_alike_by_seeds_of_their_own(tmp_path: Path) -> None:
    found = search(tmp_path, init_from_seed=True)
    model = found.model
    reinit = found.fresh(0, "reinit", 1, 0)
    assert set(reinit) == set(found.theta(0))
    for name, value in found.theta(0).items():
        assert np.array_equal(value, model.initial_weights(derive(0, "init"))[name].numpy())
        assert not np.array_equal(value, reinit[name])
        assert np.array_equal(reinit[name], model.initial_weights(derive(0, "reinit", 1, 0))[name].numpy())


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "ticket" / name).read_bytes() for name in ARRAYS}


def test_a_search_is_deterministic_resumes_and_says_where_its_weights_come_from(tmp_path: Path) -> None:
    brief = [*SMALL, "--rounds", "1", "--seeds", "2", "--reinits", "1", "--quiet", "true", "--stability", "false"]
    small = [*brief, "--init-from-seed", "true"]
    whole, broken, plain = (tmp_path / name for name in ("whole", "broken", "plain"))
    assert find.main([*small, "--output-dir", str(whole)]) in (0, 3)
    interrupted = search(broken, Watcher(stop_after=3), **json.loads((whole / "config.json").read_text()))
    with pytest.raises(Interrupted):
        interrupted.run()
    assert find.main([*small, "--output-dir", str(broken)]) in (0, 3)
    assert files(whole) == files(broken)
    ticket = load_ticket(whole / "ticket")
    seed = ticket.card["provenance"]["seed"]
    assert ticket.drawn is not None
    assert ticket.drawn.seed == derive(seed, "init")
    assert ticket.card["provenance"]["options"]["init_from_seed"] is True
    assert find.main([*brief, "--output-dir", str(plain)]) in (0, 3)
    assert load_ticket(plain / "ticket").drawn is None
    assert files(plain) != files(whole)


def test_another_generator_is_another_run(tmp_path: Path) -> None:
    search(tmp_path, init_from_seed=True)
    with pytest.raises(UsageError, match="holds a run with init_from_seed True, not False"):
        search(tmp_path)


def test_other_widths_are_drawn_as_well(tmp_path: Path) -> None:
    small = [*SMALL, "--rounds", "1", "--init-from-seed", "true", "--quiet", "true", "--output-dir", str(tmp_path)]
    assert find.main(small) in (0, 3)
    narrow = open_lab(tmp_path, "x", None, Watcher()).model(0.5)
    assert narrow.distributions is not None
    assert narrow.network.parameter_shapes["fc1.weight"] == (8, 20)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"rewind_step": "500it"}, "init_from_seed with rewind_step 500it: its tickets start from trained weights"),
        ({"rewind_step": "1ep"}, "init_from_seed with rewind_step 1ep"),
        ({"rewind_step": "auto"}, "init_from_seed with rewind_step auto"),
        ({"retrain": "learning-rate"}, "init_from_seed with retrain learning-rate: its tickets start from trained"),
        ({"retrain": "fine-tune"}, "init_from_seed with retrain fine-tune"),
    ],
)
def test_trained_weights_are_refused(choice: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Options(init_from_seed=True, **choice).resolve({})
    Options(init_from_seed=True, rewind_step="0ep").resolve({})


def test_a_model_that_cannot_be_drawn_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    name = f"{__name__}:truncated"
    with pytest.raises(UsageError, match=r"init_from_seed cannot draw '0.weight', which was read by aten.[lg]t"):
        find.prepare(options(tmp_path / "run", model=name, init_from_seed=True), Watcher())
    assert not (tmp_path / "run").exists()


def truncated() -> nn.Module:
    layer = nn.Linear(20, 4)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return nn.Sequential(layer)
