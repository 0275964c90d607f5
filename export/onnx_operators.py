"""Each operator of a network as the ONNX nodes of opset 13 that compute it at inference.

Batch norm takes its running statistics, dropout does nothing; hardswish, gelu and layer norm, which opset 13 has not,
are written out. Shapes are of batches: the first dimension is the batch, which stays free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.operators import Node, Shape


class Graph:
    """Nodes in order and the constants they read. No parameter's name holds a slash, so all names here have one.

    `prefix` tells the values of graphs apart that are put together.
    """

    def __init__(self, prefix: str = "value") -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Appends a node; the name of its output, a fresh one if none is given."""
        output = output or f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def rename_last(self, output: str) -> str:
        """Gives what the last node writes, which none has read yet, another name."""
        self.nodes[-1].output[0] = output
        return output

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def number(self, value: float) -> str:
        return self.constant(f"number/{value!r}", np.array(value, np.float32))


Inputs = list[str]
Writer = Callable[[Graph, Node, Inputs, Shape], str]


def append(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    """Appends `node`, which gives samples of `shape`; the name of the last ONNX node's output."""
    output = WRITERS[node.op](graph, node, inputs, shape)
    graph.nodes[-1].name = node.name
    return output


def _plain(kind: str) -> Writer:
    return lambda graph, node, inputs, shape: graph.add(kind, inputs)


def _bias(node: Node) -> list[str]:
    return [node.params["bias"]] if "bias" in node.params else []


def _linear(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Gemm", [*inputs, node.params["weight"], *_bias(node)], transB=1)


def _reshape(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    name = f"shape/{'x'.join(map(str, shape))}"
    return graph.add("Reshape", [*inputs, graph.constant(name, np.array([0, *shape], np.int64))])  # 0: the batch stays


def _concat(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Concat", inputs, axis=1)


def window(node: Node, shape: Shape) -> dict[str, Any]:
    """Of the dimensions a sample has: the width alone where it has no height."""
    axes = "hw"[3 - len(shape) :]
    names = {"kernel": "kernel_shape", "stride": "strides", "dilation": "dilations"}
    attributes = {
        name: [node.whole(f"{short}_{axis}") for axis in axes]
        for short, name in names.items()
        if f"{short}_w" in node.attrs
    }
    pads = [node.whole(f"pad_{axis}") for axis in axes]
    return attributes | {"pads": pads * 2}


def _conv(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    operands = [*inputs, node.params["weight"], *_bias(node)]
    return graph.add("Conv", operands, group=node.attrs["groups"], **window(node, shape))


def _max_pool(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("MaxPool", inputs, **window(node, shape))


def _avg_pool(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    count_include_pad = node.attrs["count_include_pad"]
    return graph.add("AveragePool", inputs, count_include_pad=count_include_pad, **window(node, shape))


def _global_avg_pool(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Flatten", [graph.add("GlobalAveragePool", inputs)], axis=1)


def _batch_norm(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    params = [node.params[role] for role in ("weight", "bias", "running_mean", "running_var")]
    return graph.add("BatchNormalization", [*inputs, *params], epsilon=node.attrs["epsilon"])


def _layer_norm(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    axes = list(range(-node.whole("dimensions"), 0))
    centred = graph.add("Sub", [*inputs, graph.add("ReduceMean", inputs, axes=axes, keepdims=1)])
    variance = graph.add("ReduceMean", [graph.add("Mul", [centred, centred])], axes=axes, keepdims=1)
    epsilon = graph.number(node.real("epsilon"))
    result = graph.add("Div", [centred, graph.add("Sqrt", [graph.add("Add", [variance, epsilon])])])
    if "weight" in node.params:
        result = graph.add("Add", [graph.add("Mul", [result, node.params["weight"]]), node.params["bias"]])
    return result


def _leaky_relu(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("LeakyRelu", inputs, alpha=node.attrs["slope"])


def _relu6(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Clip", [*inputs, graph.number(0.0), graph.number(6.0)])


def _hardswish(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Mul", [*inputs, graph.add("HardSigmoid", inputs, alpha=1 / 6, beta=0.5)])


def _gelu(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    """x / 2 (1 + erf(x / sqrt 2)), or x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    (x,) = inputs
    if node.attrs["approximation"]:
        cubed = graph.add("Mul", [x, graph.add("Mul", [x, x])])
        inner = graph.add("Add", [x, graph.add("Mul", [cubed, graph.number(0.044715)])])
        curve = graph.add("Tanh", [graph.add("Mul", [inner, graph.number(math.sqrt(2 / math.pi))])])
    else:
        curve = graph.add("Erf", [graph.add("Mul", [x, graph.number(math.sqrt(0.5))])])
    half = graph.add("Mul", [x, graph.number(0.5)])
    return graph.add("Mul", [half, graph.add("Add", [curve, graph.number(1.0)])])


def _softmax(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Softmax", inputs, axis=-1)


def _embedding(graph: Graph, node: Node, inputs: Inputs, shape: Shape) -> str:
    return graph.add("Gather", [node.params["weight"], graph.add("Cast", inputs, to=TensorProto.INT64)], axis=0)


WRITERS: Mapping[str, Writer] = {
    "linear": _linear,
    "relu": _plain("Relu"),
    "reshape": _reshape,
    "add": _plain("Add"),
    "mul": _plain("Mul"),
    "concat": _concat,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "relu6": _relu6,
    "hardswish": _hardswish,
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "gelu": _gelu,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "softmax": _softmax,
    "embedding": _embedding,
    "dropout": _plain("Identity"),
}
