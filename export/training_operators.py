"""The operators of a network as ONNX nodes that ONNX Runtime 1.19.2 can train: those of onnx_operators.py, and others in place of what it cannot.

It has no gradient of HardSigmoid, that of AveragePool ends the process by a signal, and BatchNormalization is invalid in
training or wrong: these are written out. Dropout is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.onnx_operators import Graph, append, window
from export.operators import STATE_ROLES, Node, Shape
from export.ticket import TicketError

NEXT = "/next"  # after a running statistic's name: the output that is to be its new value


def append_trained(graph: Graph, node: Node, inputs: list[str], shape: Shape, before: Shape, nexts: list[str]) -> str:
    """As onnx_operators.append; `before` is the shape of the first input's samples, `nexts` gets the names of new statistics."""
    if node.op == "dropout" and node.real("probability") > 0:
        raise TicketError(
            f"dropout '{node.name}': ONNX Runtime keeps no random state in its checkpoints, so that a resumed training would "
            "differ; the native artifact trains it, or leave it out of the network"
        )
    if node.op == "batch_norm":
        return _batch_norm(graph, node, inputs[0], shape, nexts)
    if node.op in OWN:
        return OWN[node.op](graph, node, inputs[0], shape, before)
    return append(graph, node, inputs, shape)


def _hardswish(graph: Graph, node: Node, x: str, shape: Shape, before: Shape) -> str:
    """x relu6(x + 3) / 6: there is no gradient of HardSigmoid."""
    moved = graph.add("Add", [x, graph.number(3.0)])
    gate = graph.add("Clip", [moved, graph.number(0.0), graph.number(6.0)])
    return graph.add("Mul", [graph.add("Mul", [x, gate]), graph.number(1 / 6)])


def _avg_pool(graph: Graph, node: Node, x: str, shape: Shape, before: Shape) -> str:
    """A convolution of each channel by a kernel of ones: the gradient of AveragePool ends the process by a signal."""
    attributes = window(node, shape)
    kernel = tuple(attributes["kernel_shape"])
    ones = graph.constant(f"ones/{kernel}", np.ones((1, 1, *kernel), np.float32))
    alone, together = (
        graph.constant(f"shape/{name}/{s}", np.array([-1, *s], np.int64))
        for name, s in (("image", (1, *before[1:])), ("channels", shape))
    )
    sums = graph.add("Conv", [graph.add("Reshape", [x, alone]), ones], **attributes)
    sides = zip(before[1:], shape[1:], kernel, attributes["strides"], attributes["pads"], strict=False)
    inside = np.ix_(*(_inside(*side) for side in sides))
    counts = np.array(math.prod(kernel) if node.whole("count_include_pad") else math.prod(inside))
    inverse = graph.constant(f"inverse_counts/{node.name}", (1 / counts).astype(np.float32))
    return graph.add("Reshape", [graph.add("Mul", [sums, inverse]), together])


def _inside(size: int, places: int, kernel: int, stride: int, pad: int) -> NDArray[np.intp]:
    """How many elements of each window along a dimension are no padding."""
    starts = np.arange(places) * stride - pad
    return np.minimum(starts + kernel, size) - np.maximum(starts, 0)


def _batch_norm(graph: Graph, node: Node, x: str, shape: Shape, nexts: list[str]) -> str:
    """By the batch's mean and variance, or where it is frozen or has one value a channel by the running ones."""
    channels = graph.constant(f"channels/{len(shape)}", np.array([-1] + [1] * (len(shape) - 1), np.int64))
    weight, bias, *running = (
        graph.add("Reshape", [node.params[role], channels]) for role in ("weight", "bias", *STATE_ROLES)
    )
    mean, variance = running
    if not node.whole("frozen"):
        several, unbiased = _counts(graph, x, shape)
        of_batch = graph.add("ReduceMean", [x], axes=_positions(shape), keepdims=1)
        mean = graph.add("Where", [several, of_batch, mean])
        centred = graph.add("Sub", [x, mean])
        squares = graph.add("ReduceMean", [graph.add("Mul", [centred, centred])], axes=_positions(shape), keepdims=1)
        variance = graph.add("Where", [several, squares, variance])
        moments = (mean, graph.add("Mul", [squares, unbiased]))
        for role, old, new in zip(STATE_ROLES, running, moments, strict=True):
            nexts.append(_moved(graph, node.params[role], old, graph.add("Where", [several, new, old]), node))
    deviation = graph.add("Sqrt", [graph.add("Add", [variance, graph.number(node.real("epsilon"))])])
    centred = graph.add("Sub", [x, mean])
    return graph.add("Add", [graph.add("Mul", [centred, graph.add("Div", [weight, deviation])]), bias])


def _positions(shape: Shape) -> list[int]:
    """The dimensions of a batch apart from the channels."""
    return [0, *range(2, len(shape) + 1)]


def _counts(graph: Graph, x: str, shape: Shape) -> tuple[str, str]:
    """Whether a channel has several values, and N / (N - 1) of their number."""
    batch = graph.add("Gather", [graph.add("Shape", [x]), graph.constant("batch", np.array([0], np.int64))], axis=0)
    count = graph.add(
        "Mul", [graph.add("Cast", [batch], to=TensorProto.FLOAT), graph.number(float(math.prod(shape[1:])))]
    )
    one = graph.number(1.0)
    others = graph.add("Max", [graph.add("Sub", [count, one]), one])
    return graph.add("Greater", [count, one]), graph.add("Div", [count, others])


def _moved(graph: Graph, name: str, old: str, new: str, node: Node) -> str:
    step = graph.add("Mul", [graph.add("Sub", [new, old]), graph.number(node.real("momentum"))])
    flat = graph.constant("flat", np.array([-1], np.int64))
    return graph.add("Reshape", [graph.add("Add", [old, step]), flat], name + NEXT)


OWN: dict[str, Callable[[Graph, Node, str, Shape, Shape], str]] = {"hardswish": _hardswish, "avg_pool": _avg_pool}
