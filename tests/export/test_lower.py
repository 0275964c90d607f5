"""Lowering keeps a module's meaning: its network, computed from JSON alone, gives the module's outputs and gradients.

Every operator from its modules, whole networks, and everything that a device does not have, refused by name.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from export.lower import UnsupportedOperator, lower
from export.network import OPERATORS, Network, NetworkError
from tests.architectures import ARCHITECTURES
from tests.export import interpret

BATCH = 4


class Function(nn.Module):
    """A module of one line."""

    def __init__(self, forward: Callable[..., torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.line = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x, **dict(self.named_children()))


def unsettled(module: nn.Module) -> nn.Module:
    """Biases, norms and statistics away from 0 and 1, where a wrong one shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return module


def samples(input_shape: tuple[int, ...], entries: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    if entries:
        return torch.randint(entries, (BATCH, *input_shape), generator=generator)
    return 3 * torch.randn((BATCH, *input_shape), dtype=torch.float64, generator=generator)


def check_same(module: nn.Module, network: Network, x: torch.Tensor, *, training: bool) -> None:
    """Outputs, gradients of parameters and input, and running statistics: equal to 1e-12 in float64, without dropout."""
    reference = unsettled(copy.deepcopy(module).double())
    if not training:
        reference.eval()
    for part in reference.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    document = json.loads(json.dumps(network.to_json()))
    for node in document["nodes"]:
        node["attrs"].pop("probability", None)
    start = {name: value.detach().clone() for name, value in reference.state_dict().items()}
    values = {p.name: start[p.name].requires_grad_(not p.state) for p in network.parameters}
    known = {"dropout": lambda x, p, a, t: x[0]}
    ours, theirs = (x.clone().requires_grad_(x.is_floating_point()) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpret, "OPERATORS", {**interpret.OPERATORS, **known})
        got = interpret.run(document, values, ours, training=training)
    expected = reference(theirs)
    close(got, expected, "output")
    towards = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.autograd.backward([got, expected], [towards, towards])
    if x.is_floating_point():
        close(ours.grad, theirs.grad, "gradient of the input")
    gradients = {name: p.grad for name, p in reference.named_parameters()}
    assert set(gradients) == {p.name for p in network.parameters if not p.state}
    for name, gradient in gradients.items():
        close(values[name].grad, gradient, f"gradient of {name}")
    for parameter in network.parameters:
        if parameter.state:
            close(values[parameter.name], reference.state_dict()[parameter.name], parameter.name)


def close(got: torch.Tensor | None, expected: torch.Tensor | None, what: str) -> None:
    assert got is not None, what
    assert expected is not None, what
    error = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-3)
    assert error < 1e-12, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_mean_what_the_module_means(name: str, training: bool) -> None:
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = architecture.build()
    network = lower(module, architecture.input_shape)
    check_same(module, network, samples(architecture.input_shape, architecture.entries), training=training)
    weights = {n for n, p in module.named_parameters() if p.ndim > 1}
    assert set(network.prunable) == weights


def window(op: str, **changes: int) -> dict[str, int]:
    """Attributes of conv or a pool, with those that do nothing filled in."""
    attrs = {f"{name}_{axis}": int(name != "pad") for name in ("kernel", "stride", "pad") for axis in "hw"}
    if op == "conv":
        attrs |= {"dilation_h": 1, "dilation_w": 1, "groups": 1}
    if op == "avg_pool":
        attrs["count_include_pad"] = 1
    return attrs | changes


def read_again(x: torch.Tensor) -> torch.Tensor:
    y = x * x
    return F.relu(y, inplace=True) + y


def gated(x: torch.Tensor) -> torch.Tensor:
    y = x.flatten(1)
    return torch.tanh(y) * y


Nodes = list[tuple[str, dict[str, Any]]]
CONV_33 = {"kernel_h": 3, "kernel_w": 3}
BN = {"epsilon": 1e-5, "momentum": 0.1, "frozen": 0}
IMAGE, SIGNAL, VECTOR = (4, 6, 8), (4, 8), (6,)
MEAN = {"kernel_h": 4, "stride_h": 4}

