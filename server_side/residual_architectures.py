"""Networks of the literature with shortcuts: ResNet-20 for CIFAR, ResNet-18 and ResNet-50 for ImageNet, MobileNet-V2.

Layers are conv1.., those of block 3 are blocks.3.conv1.. and, where its shape changes, blocks.3.shortcut.conv (a 1x1
convolution with batch norm; option B of He et al. 2016, as in open_lth). The last one is output. No convolution has a bias.
"""

from __future__ import annotations

import torch
from torch import nn

from export.network import Shape
from server_side.architectures import chain, kaiming, norm, with_channels


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    return kaiming(nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False))


def _shortcut(before: int, after: int, stride: int) -> nn.Module:
    if stride == 1 and before == after:
        return nn.Identity()
    return chain({"conv": _conv(before, after, 1, stride), "norm": norm(after)})


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the shortcut, then ReLU (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(before, after, 3, stride), norm(after)
        self.conv2, self.norm2 = _conv(after, after, 3), norm(after)
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, before, height, width) -> (batch, after, height / stride, width / stride)"""
        hidden = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down to a quarter, 3x3, 1x1 up again beside the shortcut, then ReLU; the 3x3 has the stride, as in torchvision."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        narrow = after // 4
        self.conv1, self.norm1 = _conv(before, narrow, 1), norm(narrow)
        self.conv2, self.norm2 = _conv(narrow, narrow, 3, stride), norm(narrow)
        self.conv3, self.norm3 = _conv(narrow, after, 1), norm(after)
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, before, height, width) -> (batch, after, height / stride, width / stride)"""
        hidden = torch.relu(self.norm1(self.conv1(x)))
        hidden = torch.relu(self.norm2(self.conv2(hidden)))
        return torch.relu(self.norm3(self.conv3(hidden)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """1x1 up, 3x3 on each channel by itself, 1x1 down; a shortcut where the shape stays (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * before
        layers: dict[str, nn.Module] = {}
        if expansion != 1:
            layers |= {"expand": _conv(before, wide, 1), "norm1": nn.BatchNorm2d(wide), "relu1": nn.ReLU6()}
        layers |= {"depthwise": _conv(wide, wide, 3, stride, wide), "norm2": nn.BatchNorm2d(wide), "relu2": nn.ReLU6()}
        self.body = chain({**layers, "project": _conv(wide, after, 1), "norm3": nn.BatchNorm2d(after)})
        self.has_shortcut = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, before, height, width) -> (batch, after, height / stride, width / stride)"""
        y: torch.Tensor = self.body(x)
        return x + y if self.has_shortcut else y


def _head(width: int, classes: int) -> dict[str, nn.Module]:
    output = kaiming(nn.Linear(width, classes))
    return {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "output": output}


def resnet_20(input_shape: Shape, classes: int) -> nn.Sequential:
    """He et al. 2016, section 4.2: three stages of three blocks, 16, 32 and 64 wide."""
    (channels, *_), layers = with_channels(input_shape, 3)
    layers |= {"conv1": _conv(channels, 16, 3), "norm1": norm(16), "relu1": nn.ReLU()}
    blocks, before = [], 16
    for after in (16, 32, 64):
        for position in range(3):
            blocks.append(BasicBlock(before, after, 2 if position == 0 and after != 16 else 1))
            before = after
    return chain({**layers, "blocks": nn.Sequential(*blocks), **_head(64, classes)})


def resnet_imagenet(
    block: type[BasicBlock | Bottleneck], depths: Shape, widths: Shape, input_shape: Shape, classes: int
) -> nn.Sequential:
    """He et al. 2016, table 1: a 7x7 convolution and a max pool, then stages of `depths` blocks that are `widths` wide.

    Smaller images than ImageNet's fit too, and are a thirty-second as large at the end.
    """
    (channels, *_), layers = with_channels(input_shape, 3)
    layers |= {"conv1": _conv(channels, 64, 7, 2), "norm1": norm(64), "relu1": nn.ReLU()}
    layers["pool"] = nn.MaxPool2d(3, 2, 1)
    before = 64
    for number, (depth, after) in enumerate(zip(depths, widths, strict=True), start=1):
        stage = []
        for position in range(depth):
            stage.append(block(before, after, 2 if position == 0 and number > 1 else 1))
            before = after
        layers[f"stage{number}"] = nn.Sequential(*stage)
    return chain({**layers, **_head(before, classes)})


# Expansion, width, blocks, stride of the first block: table 2 of Sandler et al. 2018, where the second stage has stride 2.
MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet(input_shape: Shape, classes: int) -> nn.Sequential:
    """MobileNet-V2 for small images: the widths of Sandler et al. 2018, but stride 1 in the first convolution and in the
    second stage, so that 32x32 images are 4x4 at the end. Batch norms start with a scale of 1."""
    (channels, *_), layers = with_channels(input_shape, 3)
    layers |= {"conv1": _conv(channels, 32, 3), "norm1": nn.BatchNorm2d(32), "relu1": nn.ReLU6()}
    blocks, before = [], 32
    for expansion, after, depth, stride in MOBILENET_STAGES:
        for position in range(depth):
            blocks.append(InvertedResidual(before, after, stride if position == 0 else 1, expansion))
            before = after
    layers["blocks"] = nn.Sequential(*blocks)
    layers |= {"conv2": _conv(before, 1280, 1), "norm2": nn.BatchNorm2d(1280), "relu2": nn.ReLU6()}
    return chain({**layers, **_head(1280, classes)})
