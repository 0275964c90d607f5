"""Units that are left out of a network, hidden units or channels, followed through it to what reads them.

A unit of an operator without weights is left out where all units are that it is made of. Softmax and layer norm mix units: what
comes out of them is never left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from export.network import Network, Node
from server_side.prune import Masks, checked

Bits = NDArray[np.bool_]
MIXING = ("layer_norm", "softmax")


def follow(network: Network, layer: Callable[[int, Node, Bits], Bits], mixed: Callable[[Node], None]) -> None:
    """From the input to the output. `layer` is told of each linear and conv its number among the nodes and which units of its
    input are left out, and says which of its own are; `mixed` is told of operators that mix units of which some are."""
    gone: list[Bits] = [np.zeros(network.input_shape[0], np.bool_)]
    for index, node in enumerate(network.nodes):
        inputs, units = [gone[buffer] for buffer in node.inputs], network.shapes[index + 1][0]
        if node.op in ("linear", "conv"):
            gone.append(layer(index, node, inputs[0]))
        elif node.op == "concat":
            gone.append(np.concatenate(inputs))
        elif node.op == "reshape":
            spread = np.repeat(inputs[0], math.prod(network.shapes[node.inputs[0]][1:]))
            gone.append(_all(spread.reshape(units, -1), 1))
        elif node.op in MIXING and inputs[0].any():
            mixed(node)
            gone.append(np.zeros(units, np.bool_))
        else:
            gone.append(_all(np.stack(inputs), 0))


def reading(network: Network, node: Node, inputs: Bits, outputs: Bits) -> Bits:
    """The places of a weight (outputs, inputs of a group, ...) that read none of `inputs` and make none of `outputs`."""
    shape = network.parameter_shapes[node.params["weight"]]
    groups = node.whole("groups") if node.op == "conv" else 1
    reads = ~inputs.reshape(groups, 1, -1) & ~outputs.reshape(groups, -1, 1)  # (groups, outputs and inputs of a group)
    return np.broadcast_to(reads.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape).copy()


def without_readers(network: Network, masks: Masks) -> Masks:
    """`masks` without the weights that read a unit whose own are all pruned; a layer without a mask reads what it reads. Raises
    LayerCollapse where a layer is left empty."""
    left = dict(masks)

    def layer(index: int, node: Node, inputs: Bits) -> Bits:
        name, none = node.params["weight"], np.zeros(network.shapes[index + 1][0], np.bool_)
        if name not in left:
            return none
        left[name] = left[name] & reading(network, node, inputs, none)
        gone: Bits = np.logical_not(left[name].reshape(len(none), -1).any(axis=1))
        return gone

    follow(network, layer, lambda node: None)
    return checked(left)


def _all(bits: Bits, axis: int) -> Bits:
    found: Bits = np.logical_and.reduce(bits, axis)
    return found
