"""Small dense networks for comparison with a ticket: the large network narrowed until it has no more weights than the ticket.

Kept in the large network's parameters, as masks of whole units: nothing live reads a unit that is left out, so it is the
small network, and export.compact makes its small artifact. Layer norm and softmax over hidden units, which would see those
left out, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from export.network import Network, Node
from server_side.controls import Values, apply_masks
from server_side.errors import UsageError
from server_side.prune import Masks, live_count
from server_side.units import Bits, follow, reading

Form = Literal["scaled", "even"]
FORMS: tuple[Form, ...] = ("scaled", "even")


def student_masks(network: Network, weights: int, form: Form) -> Masks:
    """The widest network of at most `weights` weights (biases do not count): `scaled` narrows every hidden layer by the same
    factor, `even` to the same width, those that are narrower anyway not at all. Raises UsageError where not even a unit a
    layer is that small."""
    widest = max(
        (network.shapes[i + 1][0] for i, node in enumerate(network.nodes) if _hidden(network, i, node)), default=1
    )

    def masks_of(step: int) -> Masks:
        bound: Callable[[int], int] = (lambda n: n * step // widest) if form == "scaled" else (lambda n: min(n, step))
        return narrowed(network, lambda n: max(1, bound(n)))

    low, high = 1, widest  # the widest that fits is at least `low`
    names = network.prunable
    if live_count(masks_of(1), names) > weights:
        raise UsageError(
            f"no dense network with a unit a layer has as few as {weights} weights; compare with a denser ticket"
        )
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if live_count(masks_of(middle), names) <= weights else (low, middle - 1)
    return masks_of(low)


def narrowed(network: Network, width: Callable[[int], int]) -> Masks:
    """The masks of a network whose hidden layers of n units or channels have their first `width(n)` alone."""
    masks = {}

    def layer(index: int, node: Node, inputs: Bits) -> Bits:
        units = network.shapes[index + 1][0]
        left_out = np.arange(units) >= (width(units) if _hidden(network, index, node) else units)
        masks[node.params["weight"]] = reading(network, node, inputs, left_out)
        return left_out

    def mixed(node: Node) -> None:
        raise UsageError(f"{node.op} '{node.name}' mixes hidden units, so that no narrow network lies in this one")

    follow(network, layer, mixed)
    return masks


def student_start(fresh: Values, masks: Masks) -> Values:
    """`fresh` weights of the large network for the narrow one: where a unit reads fewer inputs they are larger by the root
    of that, so that its sums have the spread that they have in the large one."""
    scaled = {}
    for name, mask in masks.items():
        inputs = mask.reshape(len(mask), -1).sum(1).max()
        scaled[name] = fresh[name] * np.float32(math.sqrt(math.prod(mask.shape[1:]) / inputs))
    return apply_masks({**fresh, **scaled}, masks)


def _hidden(network: Network, index: int, node: Node) -> bool:
    """Whether its units may be left out: those of the last matrix are the classes."""
    return node.op in ("linear", "conv") and node.params["weight"] != network.prunable[-1]
