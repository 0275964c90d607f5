"""Writes a ticket as a plain inference ONNX model: live weights as sparse initializers, raw samples in, scores out.

For any runtime that reads ONNX; nothing here trains. Opset 13 and IR 7 (ONNX 1.8, end of 2020) are enough and are what
old runtimes on devices read. Most runtimes expand sparse initializers at load: the file is small, the step is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from export.card import normalisation
from export.network import Network, Node
from export.ticket import Floats, Ticket, TicketError

OPSET = 13
IR_VERSION = 7
PRODUCER = "pocket-ticket"
INPUT, LOGITS, PROBABILITIES = "input", "logits", "probabilities"

Values = Literal["init", "trained"]


def to_onnx(ticket: Ticket, values: Values = "init") -> onnx.ModelProto:
    """A model from `input` `(batch, *input_shape)`, raw, to `logits` and `probabilities` `(batch, classes)`.

    Raises TicketError if `values` is "trained" and the ticket has none, or if the card lacks the normalisation.
    """
    parameters = _chosen(ticket, values)
    network = ticket.network
    dense, sparse = _initializers(parameters, ticket)
    graph = helper.make_graph(
        [*_normalise(), *_nodes(network), helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=-1)],
        "ticket",
        [_tensor(INPUT, network.input_shape)],
        [_tensor(LOGITS, network.output_shape), _tensor(PROBABILITIES, network.output_shape)],
        initializer=[*_normalisation(ticket), *dense],
        sparse_initializer=sparse,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
    card = json.dumps(dict(ticket.card), sort_keys=True)
    helper.set_model_props(
        model, {"ticket_hash": ticket.hash, "density": repr(ticket.density), "values": values, "card": card}
    )
    # Not full_check: onnx's shape inference knows no operator that takes a sparse initializer. A test runs it on the
    # same model made dense.
    onnx.checker.check_model(model)
    return model


def to_onnx_bytes(ticket: Ticket, values: Values = "init") -> bytes:
    """The model as a file; equal tickets give equal bytes."""
    content: bytes = to_onnx(ticket, values).SerializeToString(deterministic=True)
    return content


def _chosen(ticket: Ticket, values: Values) -> Mapping[str, Floats]:
    chosen = {"init": ticket.init, "trained": ticket.trained}[values]
    if chosen is None:
        raise TicketError("the ticket holds no trained values; export the initial ones (values = init)")
    for name in chosen:
        if "/" in name or name in (INPUT, LOGITS, PROBABILITIES):
            raise TicketError(f"parameter '{name}': the ONNX model uses that name itself; rename the parameter")
    return chosen


def _tensor(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _normalise() -> list[NodeProto]:
    """`(x - mean[c]) * inverse_std[c]`, in the order of the device runtime, so that it rounds alike."""
    return [
        helper.make_node("Sub", [INPUT, "normalisation/mean"], ["normalisation/centred"]),
        helper.make_node("Mul", ["normalisation/centred", "normalisation/inverse_std"], [_buffer(0)]),
    ]


def _normalisation(ticket: Ticket) -> list[TensorProto]:
    n = normalisation(ticket)
    shape = (len(n.mean),) + (1,) * (len(ticket.network.input_shape) - 1)  # along the first dimension of a sample
    arrays = {"normalisation/mean": n.mean, "normalisation/inverse_std": n.inverse_std}
    return [numpy_helper.from_array(array.reshape(shape), name) for name, array in arrays.items()]


def _initializers(
    parameters: Mapping[str, Floats], ticket: Ticket
) -> tuple[list[TensorProto], list[SparseTensorProto]]:
    dense = [numpy_helper.from_array(array, name) for name, array in parameters.items() if name not in ticket.masks]
    sparse = [_sparse(name, parameters[name], mask) for name, mask in ticket.masks.items()]
    return dense, sparse


def _sparse(name: str, array: Floats, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> SparseTensorProto:
    """Values of the live weights, 0.0 included, at their row-major positions."""
    positions = np.flatnonzero(mask).astype(np.int64)
    values = numpy_helper.from_array(array[mask], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(positions, f"{name}/positions"), array.shape)


def _nodes(network: Network) -> list[NodeProto]:
    last = len(network.nodes)
    return [
        OPERATOR_NODES[node.op](node, [_buffer(b) for b in node.inputs], LOGITS if index == last else _buffer(index))
        for index, node in enumerate(network.nodes, start=1)
    ]


def _buffer(index: int) -> str:
    return f"buffer/{index}"


def _linear(node: Node, inputs: list[str], output: str) -> NodeProto:
    operands = [*inputs, node.params["weight"], *([node.params["bias"]] if "bias" in node.params else [])]
    return helper.make_node("Gemm", operands, [output], name=node.name, transB=1)


def _plain(kind: str) -> Callable[[Node, list[str], str], NodeProto]:
    return lambda node, inputs, output: helper.make_node(kind, inputs, [output], name=node.name)


OPERATOR_NODES: Mapping[str, Callable[[Node, list[str], str], NodeProto]] = {
    "linear": _linear,
    "relu": _plain("Relu"),
    "flatten": _plain("Flatten"),
    "add": _plain("Add"),
}
