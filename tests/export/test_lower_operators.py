"""Every operator lowers from each of its modules and functions, with its settings, and means the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from export.lower import lower
from export.network import OPERATORS
from tests.export.modules import IMAGE, SIGNAL, VECTOR, Function, check_same, samples


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
