"""How many weights are live after each round, and the share of its live weights that each layer loses in one.

Layers that are excluded are not pruned and count in no quota and no density: peers that count them prune the others more
than they were told to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from export.network import Network
from server_side.errors import UsageError
from server_side.options import Options
from server_side.prune import removed_count

ALL = "*"  # the one quota of global scope
MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class Ladder:
    """`shapes` of the weights that are pruned, by name; `fractions` that a round removes, by name or of ALL; `rungs`: live
    weights after each round, the dense counts first, by name or of ALL."""

    shapes: Mapping[str, tuple[int, ...]]
    fractions: Mapping[str, float]
    rungs: tuple[Mapping[str, int], ...]

    @property
    def live(self) -> list[int]:
        """Live weights after each round, the dense count first."""
        return [sum(rung.values()) for rung in self.rungs]

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
    if options.n_of_m is not None:
        return _n_of_m_ladder(shapes, *options.n_of_m)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if options.scope == "global":
        sizes, fractions = {ALL: sum(sizes.values())}, {ALL: float(options.filled("prune_fraction"))}
    else:
        fractions = _fractions(network, options, tuple(shapes))
    rungs: list[Mapping[str, int]] = [sizes]
    limit = options.target_density
    while len(rungs) <= (options.rounds or MOST_ROUNDS):
        if options.rounds is None and limit is not None and sum(rungs[-1].values()) <= limit * sum(sizes.values()):
            break
        after = {name: live - removed_count(live, fractions[name]) for name, live in rungs[-1].items()}
        if after == rungs[-1]:
            break
        rungs.append(after)
    return Ladder(shapes, fractions, tuple(rungs))


def _n_of_m_ladder(shapes: Mapping[str, tuple[int, ...]], n: int, m: int) -> Ladder:
    """One of every m inputs fewer a round, down to n; of a last few that are no whole m, what is beyond that."""

    def live(shape: tuple[int, ...], kept: int) -> int:
        whole, rest = divmod(shape[1], m)
        return math.prod(shape) // shape[1] * (whole * kept + min(rest, kept))

    rungs = tuple({name: live(shape, kept) for name, shape in shapes.items()} for kept in range(m, n - 1, -1))
    return Ladder(shapes, {}, rungs)


def _pruned_shapes(network: Network, exclude: list[str]) -> dict[str, tuple[int, ...]]:
    for pattern in exclude:
        _check_pattern("exclude", pattern, network)
    shapes = {
        name: network.parameter_shapes[name]
        for name in network.prunable
        if not any(_matches(name, pattern) for pattern in exclude)
    }
    if not shapes:
        raise UsageError(f"exclude {exclude}: no layer is left to prune; leave some out")
    return shapes


def _fractions(network: Network, options: Options, names: tuple[str, ...]) -> dict[str, float]:
    """The first pattern that matches, else the output layer's, else the common one."""
    patterns = options.prune_fractions or {}
    for pattern in patterns:
        _check_pattern("prune_fractions", pattern, network)
    fractions = dict.fromkeys(names, float(options.filled("prune_fraction")))
    if network.prunable[-1] in fractions:
        fractions[network.prunable[-1]] = float(options.filled("output_prune_fraction"))
    for name in names:
        fractions[name] = next(
            (share for pattern, share in patterns.items() if _matches(name, pattern)), fractions[name]
        )
    return fractions


def _matches(name: str, pattern: str) -> bool:
    """`conv1` is meant by conv1, conv* and conv1.weight."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def _check_pattern(option: str, pattern: str, network: Network) -> None:
    if not any(_matches(name, pattern) for name in network.prunable):
        layers = ", ".join(name.rpartition(".")[0] or name for name in network.prunable)
        raise UsageError(f"{option} '{pattern}': no layer that can be pruned has such a name; there are {layers}")
