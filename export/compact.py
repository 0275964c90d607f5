"""Drops the units and channels that cannot influence a ticket's outputs: those that nothing reads, and those always 0.

What is dropped adds 0 to every sum that it is part of, so that losses, predictions, gradients and values of what stays are
the same after any number of steps (at the same `micro_batch`; a step that only a dropped unit made fail succeeds), but for
the rounding of sums that are grouped anew: without a term those behind it move to another of the four chains of FORMAT.md's
linear. Units stay where dropout, softmax or layer norm number or mix the elements, in the input and in the output. Nodes and
their numbers stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.layout import whole_values
from export.network import Network, Parameter
from export.operators import Node
from export.ticket import Bits, Floats, Ticket

Indices = tuple[NDArray[np.intp], ...]  # of each axis of a parameter

ZERO_TO_ZERO = {"relu", "leaky_relu", "relu6", "hardswish", "tanh", "gelu", "max_pool", "avg_pool", "global_avg_pool"}
WHOLE = {"softmax", "layer_norm", "dropout", "embedding"}  # what these read and write keeps every channel


@dataclass(frozen=True)
class Vanished:
    """`count` of the `of` units of a linear layer, or channels of a convolution, are not in the compacted ticket."""

    layer: str
    unit: str
    count: int
    of: int


@dataclass(frozen=True)
class Compaction:
    """`ticket` is `original` without what vanished; `kept` has the indices of each parameter's axes that stay.

    The compacted ticket is for artifacts, which carry the hash of the original one.
    """

    original: Ticket
    ticket: Ticket
    kept: Mapping[str, Indices]
    vanished: tuple[Vanished, ...]

    def restore(self, stored: Floats) -> dict[str, Floats]:
        """Every parameter in its original shape from the flat values of a trainer, or of the artifact's INIT or TRAINED.

        A pruned weight is 0; what vanished has its initial value, which nothing depends on.
        """
        whole = {name: array.copy() for name, array in self.original.init.items()}
        for name, part in whole_values(self.ticket.network, self.ticket.masks, stored).items():
            whole[name][np.ix_(*self.kept[name])] = part
        return whole


def compact(ticket: Ticket, *, keep_bits: bool = False) -> Compaction:
    """The ticket without dead units; the ticket itself where there are none. Its card says what vanished, by parameter.

    With `keep_bits` units stay too whose absence would group a sum anew: what is left has the same bits on the device's
    runtime, the sign of a 0 apart, as long as its layers are stored in the same form (layout.py).
    """
    network = ticket.network
    reads = {index: _reads(ticket, node) for index, node in enumerate(network.nodes) if _is_product(node)}
    kept = _kept(network, reads, keep_bits)
    indices = {name: _indices(network, name, kept) for name in network.parameter_shapes}
    vanished = tuple(_vanished(network, kept))
    return Compaction(ticket, _cut(ticket, kept, indices) if vanished else ticket, indices, vanished)


def _is_product(node: Node) -> bool:
    return node.op in ("linear", "conv")


def _reads(ticket: Ticket, node: Node) -> Bits:
    """(groups, outputs of a group, inputs of a group): whether a live weight joins them."""
    name = node.params["weight"]
    shape = ticket.network.parameter_shapes[name]
    groups = node.whole("groups") if node.op == "conv" else 1
    mask = ticket.masks.get(name)
    if mask is None:
        return np.ones((groups, shape[0] // groups, shape[1]), np.bool_)
    return _any(mask.reshape(groups, shape[0] // groups, shape[1], -1), 3)


def _any(bits: Bits, axis: int) -> Bits:
    found: Bits = np.logical_or.reduce(bits, axis)
    return found


def _kept(network: Network, reads: Mapping[int, Bits], keep_bits: bool) -> list[Bits]:
    """The channels of each buffer that stay; grows until no rule below adds one."""
    zero = _always_zero(network, reads)
    kept = [np.zeros(len(channels), np.bool_) for channels in zero]
    before = -1
    while before != (count := sum(int(channels.sum()) for channels in kept)):
        before = count
        relevant = _relevant(network, reads, zero, kept)
        _keep_what_must_stay(network, relevant, kept)
        if keep_bits:
            _keep_what_groups_sums(network, reads, relevant, kept)
        _keep_a_live_weight_each(network, reads, kept)
    return kept


def _channels(network: Network, buffer: int) -> int:
    return network.shapes[buffer][0]


def _always_zero(network: Network, reads: Mapping[int, Bits]) -> list[Bits]:
    """The channels of each buffer that are 0 whatever the input and the values: rows without entries and bias, and what
    zero-preserving operators make of them."""
    zero: list[Bits] = [np.zeros(_channels(network, 0), np.bool_)]
    for index, node in enumerate(network.nodes):
        inputs = [zero[buffer] for buffer in node.inputs]
        found: Bits = np.zeros(_channels(network, index + 1), np.bool_)
        if _is_product(node) and "bias" not in node.params:
            joined = reads[index]
            found = ~_any(joined & ~inputs[0].reshape(len(joined), 1, -1), 2).ravel()
        elif node.op in ZERO_TO_ZERO:
            found = inputs[0]
        elif node.op in ("add", "mul"):
            found = inputs[0] & inputs[1] if node.op == "add" else inputs[0] | inputs[1]
        elif node.op == "concat":
            found = np.concatenate(inputs)
        elif node.op == "reshape":
            found = ~_any(~_by_element(inputs[0], network, node.inputs[0], index + 1), 1)
        zero.append(found)
    return zero


def _by_element(channels: Bits, network: Network, of: int, to: int) -> Bits:
    """(channels of `to`, the rest): what is said of the channels of one buffer, of the elements of its reshaped twin."""
    spread: Bits = np.repeat(channels, math.prod(network.shapes[of][1:])).reshape(_channels(network, to), -1)
    return spread


def _relevant(network: Network, reads: Mapping[int, Bits], zero: list[Bits], kept: list[Bits]) -> list[Bits]:
    """The channels of each buffer that the outputs, or the running statistics of what is kept, depend on.

    The gradients of all others are 0, or end in no parameter.
    """
    relevant = [np.zeros(len(channels), np.bool_) for channels in zero]
    relevant[-1][:] = True
    for index, node in reversed(list(enumerate(network.nodes))):
        found: Bits
        output, start = relevant[index + 1], 0
        for buffer in node.inputs:
            if _is_product(node):
                joined = reads[index]
                found = _any(joined & output.reshape(len(joined), -1, 1), 1).ravel()
            elif node.op == "concat":
                found = output[start : start + _channels(network, buffer)]
                start += len(found)
            elif node.op == "reshape":
                found = _any(_by_element(output, network, index + 1, buffer), 1)
            elif node.op in WHOLE:
                found = np.full(_channels(network, buffer), output.any())
            elif node.op == "batch_norm" and not node.whole("frozen"):
                found = output | kept[index + 1]
            else:
                found = output
            relevant[buffer] |= found & ~zero[buffer]
    return relevant


def _keep_what_must_stay(network: Network, relevant: list[Bits], kept: list[Bits]) -> None:
    """What the outputs depend on, the interface, and what WHOLE operators touch."""
    for buffer, channels in enumerate(relevant):
        kept[buffer] |= channels
    kept[0][:] = True
    for index, node in enumerate(network.nodes):
        if node.op in WHOLE:
            for buffer in (*node.inputs, index + 1):
                kept[buffer][:] = True


def _keep_what_groups_sums(network: Network, reads: Mapping[int, Bits], relevant: list[Bits], kept: list[Bits]) -> None:
    """What would move an entry of a linear layer to another chain."""
    learns = [False]  # a gradient of the buffer reaches a parameter
    for index, node in enumerate(network.nodes):
        learns.append(bool(node.params) or any(learns[buffer] for buffer in node.inputs))
        if node.op == "linear":
            joined, columns, rows = reads[index][0], relevant[node.inputs[0]], relevant[index + 1]
            kept[node.inputs[0]] |= _moves_a_later_one(joined.T, columns, rows)
            if learns[node.inputs[0]]:
                kept[index + 1] |= _moves_a_later_one(joined, rows, columns)


def _moves_a_later_one(joined: Bits, relevant: Bits, sums: Bits) -> Bits:
    """Rows that are not relevant, but stand before a relevant one in the sum along a column of `sums`."""
    wanted = joined & relevant[:, None] & sums
    last = np.where(wanted.any(0), len(joined) - 1 - wanted[::-1].argmax(0), -1)  # of each column
    return ~relevant & _any(joined & (np.arange(len(joined))[:, None] < last), 1)


def _keep_a_live_weight_each(network: Network, reads: Mapping[int, Bits], kept: list[Bits]) -> None:
    """No layer may end up without a live weight: its first one stays where none would."""
    _keep_together(network, kept)
    for index, node in reversed(list(enumerate(network.nodes))):
        if not _is_product(node):
            continue
        joined = reads[index]
        outputs = kept[index + 1].reshape(len(joined), -1, 1)
        inputs = kept[node.inputs[0]].reshape(len(joined), 1, -1)
        if not (joined & outputs & inputs).any():
            group, row, column = np.unravel_index(int(joined.argmax()), joined.shape)
            outputs[group, row] = inputs[group, 0, column] = True
            _keep_together(network, kept)


def _keep_together(network: Network, kept: list[Bits]) -> None:
    """A channel is one thing in all buffers that it passes through: where it stays in one it stays in all."""
    for index, node in reversed(list(enumerate(network.nodes))):
        for one, other in _tied(network, node, kept, index + 1):
            stays = (_any(one, 1) | _any(other, 1))[:, None]
            one[:], other[:] = one | stays, other | stays


def _tied(network: Network, node: Node, kept: list[Bits], to: int) -> Iterator[tuple[Bits, Bits]]:
    """Views of what a node reads and of what it writes, a row for each block of channels that stays or goes as one."""
    start = 0
    for buffer in node.inputs:
        one, other = kept[buffer], kept[to]
        if node.op == "concat":
            other = other[start : start + len(one)]
            start += len(one)
        blocks = math.gcd(len(one), len(other))
        if _is_product(node):
            blocks = node.whole("groups") if node.op == "conv" else 1
        if not _is_product(node) or blocks > 1:  # of several groups each stays or goes whole
            yield one.reshape(blocks, -1), other.reshape(blocks, -1)


def _indices(network: Network, name: str, kept: list[Bits]) -> Indices:
    """Those of the parameter's axes that stay; the second axis of a weight is that of its node's input."""
    shape = network.parameter_shapes[name]
    index, node = next((i, node) for i, node in enumerate(network.nodes) if name in node.params.values())
    axes = [np.arange(extent) for extent in shape]
    if node.op not in WHOLE:
        axes[0] = np.flatnonzero(kept[index + 1])
    if _is_product(node) and len(shape) > 1 and (node.op == "linear" or node.whole("groups") == 1):
        axes[1] = np.flatnonzero(kept[node.inputs[0]])
    return tuple(axes)


def _vanished(network: Network, kept: list[Bits]) -> Iterator[Vanished]:
    for index, node in enumerate(network.nodes):
        gone = int((~kept[index + 1]).sum())
        if _is_product(node) and gone:
            unit = "units" if node.op == "linear" else "channels"
            yield Vanished(node.name, unit, gone, len(kept[index + 1]))


def _cut(ticket: Ticket, kept: list[Bits], indices: Mapping[str, Indices]) -> Ticket:
    network = ticket.network
    parameters = tuple(
        Parameter(p.name, tuple(len(axis) for axis in indices[p.name]), p.prunable, p.state) for p in network.parameters
    )
    nodes = tuple(_cut_node(node, kept[node.inputs[0]], kept[index + 1]) for index, node in enumerate(network.nodes))

    def cut(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: np.ascontiguousarray(array[np.ix_(*indices[name])]) for name, array in arrays.items()}

    return Ticket(
        Network(network.input_shape, parameters, nodes, network.loss),
        cut(ticket.init),
        cut(ticket.masks),
        cut(ticket.trained) if ticket.trained is not None else None,
        {**ticket.card, "compaction": _compaction_card(network, indices)},
    )


def _cut_node(node: Node, inputs: Bits, outputs: Bits) -> Node:
    if node.op == "reshape":
        shape = node.attrs["shape"]
        assert isinstance(shape, tuple)
        return replace(node, attrs={"shape": (int(outputs.sum()), *shape[1:])})
    if node.op == "conv" and node.whole("groups") > 1:
        groups = int(inputs.reshape(node.whole("groups"), -1).any(1).sum())
        return replace(node, attrs={**node.attrs, "groups": groups})
    return node


def _compaction_card(network: Network, indices: Mapping[str, Indices]) -> dict[str, Any]:
    """For each parameter that became smaller its original shape, and of each axis the runs [first, end) that vanished."""
    return {
        name: {"shape": list(shape), "removed": [_runs(n, axis) for n, axis in zip(shape, indices[name], strict=True)]}
        for name, shape in network.parameter_shapes.items()
        if any(len(axis) < n for n, axis in zip(shape, indices[name], strict=True))
    }


def _runs(extent: int, stays: NDArray[np.intp]) -> list[list[int]]:
    """The runs of [0, extent) between the indices that stay."""
    edges = [-1, *stays.tolist(), extent]
    return [[a + 1, b] for a, b in itertools.pairwise(edges) if b > a + 1]
