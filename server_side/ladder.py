"""How many weights are live after each round, and the share of its live weights that each layer loses in one.

Layers that are excluded are not pruned and count in no quota: peers that count them prune the others more than they were
told to. A density is of all weights that could be pruned, those of excluded layers too, as in the papers. Where whole units are
pruned, these counts are of their own weights; the weights that read them go too (units.py), so that fewer are live.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from export.network import Network
from server_side.errors import UsageError
from server_side.options import Options
from server_side.prune import removed_count

ALL = "*"  # the one quota of global scope
MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class Ladder:
    """`shapes` of the weights that are pruned, by name; `rungs`: how many of them are live after each round, the dense counts
    first, by name or of ALL; `excluded`: weights of the layers that could be pruned but are in no quota; `followers`: those of
    them that lose weights with the units they read."""

    shapes: Mapping[str, tuple[int, ...]]
    rungs: tuple[Mapping[str, int], ...]
    excluded: int = 0
    followers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def live(self) -> list[int]:
        """Live weights after each round, those of excluded layers among them, the dense count first."""
        return [self.excluded + sum(rung.values()) for rung in self.rungs]

    @property
    def densities(self) -> list[float]:
        """Share of all weights that could be pruned, after each round."""
        return [live / self.live[0] for live in self.live]

    @property
    def is_global(self) -> bool:
        return ALL in self.rungs[0]

    def emptied_layer(self) -> str | None:
        """A layer that the first round would leave without a weight, as far as that is known before training."""
        first, dense = self.rungs[min(1, len(self.rungs) - 1)], self.rungs[0]
        return next((name for name, live in first.items() if live == 0 < dense[name]), None)


def ladder(network: Network, options: Options) -> Ladder:
    """Of filled options; raises UsageError for a pattern that matches no layer, or where nothing is left to prune."""
    shapes = _pruned_shapes(network, options.exclude or [])
    excluded = sum(math.prod(network.parameter_shapes[name]) for name in network.prunable if name not in shapes)
    followers = {}
    if options.structure == "rows" and (output := network.prunable[-1]) in shapes:
        followers[output] = shapes.pop(output)  # its rows are the classes
        excluded += math.prod(followers[output])
        if not shapes:
            raise UsageError(
                f"structure rows: layer '{layer_of(output)}' is the only one, and its rows are the classes"
            )
    if options.n_of_m is not None:
        return Ladder(shapes, _n_of_m_rungs(shapes, *options.n_of_m), excluded)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if options.scope == "global":
        sizes, fractions = {ALL: sum(sizes.values())}, {ALL: float(options.filled("prune_fraction"))}
    else:
        fractions = _fractions(network, options, tuple(shapes))
    if options.target_density is not None and options.target_density * (excluded + sum(sizes.values())) <= excluded:
        raise UsageError(
            f"target_density {options.target_density}: the excluded layers alone are {excluded / (excluded + sum(sizes.values())):.2%} "
            "of the weights; take a larger one"
        )
    if options.rounds and options.target_density:
        goal = options.target_density * (1 + excluded / sum(sizes.values())) - excluded / sum(sizes.values())
        fractions = dict.fromkeys(fractions, 1 - goal ** (1 / options.rounds))
    rungs: list[Mapping[str, int]] = [sizes]
    wanted = (options.target_density or 0.0) * (excluded + sum(sizes.values()))
    while len(rungs) <= (options.rounds or MOST_ROUNDS):
        if options.rounds is None and excluded + sum(rungs[-1].values()) <= wanted:
            break
        after = {name: live - removed_count(live, fractions[name]) for name, live in rungs[-1].items()}
        if after == rungs[-1]:
            break
        rungs.append(after)
    return Ladder(shapes, tuple(rungs), excluded, followers)


def _n_of_m_rungs(shapes: Mapping[str, tuple[int, ...]], n: int, m: int) -> tuple[Mapping[str, int], ...]:
    """One of every m inputs fewer a round, down to n; of a last few that are no whole m, what is beyond that."""

    def live(shape: tuple[int, ...], kept: int) -> int:
        whole, rest = divmod(shape[1], m)
        return math.prod(shape) // shape[1] * (whole * kept + min(rest, kept))

    return tuple({name: live(shape, kept) for name, shape in shapes.items()} for kept in range(m, n - 1, -1))


def first_match(layer: str, patterns: Iterable[str]) -> str | None:
    """The first of the patterns, as of file names, that fits the layer: its weight's name without `.weight`."""
    return next((pattern for pattern in patterns if fnmatchcase(layer, pattern)), None)


def layer_of(name: str) -> str:
    """The layer of a weight, as patterns mean it."""
    return name.removesuffix(".weight")


def _pruned_shapes(network: Network, exclude: list[str]) -> dict[str, tuple[int, ...]]:
    check_patterns("exclude", exclude, network)
    names = [name for name in network.prunable if first_match(layer_of(name), exclude) is None]
    if not names:
        raise UsageError(f"exclude {exclude}: no layer is left to prune; leave some out")
    return {name: network.parameter_shapes[name] for name in names}


def _fractions(network: Network, options: Options, names: tuple[str, ...]) -> dict[str, float]:
    """The first pattern that matches, else the output layer's, else the common one."""
    patterns = options.prune_fractions or {}
    check_patterns("prune_fractions", patterns, network)
    fractions = dict.fromkeys(names, float(options.filled("prune_fraction")))
    if network.prunable[-1] in fractions:
        fractions[network.prunable[-1]] = float(options.filled("output_prune_fraction"))
    found = {name: first_match(layer_of(name), patterns) for name in names}
    return {name: fractions[name] if pattern is None else patterns[pattern] for name, pattern in found.items()}


def check_patterns(option: str, patterns: Iterable[str], network: Network) -> None:
    """Raises UsageError where a pattern of `option` fits no layer that can be pruned."""
    layers = [layer_of(name) for name in network.prunable]
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise UsageError(
                f"{option} '{pattern}': no layer that can be pruned has such a name; there are {', '.join(layers)}"
            )
