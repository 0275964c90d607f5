"""Networks of the literature that are plain chains: LeNet-300-100, Conv-2/4/6, VGG and a 1-d net for sensor windows.

Each takes the shape of one sample and the number of classes; images are (channels, height, width), or (height, width)
for one channel. Layers are conv1.., fc1.. and output, so that patterns such as conv* name them. presets.py has their
protocols and refuses shapes that they are not made for. `width` multiplies all hidden units and channels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import nn

from export.network import Shape

POOL = 0  # in a plan of widths


def chain(layers: Mapping[str, nn.Module]) -> nn.Sequential:
    """The layers one after another, under their names."""
    return nn.Sequential(OrderedDict(layers))


def with_channels(input_shape: Shape, rank: int) -> tuple[Shape, dict[str, nn.Module]]:
    """The shape with a dimension of channels in front, and the layer that adds it where a sample has none."""
    if len(input_shape) == rank:
        return input_shape, {}
    return (1, *input_shape), {"channel": nn.Unflatten(1, (1, input_shape[0]))}


def scaled(widths: Iterable[int], width: float) -> Shape:
    """Each of the widths times `width`, rounded, and 1 at least; POOL stays."""
    return tuple(POOL if after == POOL else max(1, round(after * width)) for after in widths)


def glorot(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> nn.Module:
    """Gaussian Glorot weights and zero biases, as Frankle & Carbin 2019 initialise LeNet and Conv-2/4/6 (their code cuts the
    Gaussian's tails at two standard deviations)."""
    nn.init.xavier_normal_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def kaiming(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Kaiming normal weights by the inputs, for ReLU, as in open_lth; the bias of a linear layer is torch's own draw there."""
    nn.init.kaiming_normal_(layer.weight)
    return layer


def norm(width: int) -> nn.Module:
    """Batch norm with its scale drawn evenly from 0 to 1 and a shift of 0, as in open_lth."""
    layer = nn.BatchNorm2d(width)
    nn.init.uniform_(layer.weight)
    return layer


def lenet_300_100(input_shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """The fully connected LeNet of LeCun et al. 1998: 300 and 100 hidden units; flattens samples of any shape."""
    return chain({"flatten": nn.Flatten(), **_dense_head(math.prod(input_shape), scaled((300, 100), width), classes)})


def conv_net(widths: Shape, input_shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Conv-2, Conv-4 and Conv-6 of Frankle & Carbin 2019: pairs of 3x3 convolutions with a max pool after each pair, then
    256 and 256 hidden units. `widths` has one number a pair."""
    (channels, *sides), layers = with_channels(input_shape, 3)
    for pair, after in enumerate(scaled(widths, width), start=1):
        for number in (2 * pair - 1, 2 * pair):
            layers[f"conv{number}"] = glorot(nn.Conv2d(channels, after, 3, padding=1))
            layers[f"relu{number}"] = nn.ReLU()
            channels = after
        layers[f"pool{pair}"] = nn.MaxPool2d(2)
        sides = [side // 2 for side in sides]
    layers["flatten"] = nn.Flatten()
    head = _dense_head(channels * math.prod(sides), scaled((256, 256), width), classes, first=2 * len(widths) + 1)
    return chain({**layers, **head})


def _dense_head(inputs: int, widths: Shape, classes: int, first: int = 1) -> dict[str, nn.Module]:
    """Linear layers with ReLU between them; the ReLUs are numbered on from `first`."""
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(widths):
        layers[f"fc{number + 1}"] = glorot(nn.Linear(inputs, width))
        layers[f"relu{first + number}"] = nn.ReLU()
        inputs = width
    return {**layers, "output": glorot(nn.Linear(inputs, classes))}


def vgg(plan: Shape, input_shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """VGG for small images (Simonyan & Zisserman 2015, as in open_lth): 3x3 convolutions with batch norm, max pools where
    `plan` says POOL, the mean over what is left, one linear layer.

    Its convolutions have no bias, which the batch norm behind them would take away again.
    """
    (channels, *_), layers = with_channels(input_shape, 3)
    number = pools = 0
    for after in scaled(plan, width):
        if after == POOL:
            pools += 1
            layers[f"pool{pools}"] = nn.MaxPool2d(2)
            continue
        number += 1
        layers[f"conv{number}"] = kaiming(nn.Conv2d(channels, after, 3, padding=1, bias=False))
        layers[f"norm{number}"] = norm(after)
        layers[f"relu{number}"] = nn.ReLU()
        channels = after
    head = {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "output": kaiming(nn.Linear(channels, classes))}
    return chain({**layers, **head})


def sensor_1d(input_shape: Shape, classes: int, *, width: float = 1.0) -> nn.Sequential:
    """Three 1-d convolutions and two linear layers for windows (channels, length) of sensors, e.g. (9, 128) of UCI HAR.

    Of no paper: the manner of Conv-2/4/6 in one dimension, without batch norm, so that tickets start at step 0 and a device
    may work through a batch in parts.
    """
    (channels, _), layers = with_channels(input_shape, 2)
    for number, (after, kernel) in enumerate(zip(scaled((64, 64, 128), width), (5, 5, 3), strict=True), start=1):
        layers[f"conv{number}"] = glorot(nn.Conv1d(channels, after, kernel, padding=kernel // 2))
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool1d(2) if number < 3 else nn.AdaptiveAvgPool1d(1)
        channels = after
    return chain({**layers, "flatten": nn.Flatten(), **_dense_head(channels, scaled((128,), width), classes, first=4)})
