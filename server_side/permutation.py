"""A ticket of a fully connected network in other places of it: its hidden units permuted, which changes no output.

Only for chains of linear layers with operators between them that treat every unit alike; others have no such
permutations, or fewer, and get None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from export.network import Network
from server_side.controls import Values
from server_side.prune import Masks

UNIT_WISE = {"relu", "leaky_relu", "relu6", "hardswish", "sigmoid", "tanh", "gelu", "dropout"}
Order = NDArray[np.intp]  # the old number of the unit that stands at each new place
Scalar = TypeVar("Scalar", bound=np.generic)
Chain = tuple[dict[str, str], ...]  # of each linear layer its parameters by role


def chain_of(network: Network) -> Chain | None:
    """The linear layers from the input to the output, if the network is nothing but such a chain."""
    layers: list[dict[str, str]] = []
    for index, node in enumerate(network.nodes):
        if node.inputs != (index,):
            return None
        if node.op == "linear":
            layers.append(dict(node.params))
        elif not (node.op in UNIT_WISE or (node.op == "reshape" and not layers)):
            return None
    return tuple(layers) if len(layers) > 1 else None


def permuted(
    values: Mapping[str, NDArray[Scalar]], chain: Chain, orders: Sequence[Order]
) -> dict[str, NDArray[Scalar]]:
    """`values`, weights and biases or masks, with the units of each hidden layer in a new order; `orders` has one each."""
    moved: dict[str, NDArray[Scalar]] = dict(values)
    inputs: Order | None = None
    for layer, outputs in zip(chain, [*orders, None], strict=True):
        for name in layer.values():
            if name in moved and outputs is not None:
                moved[name] = moved[name][outputs]
        if inputs is not None and layer["weight"] in moved:
            moved[layer["weight"]] = moved[layer["weight"]][:, inputs]
        inputs = outputs
    return moved


def disjoint_orders(masks: Masks, chain: Chain, taken: Masks) -> list[Order]:
    """Orders of the hidden units that put the live weights of `masks` where few of `taken` are: the fewest for each layer
    given those before it, an assignment of units to places."""
    from scipy.optimize import linear_sum_assignment

    orders: list[Order] = []
    for number, layer in enumerate(chain[:-1]):
        live, there = (_mask(found, layer) for found in (masks, taken))
        inputs = orders[-1] if orders else np.arange(live.shape[1])
        overlap = there @ live[:, inputs].T  # (places, units)
        if number == len(chain) - 2:  # the classes, rows of the output layer, stay where they are
            overlap += _mask(taken, chain[-1]).T @ _mask(masks, chain[-1])
        orders.append(linear_sum_assignment(overlap)[1])
    return orders


def _mask(masks: Masks, layer: dict[str, str]) -> NDArray[np.float32]:
    return masks[layer["weight"]].astype(np.float32)


def copies(values: Values, masks: Masks, chain: Chain, count: int) -> list[tuple[Values, Masks]]:
    """The ticket, and the same in `count` - 1 other places that overlap as little as those of `disjoint_orders`. A layer without
    a mask is whole wherever its units are: it has no say."""
    whole = {layer["weight"]: np.ones(values[layer["weight"]].shape, np.bool_) for layer in chain} | masks
    found, taken = [(values, masks)], whole
    while len(found) < count:
        orders = disjoint_orders(whole, chain, taken)
        place = permuted(whole, chain, orders)
        found.append((permuted(values, chain, orders), {name: place[name] for name in masks}))
        taken = {name: taken[name] | place[name] for name in taken}
    return found