# Name: module, shape of a sample, what it becomes before it is flattened.
LOWERED: dict[str, tuple[nn.Module, tuple[int, ...], Nodes]] = {
    "linear": (nn.Linear(6, 3), VECTOR, [("linear", {})]),
    "linear without bias": (nn.Linear(6, 3, bias=False), VECTOR, [("linear", {})]),
    "conv2d": (nn.Conv2d(4, 5, 3), IMAGE, [("conv", window("conv", **CONV_33))]),
    "conv2d without bias": (nn.Conv2d(4, 5, 3, bias=False), IMAGE, [("conv", window("conv", **CONV_33))]),
    "conv2d, all settings": (
        nn.Conv2d(4, 6, (2, 3), stride=(1, 2), padding=(1, 3), dilation=(1, 2), groups=2),
        IMAGE,
        [("conv", window("conv", kernel_h=2, kernel_w=3, stride_w=2, pad_h=1, pad_w=3, dilation_w=2, groups=2))],
    ),
    "conv2d, depthwise": (
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        IMAGE,
        [("conv", window("conv", **CONV_33, pad_h=1, pad_w=1, groups=4))],
    ),
    "conv2d, same": (
        nn.Conv2d(4, 5, (3, 5), padding="same", dilation=(2, 1)),
        IMAGE,
        [("conv", window("conv", kernel_h=3, kernel_w=5, pad_h=2, pad_w=2, dilation_h=2))],
    ),
    "conv2d, valid": (nn.Conv2d(4, 5, 3, padding="valid"), IMAGE, [("conv", window("conv", **CONV_33))]),
    "conv2d, one number for both": (
        Function(lambda x, c: F.conv2d(x, c.weight, None, 2, 1), c=nn.Conv2d(4, 5, 3, bias=False)),
        IMAGE,
        [("conv", window("conv", **CONV_33, stride_h=2, stride_w=2, pad_h=1, pad_w=1))],
    ),
    "conv1d": (
        nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        SIGNAL,
        [("conv", window("conv", kernel_w=3, stride_w=2, pad_w=1, dilation_w=2, groups=2))],
    ),
    "conv1d, same": (nn.Conv1d(4, 4, 3, padding="same"), SIGNAL, [("conv", window("conv", kernel_w=3, pad_w=1))]),
    "batch_norm2d": (nn.BatchNorm2d(4), IMAGE, [("batch_norm", BN)]),
    "batch_norm1d": (nn.BatchNorm1d(6), VECTOR, [("batch_norm", BN)]),
    "batch_norm1d of signals": (
        nn.BatchNorm1d(4, eps=0.01, momentum=0.3),
        SIGNAL,
        [("batch_norm", {"epsilon": 0.01, "momentum": 0.3, "frozen": 0})],
    ),
    "batch_norm, frozen": (nn.BatchNorm2d(4).eval(), IMAGE, [("batch_norm", BN | {"frozen": 1})]),
    "layer_norm": (nn.LayerNorm(6), VECTOR, [("layer_norm", {"epsilon": 1e-5, "dimensions": 1})]),
    "layer_norm of 2": (nn.LayerNorm((6, 8), eps=0.1), IMAGE, [("layer_norm", {"epsilon": 0.1, "dimensions": 2})]),
    "layer_norm of 3": (nn.LayerNorm(IMAGE), IMAGE, [("layer_norm", {"epsilon": 1e-5, "dimensions": 3})]),
    "layer_norm, plain": (
        nn.LayerNorm(8, elementwise_affine=False),
        SIGNAL,
        [("layer_norm", {"epsilon": 1e-5, "dimensions": 1})],
    ),
    "relu": (nn.ReLU(), VECTOR, [("relu", {})]),
    "leaky_relu": (nn.LeakyReLU(0.2), VECTOR, [("leaky_relu", {"slope": 0.2})]),
    "relu6": (nn.ReLU6(), VECTOR, [("relu6", {})]),
    "relu6, a function": (Function(F.relu6), VECTOR, [("relu6", {})]),
    "hardtanh": (nn.Hardtanh(0, 6), VECTOR, [("relu6", {})]),
    "hardswish": (nn.Hardswish(), VECTOR, [("hardswish", {})]),
    "sigmoid": (nn.Sigmoid(), VECTOR, [("sigmoid", {})]),
    "tanh": (nn.Tanh(), VECTOR, [("tanh", {})]),
    "gelu": (nn.GELU(), VECTOR, [("gelu", {"approximation": 0})]),
    "gelu, tanh": (nn.GELU("tanh"), VECTOR, [("gelu", {"approximation": 1})]),
    "softmax": (nn.Softmax(dim=-1), VECTOR, [("softmax", {})]),
    "softmax over dimension 1": (nn.Softmax(dim=1), VECTOR, [("softmax", {})]),
    "dropout": (nn.Dropout(0.3), VECTOR, [("dropout", {"probability": 0.3})]),
    "in place: relu": (nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), VECTOR, [("linear", {}), ("relu", {})]),
    "in place: relu6": (
        nn.Sequential(nn.Linear(6, 6), nn.ReLU6(inplace=True)),
        VECTOR,
        [("linear", {}), ("relu6", {})],
    ),
    "in place: leaky_relu": (
        nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(inplace=True)),
        VECTOR,
        [("linear", {}), ("leaky_relu", {"slope": 0.01})],
    ),
    "in place: hardswish": (
        nn.Sequential(nn.Linear(6, 6), nn.Hardswish(inplace=True)),
        VECTOR,
        [("linear", {}), ("hardswish", {})],
    ),
    "in place: dropout": (
        nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3, inplace=True)),
        VECTOR,
        [("linear", {}), ("dropout", {"probability": 0.3})],
    ),
    "in place: add": (
        Function(lambda x, f: f(x).add_(x).mul_(x), f=nn.Linear(6, 6)),
        VECTOR,
        [("linear", {}), ("add", {}), ("mul", {})],
    ),
    "in place, and read again": (
        Function(read_again),
        VECTOR,
        [("mul", {}), ("relu", {}), ("add", {})],
    ),
    "identity": (nn.Sequential(nn.Identity(), nn.ReLU(), nn.Identity()), VECTOR, [("relu", {})]),
    "max_pool2d": (
        nn.MaxPool2d(3, 2, 1),
        IMAGE,
        [("max_pool", window("max_pool", **CONV_33, stride_h=2, stride_w=2, pad_h=1, pad_w=1))],
    ),
    "max_pool1d": (nn.MaxPool1d(2), SIGNAL, [("max_pool", window("max_pool", kernel_w=2, stride_w=2))]),
    "pools, functions": (
        Function(lambda x: F.avg_pool1d(F.max_pool1d(x, 2), 2)),
        SIGNAL,
        [
            ("max_pool", window("max_pool", kernel_w=2, stride_w=2)),
            ("avg_pool", window("avg_pool", kernel_w=2, stride_w=2)),
        ],
    ),
    "avg_pool2d": (
        nn.AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False),
        IMAGE,
        [
            (
                "avg_pool",
                window("avg_pool", kernel_h=2, kernel_w=3, stride_h=2, stride_w=3, pad_w=1, count_include_pad=0),
            )
        ],
    ),
    "avg_pool1d": (nn.AvgPool1d(3, 1, 1), SIGNAL, [("avg_pool", window("avg_pool", kernel_w=3, pad_w=1))]),
    "adaptive_avg_pool2d of 1": (nn.AdaptiveAvgPool2d(1), IMAGE, [("global_avg_pool", {})]),
    "adaptive_avg_pool1d of 1": (nn.AdaptiveAvgPool1d(1), SIGNAL, [("global_avg_pool", {})]),
    "adaptive_avg_pool2d": (
        nn.AdaptiveAvgPool2d((3, 1)),
        IMAGE,
        [("avg_pool", window("avg_pool", kernel_h=2, stride_h=2, kernel_w=8, stride_w=8))],
    ),
    "adaptive_avg_pool2d of all": (
        nn.Sequential(nn.AdaptiveAvgPool2d((None, 8)), nn.ReLU()),
        IMAGE,
        [("relu", {})],
    ),
    "mean of images": (Function(lambda x: x.mean((2, 3))), IMAGE, [("global_avg_pool", {})]),
    "mean of images, kept": (Function(lambda x: x.mean((-1, -2), keepdim=True)), IMAGE, [("global_avg_pool", {})]),
    "mean of signals": (Function(lambda x: x.mean(-1)), SIGNAL, [("global_avg_pool", {})]),
    "mean of rows": (
        Function(lambda x: x.mean(3)),
        IMAGE,
        [("reshape", {"shape": (24, 8)}), ("global_avg_pool", {})],
    ),
    "mean over channels": (
        Function(lambda x: x.mean(1)),
        SIGNAL,
        [("reshape", {"shape": (1, 4, 8)}), ("avg_pool", window("avg_pool", **MEAN))],
    ),
    "mul": (Function(lambda x: x * torch.sigmoid(x)), VECTOR, [("sigmoid", {}), ("mul", {})]),
    "add": (Function(lambda x: torch.add(x, torch.sigmoid(x))), VECTOR, [("sigmoid", {}), ("add", {})]),
    "concat": (
        Function(lambda x: torch.cat([x, torch.tanh(x), x], 1)),
        IMAGE,
        [("tanh", {}), ("concat", {})],
    ),
    "concat of vectors": (
        Function(lambda x: torch.concat([x, torch.tanh(x)], dim=-1)),
        VECTOR,
        [("tanh", {}), ("concat", {})],
    ),
    "concat of one": (Function(lambda x: torch.tanh(torch.cat([x], 1))), VECTOR, [("tanh", {})]),
    "reshapes between": (
        Function(lambda x: torch.tanh(x.view(x.shape[0], 2, 3).unsqueeze(1).squeeze(1).reshape(-1, 3, 2))),
        VECTOR,
        [("reshape", {"shape": (3, 2)}), ("tanh", {})],
    ),
    "unflatten and a new dimension": (
        Function(lambda x: torch.tanh(x.unflatten(1, (3, 2))[:, None])),
        VECTOR,
        [("reshape", {"shape": (1, 3, 2)}), ("tanh", {})],
    ),
    "one reshape for two readers": (
        Function(gated),
        SIGNAL,
        [("reshape", {"shape": (32,)}), ("tanh", {}), ("mul", {})],
    ),
    "squeeze of all": (
        Function(lambda x: torch.tanh(F.adaptive_avg_pool2d(x, 1).squeeze((2, 3)))),
        IMAGE,
        [("global_avg_pool", {}), ("tanh", {})],
    ),
    "clone and float": (Function(lambda x: torch.tanh(x.clone().contiguous().to(x.dtype))), VECTOR, [("tanh", {})]),
    "what nobody reads": (Function(lambda x: (x.cos(), torch.tanh(x))[1]), VECTOR, [("tanh", {})]),
    "embedding": (nn.Embedding(11, 3), VECTOR, [("embedding", {})]),
    "embedding of cast samples": (
        Function(lambda x, e: e(x.long()), e=nn.Embedding(11, 3)),
        VECTOR,
        [("embedding", {})],
    ),
    "embedding, a function": (
        Function(lambda x, e: F.embedding(x.int(), e.weight), e=nn.Linear(3, 11, bias=False)),
        VECTOR,
        [("embedding", {})],
    ),
}


