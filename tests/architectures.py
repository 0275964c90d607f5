"""Whole networks as people write them, for every test that needs one: what a device must be able to train.

Conv-2, Conv-4, Conv-6 and ResNet-20 are the search's own; the others have the layers of their papers, not the widths, and
spell them in other ways than server_side/architectures.py does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from server_side.presets import PRESETS


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


def of_preset(name: str) -> Architecture:
    """A preset's own network, for the samples it was made for."""
    preset = PRESETS[name]
    return Architecture(partial(preset.build, preset.input_shape, preset.classes), preset.input_shape)


ARCHITECTURES = {
    **{name: of_preset(name) for name in ("conv-2", "conv-4", "conv-6")},
    "vgg-11": Architecture(vgg11, (3, 32, 32)),
    "resnet-20": of_preset("resnet-20"),
    "mobilenet": Architecture(mobilenet, (3, 24, 24)),
    "sensor": Architecture(sensor_net, (9, 128)),
    "text": Architecture(TextClassifier, (16,), entries=50),
    "mlp": Architecture(GatedMlp, (20,)),
}
