"""Presets are their papers': weights, densities, initialisation, protocol; a changed one and unfit samples are refused."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import reference as interpret
from export.lower import lower
from export.network import Network, Shape
from server_side.architectures import POOL, conv_net, lenet_300_100, sensor_1d, vgg
from server_side.errors import UsageError
from server_side.find import main
from server_side.ladder import first_match
from server_side.models import load_model
from server_side.preset import layer_sizes
from server_side.presets import PRESETS
from server_side.residual_architectures import BasicBlock, resnet_imagenet

# Prunable weights, and all trained numbers: 266,610 and 274,042 (with running statistics) are Frankle et al.'s,
# 11,689,512 and 25,557,032 torchvision's.
COUNTS = {
    "lenet-300-100": (266_200, 266_610),
    "lenet-300-100-digits": (50_200, 50_610),
    "conv-2": (4_300_992, 4_301_642),
    "conv-4": (2_425_024, 2_425_930),
    "conv-6": (2_261_184, 2_262_602),
    "vgg-16": (14_715_584, 14_724_042),
    "vgg-19": (20_024_000, 20_035_018),
    "resnet-20": (270_896, 274_042 - 1_568),
    "resnet-18": (11_678_912, 11_689_512),
    "resnet-50": (25_502_912, 25_557_032),
    "mobilenet": (2_202_560, 2_236_682),
    "sensor-1d": (65_088, 65_478),
}
GLOROT = ("lenet-300-100", "conv-2", "conv-6", "sensor-1d")
KAIMING = ("vgg-16", "resnet-20", "resnet-18", "mobilenet")


def lowered(build: Callable[[Shape, int], nn.Module], input_shape: Shape, classes: int) -> Network:
    """Of a module without values: the structure alone, at no cost of memory."""
    with torch.device("meta"):
        module = build(input_shape, classes)
    return lower(module, input_shape)


@functools.cache
def network_of(name: str) -> Network:
    preset = PRESETS[name]
    return lowered(preset.build, preset.input_shape, preset.classes)


@functools.cache
def module_of(name: str) -> nn.Module:
    preset = PRESETS[name]
    torch.manual_seed(0)
    return preset.build(preset.input_shape, preset.classes)


def test_every_preset_is_tested() -> None:
    assert set(COUNTS) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_weights_and_densities_are_the_papers(name: str) -> None:
    preset, network = PRESETS[name], network_of(name)
    weights, trained = COUNTS[name]
    assert sum(preset.expected_weights.values()) == sum(layer_sizes(network).values()) == weights
    assert sum(parameter.size for parameter in network.parameters if not parameter.state) == trained
    preset.check(name, network)


def test_the_statistics_of_resnet_20_are_the_rest_of_274042() -> None:
    assert sum(parameter.size for parameter in network_of("resnet-20").parameters) == 274_042


@pytest.mark.parametrize("name", PRESETS)
def test_every_pattern_names_a_layer_and_the_last_is_the_output(name: str) -> None:
    preset, layers = PRESETS[name], list(layer_sizes(network_of(name)))
    assert layers[-1] == "output"
    for patterns in (preset.expected_weights, preset.defaults.get("prune_fractions", ())):
        found = {first_match(layer, patterns) for layer in layers}
        assert found == set(patterns) or not patterns
    for pattern in preset.defaults.get("exclude", ()):
        assert [layer for layer in layers if first_match(layer, [pattern])]


def test_excluded_are_the_shortcuts_and_the_depthwise_convolutions() -> None:
    def excluded(name: str) -> list[str]:
        return [
            layer for layer in layer_sizes(network_of(name)) if first_match(layer, PRESETS[name].defaults["exclude"])
        ]

    assert excluded("resnet-20") == ["blocks.3.shortcut.conv", "blocks.6.shortcut.conv", "output"]
    assert excluded("vgg-19") == ["output"]
    depthwise = [
        n.params["weight"].removesuffix(".weight") for n in network_of("mobilenet").nodes if is_depthwise(n.attrs)
    ]
    assert len(depthwise) == 17
    assert excluded("mobilenet") == ["conv1", *depthwise, "output"]


def is_depthwise(attrs: Mapping[str, Any]) -> bool:
    return int(attrs.get("groups", 1)) > 1


@pytest.mark.parametrize("name", [*GLOROT, *KAIMING])
def test_weights_are_gaussian_with_the_papers_deviation(name: str) -> None:
    for layer, part in module_of(name).named_modules():
        if not isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)) or part.weight.numel() < 2_000:
            continue
        weight = part.weight.detach()
        outputs, inputs, field = weight.shape[0], weight.shape[1], math.prod(weight.shape[2:])
        expected = math.sqrt(2 / (inputs * field + (outputs * field if name in GLOROT else 0)))
        error = 5 / math.sqrt(2 * weight.numel())  # of five standard errors
        assert float(weight.std()) == pytest.approx(expected, rel=error), layer
        assert abs(float(weight.mean())) < 5 * expected / math.sqrt(weight.numel()), layer
        assert float(weight.abs().max()) > 2.5 * expected, layer  # an even draw ends at 1.7


@pytest.mark.parametrize("name", [*GLOROT, "conv-4", "lenet-300-100-digits"])
def test_biases_start_at_zero(name: str) -> None:
    biases = [value for key, value in module_of(name).named_parameters() if key.endswith(".bias")]
    assert len(biases) == len(layer_sizes(network_of(name)))
    assert not any(value.any() for value in biases)


@pytest.mark.parametrize("name", KAIMING)
def test_batch_norms_start_as_in_the_authors_code(name: str) -> None:
    norms = [part for part in module_of(name).modules() if isinstance(part, nn.BatchNorm2d)]
    scales = torch.cat([part.weight.detach() for part in norms])
    assert not any(bool(part.bias.detach().any()) for part in norms)
    if name == "mobilenet":
        assert bool((scales == 1).all())
        return
    assert 0 <= float(scales.min()) < 0.05
    assert 0.95 < float(scales.max()) <= 1
    assert float(scales.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * len(scales)))


@pytest.mark.parametrize(
    ("name", "input_shape"),
    [("lenet-300-100", (3, 2, 5)), ("conv-4", (9, 8)), ("resnet-20", (8, 9)), ("sensor-1d", (16,))],
)
def test_other_samples_fit_and_a_seed_fixes_the_weights(name: str, input_shape: Shape) -> None:
    model = load_model(name, input_shape, 3)
    assert model.network.input_shape == input_shape
    first, again, other = (model.initial_weights(seed) for seed in (5, 5, 6))
    for key, value in first.items():
        assert torch.equal(value, again[key])
    assert not any(torch.equal(first[key], other[key]) for key in model.network.prunable)


@pytest.mark.parametrize(("name", "input_shape"), [("conv-2", (9, 8)), ("sensor-1d", (16,)), ("resnet-20", (8, 8))])
def test_the_lowered_network_computes_what_the_module_does(name: str, input_shape: Shape) -> None:
    network = lowered(PRESETS[name].build, input_shape, 3)
    torch.manual_seed(1)
    module = PRESETS[name].build(input_shape, 3).double().eval()
    x = torch.randn(4, *input_shape, dtype=torch.float64)
    scores = interpret.run(network.to_json(), module.state_dict(), x)
    torch.testing.assert_close(scores, module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].samples is not None])
def test_the_least_samples_go_forward_and_backward(name: str) -> None:
    preset = PRESETS[name]
    assert preset.samples is not None
    shape = (preset.samples.least,) * min(preset.samples.ranks)
    preset.check_input(name, shape)
    torch.manual_seed(0)
    module = preset.build(shape, 3)
    scores = module(torch.randn(2, *shape))
    assert scores.shape == (2, 3)
    assert bool(torch.isfinite(scores).all())
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "input_shape", "takes"),
    [
        ("conv-2", (64,), "images (channels, height, width) or (height, width) of at least 8 x 8"),
        ("conv-6", (3, 7, 32), "images (channels, height, width)"),
        ("resnet-20", (32, 32, 3), "images (channels, height, width)"),
        ("vgg-16", (8, 8), "of at least 16 x 16"),
        ("mobilenet", (1, 3, 32, 32), "images (channels, height, width)"),
        ("sensor-1d", (3, 32, 32), "windows (channels, length) or (length,)"),
        ("sensor-1d", (9, 4), "of at least 8 values a channel"),
    ],
)
def test_samples_of_another_kind_are_refused(name: str, input_shape: Shape, takes: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_model(name, input_shape, 10)
    text = str(refused.value)
    assert text.startswith(f"model '{name}': samples of shape {input_shape}, but it takes ")
    assert takes in text
    assert "\n" not in text


SMALL_VGG = (64, 64, POOL, 128, 128, POOL, *3 * (256,), POOL, *3 * (512,), POOL, *2 * (512,))
MUTATED: list[tuple[str, Callable[[Shape, int], nn.Module], Shape | None, str]] = [
    ("conv-2", partial(conv_net, (32,)), None, "layers conv1 have 864 weights instead of 1,728"),
    ("conv-2", partial(conv_net, (32,)), (28, 28), "layers conv* have 9,216 weights instead of 36,864"),
    (
        "lenet-300-100",
        lambda s, c: nn.Sequential(*lenet_300_100(s, c)),
        None,
        "layer '1' is not one of fc1, fc2, output",
    ),
    ("vgg-16", partial(vgg, SMALL_VGG), None, "layers conv* have 12,349,440 weights"),
    ("resnet-18", partial(resnet_imagenet, BasicBlock, (2, 2, 2, 1), (64, 128, 256, 512)), (64, 64), "layers stage4.*"),
]


@pytest.mark.parametrize(("name", "build", "shape", "told"), MUTATED)
def test_a_changed_architecture_is_refused(
    name: str, build: Callable[[Shape, int], nn.Module], shape: Shape | None, told: str
) -> None:
    preset = PRESETS[name]
    network = lowered(build, shape or preset.input_shape, 7 if shape else preset.classes)
    with pytest.raises(UsageError, match=f"model '{name}': ") as refused:
        preset.check(name, network)
    assert told in str(refused.value)


def test_the_output_and_the_first_layer_follow_the_data() -> None:
    PRESETS["conv-4"].check("conv-4", lowered(PRESETS["conv-4"].build, (28, 28), 26))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("lenet-300-100", {"output_prune_fraction": 0.2}, "round 3 leaves 51.20 % instead of 51.3 %"),
        ("lenet-300-100", {"prune_fraction": 0.25}, "round 3 leaves 42"),
        ("conv-4", {"prune_fractions": {"fc*": 0.2, "*": 0.15}}, "round 11 leaves"),
        ("resnet-20", {"exclude": ["output"]}, "round 4 leaves"),
        ("vgg-19", {"exclude": []}, "round 19 leaves 1.44 % instead of 1.5 %"),
    ],
)
def test_changed_quotas_are_refused(name: str, changes: dict[str, Any], told: str) -> None:
    preset = replace(PRESETS[name], defaults={**PRESETS[name].defaults, **changes})
    with pytest.raises(UsageError) as refused:
        preset.check(name, network_of(name))
    assert told in str(refused.value)


def test_a_changed_preset_stops_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "sensor-1d", replace(PRESETS["sensor-1d"], build=wider_sensor))
    data = ["--data", f"{__name__}:windows", "--model", "sensor-1d"]
    assert main([*data, "--dry-run", "--output-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("find: model 'sensor-1d': layers conv2 have 40,960 weights instead of 20,480; ")
    assert told.count("\n") == 1


def wider_sensor(input_shape: Shape, classes: int) -> nn.Module:
    module = sensor_1d(input_shape, classes)
    module.conv2, module.conv3 = nn.Conv1d(64, 128, 5, padding=2), nn.Conv1d(128, 128, 3, padding=1)
    return module


def windows() -> dict[str, np.ndarray]:
    """Windows of 2 channels and 16 values; two kinds that differ in the mean."""
    generator = np.random.default_rng(0)
    y = np.arange(120) % 2
    return {"x": (generator.normal(size=(120, 2, 16)) + y[:, None, None]).astype(np.float32), "y": y}


def images() -> dict[str, np.ndarray]:
    """Grey images of 16 x 16."""
    generator = np.random.default_rng(0)
    return {"x": generator.integers(0, 256, (400, 16, 16), dtype=np.uint8), "y": np.arange(400) % 2}


@pytest.mark.parametrize("name", ["conv-2", "resnet-20", "sensor-1d"])
def test_the_plan_of_a_preset(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = "windows" if name == "sensor-1d" else "images"
    run = ["--data", f"{__name__}:{data}", "--model", name, "--batch", "16", "--validation", "0.2", "--dry-run"]
    code = main([*run, "--engine", "device", "--output-dir", str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert code == 0, told
    assert f"{name} (" in told


def test_presets_are_the_papers_protocol() -> None:
    columns = (
        "optimizer",
        "learning_rate",
        "batch",
        "steps",
        "validation",
        "warmup",
        "learning_rate_drops",
        "rewind_step",
    )
    found = {name: tuple(preset.defaults.get(column) for column in columns) for name, preset in PRESETS.items()}
    assert found["lenet-300-100"][:5] == ("adam", 1.2e-3, 60, "50000it", 5000)
    assert found["conv-2"][:5] == ("adam", 2e-4, 60, "20000it", 5000)
    assert found["conv-4"][:5] == ("adam", 3e-4, 60, "25000it", 5000)
    assert found["conv-6"][:5] == ("adam", 3e-4, 60, "30000it", 5000)
    assert found["resnet-20"] == ("sgd", 0.03, 128, "30000it", 5000, "20000it", ["20000it", "25000it"], None)
    assert found["vgg-19"] == ("sgd", 0.1, 64, "112480it", 5000, "10000it", ["56240it", "84360it"], None)
    assert found["vgg-16"] == ("sgd", 0.1, 128, "160ep", 5000, None, ["80ep", "120ep"], "1000it")
    assert found["resnet-50"] == ("sgd", 0.4, 1024, "90ep", 0.02, "5ep", ["30ep", "60ep", "80ep"], "6ep")
    assert PRESETS["conv-6"].defaults["prune_fractions"] == {"conv*": 0.15, "fc*": 0.2, "output": 0.1}
    for name in KAIMING:
        defaults = PRESETS[name].defaults
        assert (defaults["momentum"], defaults["scope"], defaults["prune_fraction"]) == (0.9, "global", 0.2)
        assert defaults["weight_decay"] == (4e-5 if name == "mobilenet" else 1e-4)


def test_the_residual_networks_are_what_their_papers_say() -> None:
    """Sizes of the images on the way."""

    def sides(name: str) -> list[int]:
        return list(dict.fromkeys(shape[1] for shape in network_of(name).shapes if len(shape) == 3 and shape[1] > 1))

    assert sides("resnet-20") == [32, 16, 8]
    assert sides("resnet-18") == sides("resnet-50") == [224, 112, 56, 28, 14, 7]
    assert sides("mobilenet") == [32, 16, 8, 4]
