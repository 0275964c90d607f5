"""Whole networks as people write them, for every test that needs one: what a device must be able to train.

Conv-2, Conv-4 and Conv-6 are those of Frankle & Carbin 2019; the others have the layers of their papers, not the widths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Architecture:
    """A module's factory, the shape of one sample, and below which number samples are whole (0: any real numbers)."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    entries: int = 0

    def samples(self, count: int, seed: int = 0) -> torch.Tensor:
        """float32 samples `(count, *input_shape)`."""
        generator = torch.Generator().manual_seed(seed)
        if self.entries:
            return torch.randint(self.entries, (count, *self.input_shape), generator=generator).float()
        return torch.randn((count, *self.input_shape), generator=generator)


def conv_n(widths: tuple[int, ...], *, side: int = 32, hidden: int = 256) -> nn.Sequential:
    """Pairs of 3x3 convolutions with a max pool after each pair, then three linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = width, side // 2
    head = [nn.Linear(channels * side * side, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(hidden, 10))


def vgg11() -> nn.Sequential:
    """Configuration A of VGG with batch norm, an eighth as wide, for 32x32 images."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (8, 0, 16, 0, 32, 32, 0, 64, 64, 0, 64, 64, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding="same"), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    head = [nn.Linear(channels, 64), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(64, 10)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, with n = 3: 20 layers for 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        shapes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(ResidualBlock(*shape) for shape in shapes))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.bn(self.conv(x))))
        y: torch.Tensor = self.fc(x.mean((2, 3)))
        return y


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, stride: int, activation: type[nn.Module]) -> None:
        super().__init__()
        wide = 4 * before
        self.residual = stride == 1 and before == after
        self.layers = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            nn.Conv2d(wide, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


def mobilenet() -> nn.Sequential:
    """relu6 in the first half and hardswish in the second, as MobileNet V2 and V3 have them; any input size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(inplace=True),
        InvertedResidual(8, 8, 1, nn.ReLU6),
        InvertedResidual(8, 16, 2, nn.ReLU6),
        InvertedResidual(16, 16, 1, nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 32, 1),  # the head of V3 works on 1x1 images
        nn.Hardswish(),
        nn.Flatten(1),
        nn.Dropout(0.2),
        nn.Linear(32, 10),
    )


def sensor_net() -> nn.Sequential:
    """Windows of 128 samples from 9 channels of a phone's sensors, as UCI-HAR has them, into 6 activities."""
    return nn.Sequential(
        nn.Conv1d(9, 16, 5, stride=2, padding=2),
        nn.BatchNorm1d(16),
        nn.LeakyReLU(0.1),
        nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3, padding="same", dilation=2, groups=4),
        nn.Tanh(),
        nn.AvgPool1d(3, 2, 1),
        nn.Conv1d(16, 32, 3),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(32, 6),
    )


class TextClassifier(nn.Module):
    """Windows of three words next to the mean of all words (Kim 2014, with one width), into 4 topics."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.conv = nn.Conv2d(1, 12, (3, 8))
        self.pool = nn.MaxPool2d((14, 1))
        self.fc = nn.Linear(12 + 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = self.embedding(x.long())  # (batch, 16, 8)
        windows = self.pool(torch.relu(self.conv(words.unsqueeze(1))))
        y: torch.Tensor = self.fc(torch.cat([windows.squeeze(-1).squeeze(-1), words.mean(1)], 1))
        return y


class Indexed(nn.Module):
    """The smallest network that reads whole numbers."""

    def __init__(self, length: int, classes: int) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 2), nn.Linear(2 * length, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.embedding(x.long()).flatten(1))
        return y


class GatedMlp(nn.Module):
    """Layer norm, gelu and a gate by softmax over 20 features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(20)
        self.fc1, self.fc2, self.gate = nn.Linear(20, 32), nn.Linear(32, 32, bias=False), nn.Linear(20, 32)
        self.act, self.act2, self.drop = nn.GELU(), nn.GELU(approximate="tanh"), nn.Dropout(0.1)
        self.groups = nn.LayerNorm((2, 8), elementwise_affine=False)
        self.out = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        y = self.drop(self.act(self.fc1(x))) * torch.softmax(self.gate(x), dim=-1)
        y = y + self.act2(self.fc2(y))
        y = self.groups(y.view(-1, 2, 2, 8)).flatten(1)
        scores: torch.Tensor = self.out(y)
        return scores


ARCHITECTURES = {
    "conv-2": Architecture(lambda: conv_n((64,)), (3, 32, 32)),
    "conv-4": Architecture(lambda: conv_n((64, 128)), (3, 32, 32)),
    "conv-6": Architecture(lambda: conv_n((64, 128, 256)), (3, 32, 32)),
    "vgg-11": Architecture(vgg11, (3, 32, 32)),
    "resnet-20": Architecture(ResNet20, (3, 32, 32)),
    "mobilenet": Architecture(mobilenet, (3, 24, 24)),
    "sensor": Architecture(sensor_net, (9, 128)),
    "text": Architecture(TextClassifier, (16,), entries=50),
    "mlp": Architecture(GatedMlp, (20,)),
}
