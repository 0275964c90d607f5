"""Writes a ticket as a plain inference ONNX model: live weights alone are stored, raw samples in, scores out.

For any runtime that reads ONNX; nothing here trains. Opset 13 and IR 7 (ONNX 1.8, end of 2020) are enough and are what
old runtimes on devices read. The graph puts live weights into place by ScatterElements, which runtimes fold into dense
constants at load: the file is small, the step is not. Sparse initializers would be larger, and strict shape inference refuses them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.card import normalisation
from export.compact import Compaction
from export.onnx_operators import Graph, append
from export.ticket import Bits, Floats, Ticket, TicketError

OPSET = 13
IR_VERSION = 7
PRODUCER = "pocket-ticket"
INPUT, LOGITS, PROBABILITIES, OUTPUTS = "input", "logits", "probabilities", "outputs"

Values = Literal["init", "trained"]


def to_onnx(source: Ticket | Compaction, values: Values = "init") -> onnx.ModelProto:
    """A model from `input` `(batch, *input_shape)`, raw, to what the network scores, `(batch, elements)`.

    By the loss: cross_entropy gives `logits` and their softmax `probabilities`, bce `logits` and their sigmoid
    `probabilities`, mse `outputs`. Raises TicketError if `values` is "trained" and the ticket has none, or if the card
    lacks the normalisation. A compacted ticket gives the same function, but who runs it may add in another order.
    """
    ticket, original = (source.ticket, source.original) if isinstance(source, Compaction) else (source, source)
    parameters = chosen_values(ticket, values)
    network = ticket.network
    graph = Graph()
    dense = {name: placed(graph, name, mask) for name, mask in ticket.masks.items()}
    buffers = [normalised(graph, ticket)]
    for node in network.nodes:
        whole = dataclasses.replace(node, params={role: dense.get(n, n) for role, n in node.params.items()})
        buffers.append(append(graph, whole, [buffers[b] for b in node.inputs], network.shapes[len(buffers)]))
    kept = live_values(ticket, parameters)
    onnx_graph = helper.make_graph(
        graph.nodes,
        "ticket",
        [tensor(INPUT, network.input_shape)],
        [tensor(name, network.output_shape) for name in outputs(graph, network.loss)],
        initializer=[
            *graph.constants.values(),
            *(numpy_helper.from_array(array, name) for name, array in kept.items()),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(onnx_graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
    card = json.dumps(dict(ticket.card), sort_keys=True)
    helper.set_model_props(
        model, {"ticket_hash": original.hash, "density": repr(original.density), "values": values, "card": card}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def to_onnx_bytes(source: Ticket | Compaction, values: Values = "init") -> bytes:
    """The model as a file; equal tickets give equal bytes."""
    content: bytes = to_onnx(source, values).SerializeToString(deterministic=True)
    return content


def chosen_values(ticket: Ticket, values: Values) -> Mapping[str, Floats]:
    chosen = {"init": ticket.init, "trained": ticket.trained}[values]
    if chosen is None:
        raise TicketError("the ticket holds no trained values; export the initial ones (values = init)")
    for name in chosen:
        if "/" in name or name in (INPUT, LOGITS, PROBABILITIES, OUTPUTS):
            raise TicketError(f"parameter '{name}': the ONNX model uses that name itself; rename the parameter")
    return chosen


def live_values(ticket: Ticket, values: Mapping[str, Floats]) -> dict[str, Floats]:
    """What is stored of each parameter: where it is pruned its live weights, 0.0 included, row-major."""
    return {name: array[ticket.masks[name]] if name in ticket.masks else array for name, array in values.items()}


def placed(graph: Graph, name: str, mask: Bits) -> str:
    """The parameter `name` as the network has it: its live values at their row-major positions, 0 elsewhere.

    The positions are sums of gaps, which need fewer bytes; runtimes fold such constants when they load the model.
    """
    gaps = np.diff(np.flatnonzero(mask), prepend=0)
    most = gaps.max()
    stored = graph.constant(f"{name}/gaps", gaps.astype(np.min_scalar_type(most) if most < 2**16 else np.int32))
    axis = graph.constant("places/axis", np.array(0, np.int32))
    positions = graph.add("CumSum", [graph.add("Cast", [stored], to=TensorProto.INT32), axis])
    size = graph.constant(f"{name}/size", np.array([mask.size], np.int64))
    zeros = graph.add("ConstantOfShape", [size], value=numpy_helper.from_array(np.zeros(1, np.float32)))
    scattered = graph.add("ScatterElements", [zeros, positions, name], axis=0)
    shape = graph.constant(f"{name}/shape", np.array(mask.shape, np.int64))
    return graph.add("Reshape", [scattered, shape], f"{name}/dense")


def tensor(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def normalised(graph: Graph, ticket: Ticket) -> str:
    """`(x - mean[c]) * inverse_std[c]`, in the order of the device runtime, so that it rounds alike."""
    n = normalisation(ticket)
    shape = (len(n.mean),) + (1,) * (len(ticket.network.input_shape) - 1)  # along the first dimension of a sample
    mean = graph.constant("normalisation/mean", n.mean.reshape(shape))
    inverse_std = graph.constant("normalisation/inverse_std", n.inverse_std.reshape(shape))
    return graph.add("Mul", [graph.add("Sub", [INPUT, mean]), inverse_std])


def outputs(graph: Graph, loss: str) -> list[str]:
    scores = graph.rename_last(OUTPUTS if loss == "mse" else LOGITS)
    if loss == "mse":
        return [scores]
    if loss == "bce":
        return [scores, graph.add("Sigmoid", [scores], PROBABILITIES)]
    return [scores, graph.add("Softmax", [scores], PROBABILITIES, axis=-1)]
