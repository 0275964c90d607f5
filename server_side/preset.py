"""A network of the literature with its protocol, and the self-check that it is still the paper's before anything is trained.

The check looks at the lowered network alone: how many weights each group of layers has, and what density the quotas leave
after a round. It refuses, in one line, what was changed by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from export.network import Network, Shape
from server_side.errors import UsageError
from server_side.options import Options
from server_side.prune import removed_count


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
            self._check_densities(name, sizes)

    def _check_densities(self, name: str, sizes: Mapping[str, int]) -> None:
        percents = [100 * density for density in self.densities(sizes, max(self.expected_densities))]
        for number, expected in self.expected_densities.items():
            if round(percents[number], 1) != expected:
                raise self._changed(name, f"round {number} leaves {percents[number]:.2f} % instead of {expected} %")

    def densities(self, sizes: Mapping[str, int], rounds: int) -> list[float]:
        """Share of all prunable weights that is live after each round of `defaults`, the dense 1 first."""
        left = {
            layer: size for layer, size in sizes.items() if first_match(layer, self.defaults.get("exclude", ())) is None
        }
        kept, total = sum(sizes.values()) - sum(left.values()), sum(sizes.values())
        if self.defaults.get("scope") == "global":
            shares = {"all": self.defaults["prune_fraction"]}
            left = {"all": sum(left.values())}
        else:
            shares = {layer: self._share(layer, is_output=layer == list(sizes)[-1]) for layer in left}
        found = [1.0]
        for _ in range(rounds):
            left = {layer: count - removed_count(count, shares[layer]) for layer, count in left.items()}
            found.append((kept + sum(left.values())) / total)
        return found

    def _share(self, layer: str, is_output: bool) -> float:
        by_layer: Mapping[str, float] = self.defaults.get("prune_fractions", {})
        if (pattern := first_match(layer, by_layer)) is not None:
            return by_layer[pattern]
        share: float = self.defaults["prune_fraction"]
        return self.defaults.get("output_prune_fraction", share) if is_output else share

    def _changed(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"model '{name}': {what}; its architecture or quotas were changed, mend server_side/presets.py"
        )

    def unsettable(self) -> list[str]:
        """Names in `defaults` that are no option, or one that is not left open."""
        left_open = {field.name for field in fields(Options) if field.default is None}
        return sorted(set(self.defaults) - left_open)


def first_match(layer: str, patterns: Iterable[str]) -> str | None:
    """The first of the patterns, as of file names, that fits the layer."""
    return next((pattern for pattern in patterns if fnmatchcase(layer, pattern)), None)


def layer_sizes(network: Network) -> dict[str, int]:
    """Prunable weights by layer, in order of the graph; a layer is its weight's name without `.weight`."""
    shapes = network.parameter_shapes
    return {name.removesuffix(".weight"): math.prod(shapes[name]) for name in network.prunable}
