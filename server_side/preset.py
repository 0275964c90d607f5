"""A network of the literature with its protocol, and the self-check that it is still the paper's before anything is trained.

The check looks at the lowered network alone: how many weights each group of layers has, and what density the quotas leave
after a round. It refuses, in one line, what was changed by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from export.network import Network, Shape
from server_side.errors import UsageError
from server_side.ladder import first_match, ladder, layer_of
from server_side.options import Options


@dataclass(frozen=True)
class Samples:
    """What a network reads: how many dimensions a sample has, and the least length of those behind the channels."""

    ranks: tuple[int, int]
    least: int
    text: str


@dataclass(frozen=True)
class Preset:
    """A network with its protocol.

    `defaults` are options by name. `expected_weights` are the prunable weights for `input_shape` and `classes`: by pattern
    of layer names, the first that fits; those of `by_input` depend on the input shape, and `output` on the classes.
    `expected_densities` are live weights in % after a round of `defaults`, rounded to the digit that papers print.
    """

    build: Callable[[Shape, int], nn.Module]
    defaults: Mapping[str, Any]
    input_shape: Shape
    classes: int
    expected_weights: Mapping[str, int]
    expected_densities: Mapping[int, float]
    by_input: tuple[str, ...] = ("conv1",)
    samples: Samples | None = None  # None: of any shape

    def check_input(self, name: str, input_shape: Shape) -> None:
        """Raises UsageError where samples of this shape cannot be what the network is made for."""
        if self.samples is None:
            return
        sides = input_shape[1 - max(self.samples.ranks) :]
        if len(input_shape) not in self.samples.ranks or min(sides) < self.samples.least:
            raise UsageError(
                f"model '{name}': samples of shape {input_shape}, but it takes {self.samples.text}; reshape the samples, or "
                "take another model"
            )

    def check(self, name: str, network: Network) -> None:
        """Raises UsageError where the network or its quotas are not the paper's; of another input shape or with other
        classes than `input_shape` and `classes`, what depends on them is not looked at."""
        sizes = layer_sizes(network)
        sums = dict.fromkeys(self.expected_weights, 0)
        for layer, size in sizes.items():
            pattern = first_match(layer, self.expected_weights)
            if pattern is None:
                raise self._changed(name, f"layer '{layer}' is not one of {', '.join(self.expected_weights)}")
            sums[pattern] += size
        same_input, same_classes = network.input_shape == self.input_shape, network.output_shape == (self.classes,)
        free = {*(() if same_input else self.by_input), *(() if same_classes else ("output",))}
        for pattern, expected in self.expected_weights.items():
            if pattern not in free and sums[pattern] != expected:
                raise self._changed(name, f"layers {pattern} have {sums[pattern]:,} weights instead of {expected:,}")
        if not free:
            self._check_densities(name, network)

    def _check_densities(self, name: str, network: Network) -> None:
        rounds = max(self.expected_densities)
        percents = [
            100 * density for density in ladder(network, Options(rounds=rounds).resolve(self.defaults)).densities
        ]
        for number, expected in self.expected_densities.items():
            if round(percents[number], 1) != expected:
                raise self._changed(name, f"round {number} leaves {percents[number]:.2f} % instead of {expected} %")

    def _changed(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"model '{name}': {what}; its architecture or quotas were changed, mend server_side/presets.py"
        )


def layer_sizes(network: Network) -> dict[str, int]:
    """Prunable weights by layer, in order of the graph."""
    return {layer_of(name): math.prod(network.parameter_shapes[name]) for name in network.prunable}