@pytest.mark.parametrize("name", LOWERED)
def test_every_operator_lowers_with_its_settings_and_means_the_same(name: str) -> None:
    part, input_shape, expected = LOWERED[name]
    torch.manual_seed(0)
    module = nn.Sequential(part, nn.Flatten())
    network = lower(module, input_shape, "mse")
    nodes = [(node.op, dict(node.attrs)) for node in network.nodes]
    assert nodes[: len(expected)] == expected
    assert [op for op, _ in nodes[len(expected) :]] in ([], ["reshape"])
    x = samples(input_shape, 11 if "embedding" in name else 0)
    for training in (False, True):
        check_same(module, network, x, training=training)


def test_the_table_above_has_every_operator() -> None:
    assert {op for _, _, nodes in LOWERED.values() for op, _ in nodes} == set(OPERATORS)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_windows_of_any_size_mean_the_same(data: st.DataObject) -> None:
    """Convolutions and pools with settings at random, also those that leave a last row or column out."""
    dimensions = data.draw(st.integers(1, 2))
    kernel = data.draw(st.tuples(*[st.integers(1, 4)] * dimensions))
    stride = data.draw(st.tuples(*[st.integers(1, 3)] * dimensions))
    groups = data.draw(st.sampled_from((1, 2, 4)))
    kind = data.draw(st.sampled_from(("Conv", "MaxPool", "AvgPool")))
    dilation = data.draw(st.tuples(*[st.integers(1, 2)] * dimensions)) if kind == "Conv" else (1,) * dimensions
    most = [d * (k - 1) if kind == "Conv" else k // 2 for d, k in zip(dilation, kernel, strict=True)]
    pad = tuple(data.draw(st.integers(0, limit)) for limit in most)
    if kind == "Conv":
        layer = getattr(nn, f"Conv{dimensions}d")(4, 4, kernel, stride, pad, dilation, groups)
    else:
        layer = getattr(nn, f"{kind}{dimensions}d")(kernel, stride, pad)
    module = nn.Sequential(layer, nn.Flatten())
    shape = (4, 9, 8)[: 1 + dimensions]
    check_same(module, lower(module, shape, "mse"), samples(shape, 0), training=True)


class Lines(nn.Module):
    """A module with a parameter and a buffer of its own."""

    def __init__(self, forward: Callable[[torch.Tensor, Any], torch.Tensor]) -> None:
        super().__init__()
        self.line = forward
        self.w = nn.Parameter(torch.ones(6))
        self.register_buffer("b", torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x, self)


def behind_a_view(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    F.relu(y.view(-1, 2, 3), inplace=True)
    return y * y


def changed_at_last(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    F.relu(y.view(-1, 2, 3), inplace=True)
    return y


def before_a_change(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    view = y.view(-1, 2, 3)
    F.relu(y, inplace=True)
    return view.flatten(1)


def without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = torch.tanh(x)
    return x * y


# What the error says: the module and the shape of a sample. Modules stand at path '0' of a sequence.
REFUSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "module '0' (Conv2d): padding_mode='reflect'; pad with zeros": (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        IMAGE,
    ),
    "(Conv1d): aten.conv1d.padding with padding='same' and a kernel of (4,) pads one side more; take an odd": (
        nn.Conv1d(4, 4, 4, padding="same"),
        SIGNAL,
    ),
    "conv '0': pad_h 1 with kernel_h 1 must be at most 0; pad less": (nn.Conv2d(4, 4, 1, padding=1), IMAGE),
    "module '0' (Conv3d): aten.conv3d.default cannot be trained": (nn.Conv3d(4, 4, 1), (4, 2, 2, 2)),
    "module '0' (ConvTranspose2d): aten.conv_transpose2d": (nn.ConvTranspose2d(4, 4, 2), IMAGE),
    "module '0' (BatchNorm1d): momentum=None; give a number": (nn.BatchNorm1d(6, momentum=None), VECTOR),
    "module '0' (BatchNorm1d): affine=False; leave it True": (nn.BatchNorm1d(6, affine=False), VECTOR),
    "module '0' (BatchNorm1d): track_running_stats=False; leave it True": (
        nn.BatchNorm1d(6, track_running_stats=False),
        VECTOR,
    ),
    "with the running_mean None; a device trains a layer's own": (
        Function(lambda x, n: F.batch_norm(x, None, None, n.weight, n.bias, True), n=nn.LayerNorm(6)),
        VECTOR,
    ),
    "batch_norm '0': weight (2,) for an input of shape (2, 2, 2, 2)": (nn.BatchNorm3d(2), (2, 2, 2, 2)),
    "(LayerNorm): aten.layer_norm.default with a weight or a bias alone": (nn.LayerNorm(6, bias=False), VECTOR),
    "leaky_relu '0': slope -0.5 must be a finite number of at least 0": (nn.LeakyReLU(-0.5), VECTOR),
    "conv '0': kernel_w 300 must be a whole number in 1..256": (nn.Conv1d(1, 1, 300), (1, 400)),
    "module '0' (GroupNorm): aten.group_norm.default cannot": (nn.GroupNorm(2, 4), IMAGE),
    "module '0' (Hardtanh): aten.hardtanh.default between -1.0 and 1.0": (nn.Hardtanh(), VECTOR),
    "aten.clamp.default cannot be trained": (Function(lambda x: x.clamp(0, 6)), VECTOR),
    "module '0' (SiLU): aten.silu.default cannot be trained on a device; supported are linear, relu": (
        nn.SiLU(),
        VECTOR,
    ),
    "aten.max_pool2d.default with ceil_mode; a device rounds sizes down": (nn.MaxPool2d(3, ceil_mode=True), IMAGE),
    "aten.max_pool2d.default with dilation [2, 2]; a device pools what": (nn.MaxPool2d(2, dilation=2), IMAGE),
    "aten.max_pool1d.default with dilation [2]": (nn.MaxPool1d(2, dilation=2), SIGNAL),
    "aten.max_pool2d_with_indices.default cannot": (
        Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
        IMAGE,
    ),
    "aten.avg_pool1d.default with ceil_mode": (nn.AvgPool1d(3, ceil_mode=True), SIGNAL),
    "aten.avg_pool2d.default with divisor_override 2": (nn.AvgPool2d(2, divisor_override=2), IMAGE),
    "aten.max_pool2d.default of samples of shape (6, 8); give them a dimension of channels": (
        nn.MaxPool2d(2),
        (6, 8),
    ),
    "from (6, 8) to (4, 4) in windows of unequal size": (nn.AdaptiveAvgPool2d(4), IMAGE),
    "module '0' (AdaptiveMaxPool2d): aten.adaptive_max_pool2d": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "aten.mean.dim over dimensions [0]; take neighbouring ones, and never the batch": (
        Function(lambda x: x.mean(0, keepdim=True)),
        SIGNAL,
    ),
    "aten.mean.dim over dimensions [1, 3]": (Function(lambda x: x.mean((1, 3))), IMAGE),
    "aten.add.Tensor of the number 1: only tensors of the network": (Function(lambda x: x + 1), VECTOR),
    "aten.mul.Tensor of the number 0.5": (Function(lambda x: 0.5 * x), VECTOR),
    "aten.div.Tensor cannot": (Function(lambda x: x / 2), VECTOR),
    "with alpha=2; scale before adding": (Function(lambda x: torch.add(x, torch.tanh(x), alpha=2)), VECTOR),
    "add '0#2': inputs of shapes [(4, 6, 8), (4, 1, 1)] must be equal; broadcasting": (
        Function(lambda x: x + x.mean((2, 3), keepdim=True)),
        IMAGE,
    ),
    "aten.mul.Tensor of the parameter '0.w'": (Lines(lambda x, m: x * m.w), VECTOR),
    "aten.add.Tensor of the buffer or constant '0.b'": (Lines(lambda x, m: x + m.b), VECTOR),
    "aten.mul.Tensor of the parameter '0.f.weight'": (
        Function(lambda x, f: F.linear(x, f.weight * f.weight), f=nn.Linear(6, 6)),
        VECTOR,
    ),
    "aten.linear.default with the weight input; a device trains a layer's own parameters": (
        Function(lambda x: F.linear(x, x)),
        VECTOR,
    ),
    "linear '0': weight (5, 8) does not fit an input of shape (4, 8); flatten it first": (nn.Linear(8, 5), SIGNAL),
    "aten.cat.default along dimension -1; a device concatenates along dimension 1": (
        Function(lambda x: torch.cat([x, x], -1)),
        SIGNAL,
    ),
    "concat '0': inputs": (Function(lambda x: torch.cat([x] * 17, 1)), VECTOR),
    "aten.softmax.int over dimension -1 of samples of shape (4, 8)": (nn.Softmax(-1), SIGNAL),
    "aten.reshape.default gives (2*s": (Function(lambda x: torch.tanh(x.reshape(-1, 3))), VECTOR),
    "aten.transpose.int cannot": (Function(lambda x: x.transpose(1, 2)), SIGNAL),
    "aten.slice.Tensor takes a part": (Function(lambda x: x[:, :2]), VECTOR),
    "aten.detach.default cannot": (Function(lambda x: x.detach() * x), VECTOR),
    "wrap_with_set_grad_enabled cannot": (Function(without_gradient), VECTOR),
    "aten.to.dtype to torch.float64; a device computes in float32": (Function(lambda x: x.double()), VECTOR),
    "aten.mul.Tensor of torch.float64; a device computes in float32": (
        Function(lambda x, e: e(x).flatten(1) * x.double(), e=nn.Embedding(5, 1)),
        VECTOR,
    ),
    "aten.to.dtype to torch.int64": (Function(lambda x: x.long().float()), VECTOR),
    "module '0' (Embedding): padding_idx=0; leave it out": (nn.Embedding(5, 2, padding_idx=0), VECTOR),
    "module '0' (Embedding): max_norm=1.0; leave it out": (nn.Embedding(5, 2, max_norm=1.0), VECTOR),
    "module '0' (Embedding): scale_grad_by_freq=True": (nn.Embedding(5, 2, scale_grad_by_freq=True), VECTOR),
    "module '0' (Embedding): sparse=True; leave it False": (nn.Embedding(5, 2, sparse=True), VECTOR),
    "aten.embedding.default with padding_idx, scale_grad_by_freq or sparse": (
        Function(lambda x, e: F.embedding(x, e.weight, padding_idx=1), e=nn.Embedding(5, 2)),
        VECTOR,
    ),
    "embedding '0': weight (5, 2) and an input of shape (4, 8)": (nn.Embedding(5, 2), SIGNAL),
    "aten.mul.Tensor of torch.int64; a device computes in float32": (
        Function(lambda x, e: e(x) * (x * x)[:, :, None], e=nn.Embedding(5, 1)),
        VECTOR,
    ),
    "module '0' (EmbeddingBag)": (nn.EmbeddingBag(5, 2), VECTOR),
    "module '0' (AlphaDropout): aten.alpha_dropout": (nn.AlphaDropout(0.2), VECTOR),
    "module '0' (Dropout2d): aten.feature_dropout": (nn.Dropout2d(0.2), IMAGE),
    "dropout '0': probability 1.0 must be": (nn.Dropout(1.0), VECTOR),
    "aten.mul.Tensor reads what aten.relu_.default changed through another view": (Function(behind_a_view), VECTOR),
    "aten.flatten.using_ints reads what aten.relu_.default changed": (Function(before_a_change), VECTOR),
    "parameter '0.n.weight' is declared 1 and used 2 times": (
        Function(lambda x, n: n(n(x)), n=nn.BatchNorm1d(6)),
        VECTOR,
    ),
    "parameter '0.f.weight' is never used in forward(); remove it or use it": (
        Function(lambda x, f: torch.tanh(x), f=nn.Linear(6, 6)),
        VECTOR,
    ),
    "cannot be exported for an input of shape (6,)": (Function(lambda x: x if x.sum() > 0 else -x), VECTOR),
    "a network needs at least one node": (nn.Identity(), VECTOR),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_device_does_not_have_is_refused_by_name(text: str) -> None:
    module, input_shape = REFUSED[text]
    with pytest.raises(NetworkError) as caught:
        lower(nn.Sequential(module, nn.Flatten()), input_shape, "mse")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_operators_are_unsupported_and_known_ones_that_do_not_fit_are_not() -> None:
    with pytest.raises(UnsupportedOperator):
        lower(nn.SiLU(), VECTOR)
    with pytest.raises(NetworkError) as caught:
        lower(nn.Linear(8, 5), SIGNAL)
    assert not isinstance(caught.value, UnsupportedOperator)


def test_a_parameter_that_is_not_trained_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    module[0].requires_grad_(False)
    with pytest.raises(UnsupportedOperator, match=r"parameter '0\.weight': requires_grad=False, .* set it True, or"):
        lower(module, (6,))


def test_an_output_that_was_changed_through_a_view_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"reads what aten\.relu_\.default changed through another view"):
        lower(Function(changed_at_last), VECTOR)


def test_two_outputs_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="must return exactly one tensor"):
        lower(Function(lambda x: (x, torch.tanh(x))), VECTOR)  # type: ignore[arg-type,return-value]


def backbone() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def frozen(network: Network) -> list[Any]:
    return [node.attrs["frozen"] for node in network.nodes if node.op == "batch_norm"]


def test_a_batch_norm_is_frozen_by_its_own_mode() -> None:
    """Also below a module that is in eval mode as a whole, which says nothing about dropout."""
    module = backbone()
    module[1].eval()
    before = modes(module)
    network = lower(module, VECTOR)
    assert frozen(network) == [1, 0]
    assert modes(module) == before
    check_same(module, network, samples(VECTOR, 0), training=True)
    whole = backbone().eval()
    network = lower(whole, VECTOR)
    assert frozen(network) == [1, 1]
    assert "dropout" in [node.op for node in network.nodes]
    assert modes(whole) == [False] * 6


def test_modes_come_back_after_a_refusal() -> None:
    inner = backbone()
    module = nn.Sequential(inner, nn.SiLU()).eval()
    inner[1].train()
    before = modes(module)
    with pytest.raises(UnsupportedOperator):
        lower(module, VECTOR)
    assert modes(module) == before


def test_a_dropout_that_the_user_switched_off_is_nothing() -> None:
    module = backbone()
    module[2].eval()
    assert "dropout" not in [node.op for node in lower(module, VECTOR).nodes]


def test_lowering_changes_nothing_in_the_module() -> None:
    module = backbone()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lower(module, VECTOR)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_state_comes_last_and_is_never_prunable() -> None:
    parameters = lower(backbone(), VECTOR).parameters
    assert [(p.name, p.prunable) for p in parameters if not p.state] == [
        ("0.weight", True),
        ("0.bias", False),
        ("1.weight", False),
        ("1.bias", False),
        ("3.weight", False),
        ("3.bias", False),
        ("4.weight", True),
        ("4.bias", False),
    ]
    state = [p.name for p in parameters if p.state]
    assert state == ["1.running_mean", "1.running_var", "3.running_mean", "3.running_var"]
    assert [p.state for p in parameters] == [False] * 8 + [True] * 4


def test_a_dropout_draws_as_the_module_does() -> None:
    module = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.25), nn.Linear(40, 3)).double()
    network = lower(copy.deepcopy(module).float(), VECTOR)
    x = samples(VECTOR, 0)
    torch.manual_seed(5)
    expected = module(x)
    torch.manual_seed(5)
    got = interpret.run(network.to_json(), dict(module.state_dict()), x, training=True)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_the_loss_is_the_networks(loss: str) -> None:
    assert lower(nn.Linear(6, 2), VECTOR, loss).loss == loss
    if loss == "cross_entropy":
        with pytest.raises(NetworkError, match="cross-entropy needs one score for each of >= 2 classes"):
            lower(nn.Linear(6, 1), VECTOR, loss)
    else:
        assert lower(nn.Linear(6, 1), VECTOR, loss).output_shape == (1,)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(NetworkError, match="loss 'hinge' is not known; known are cross_entropy, mse, bce"):
        lower(nn.Linear(6, 2), VECTOR, "hinge")


def test_names_are_the_modules_own_and_unique() -> None:
    module = Function(lambda x, fc: torch.tanh(torch.tanh(fc(x))), fc=nn.Linear(6, 2))
    names = [node.name for node in lower(nn.Sequential(module), VECTOR).nodes]
    assert names == ["0.fc", "0", "0#2"]


def test_the_free_batch_size_is_not_the_examples() -> None:
    """Nothing of the two samples that the module was shown stays in the network."""
    network = lower(nn.Sequential(nn.Conv1d(4, 2, 3), nn.Flatten()), SIGNAL)
    values = dict(nn.Sequential(nn.Conv1d(4, 2, 3)).state_dict())
    for count in (1, 3, 7):
        assert interpret.run(network.to_json(), values, torch.zeros(count, *SIGNAL)).shape == (count, 12)
