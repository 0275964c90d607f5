"""A ticket as the ONNX graph that ONNX Runtime derives gradients from: samples and targets in, the loss and new running statistics out.

Live weights are parameters of as many values, scattered into place. The operators are those of training_operators.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.card import Recipe
from export.onnx_operators import Graph, append
from export.ticket import Floats, Ticket
from export.to_onnx import IR_VERSION, PRODUCER, normalised, outputs, placed, tensor
from export.training_operators import NEXT, append_trained

OPSET = 14
TARGET, LOSS = "target", "loss"


def forward_graph(ticket: Ticket, recipe: Recipe, values: Mapping[str, Floats], *, training: bool) -> onnx.ModelProto:
    """Every parameter is an initializer of its own name, flat and of its live weights where it is pruned.

    Outputs: in training LOSS and each statistic's NEXT; else LOSS, without class weights or smoothing, and what to_onnx gives.
    """
    network = ticket.network
    graph = Graph()
    dense = {name: placed(graph, name, mask) for name, mask in ticket.masks.items()}
    buffers = [normalised(graph, ticket)]
    nexts: list[str] = []
    for node in network.nodes:
        inputs, shape = [buffers[b] for b in node.inputs], network.shapes[len(buffers)]
        before = network.shapes[node.inputs[0]]
        whole = dataclasses.replace(node, params={role: dense.get(n, n) for role, n in node.params.items()})
        buffers.append(
            append_trained(graph, whole, inputs, shape, before, nexts)
            if training
            else append(graph, whole, inputs, shape)
        )
    if training:
        scores = buffers[-1]
        _loss(graph, network.loss, scores, network.output_shape[0], recipe)
        told = [LOSS, *nexts]
    else:
        told = outputs(graph, network.loss)
        plain = dataclasses.replace(recipe, label_smoothing=0.0, class_weights=None)
        _loss(graph, network.loss, told[0], network.output_shape[0], plain)
        told.insert(0, LOSS)
    return _model(graph, ticket, values, told)


def _model(graph: Graph, ticket: Ticket, values: Mapping[str, Floats], told: list[str]) -> onnx.ModelProto:
    network = ticket.network
    target = tensor(TARGET, network.output_shape)
    if network.loss == "cross_entropy":
        target = helper.make_tensor_value_info(TARGET, TensorProto.INT64, ["batch"])
    shapes: dict[str, list[str | int]] = {name: ["batch", *network.output_shape] for name in told}
    shapes |= {LOSS: []} | {p.name + NEXT: list(p.shape) for p in network.parameters if p.state}
    parameters = [numpy_helper.from_array(array, name) for name, array in values.items()]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "ticket",
            [tensor("input", network.input_shape), target],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in told],
            initializer=[*graph.constants.values(), *parameters],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _loss(graph: Graph, loss: str, scores: str, classes: int, recipe: Recipe) -> None:
    """LOSS, the mean over the batch, as PyTorch has it."""
    if loss == "mse":
        error = graph.add("Sub", [scores, TARGET])
        graph.add("ReduceMean", [graph.add("Mul", [error, error])], LOSS, keepdims=0)
    elif loss == "bce":
        _binary_cross_entropy(graph, scores)
    elif recipe.label_smoothing == 0 and recipe.class_weights is None:
        graph.add("SoftmaxCrossEntropyLoss", [scores, TARGET], LOSS, reduction="mean")
        graph.nodes[-1].output.append("loss/log_probabilities")  # its gradient reads them
    else:
        _weighted_cross_entropy(graph, scores, classes, recipe)


def _binary_cross_entropy(graph: Graph, scores: str) -> None:
    """max(z, 0) - z t + log(1 + exp(-|z|)), with (z + |z|) / 2 for the maximum: its gradient at 0 is then right."""
    size = graph.add("Abs", [scores])
    largest = graph.add("Mul", [graph.add("Add", [scores, size]), graph.number(0.5)])
    small = graph.add("Exp", [graph.add("Neg", [size])])
    rest = graph.add("Log", [graph.add("Add", [small, graph.number(1.0)])])
    terms = graph.add("Add", [graph.add("Sub", [largest, graph.add("Mul", [scores, TARGET])]), rest])
    graph.add("ReduceMean", [terms], LOSS, keepdims=0)


def _weighted_cross_entropy(graph: Graph, scores: str, classes: int, recipe: Recipe) -> None:
    """-sum of shares times log p, over the sum of the labels' weights; the shares of label y are row y of a constant."""
    weights = np.ones(classes) if recipe.class_weights is None else recipe.class_weights.astype(np.float64)
    smoothing = recipe.label_smoothing
    shares = (1 - smoothing) * np.diag(weights) + smoothing / classes * weights
    of_label = graph.add("Gather", [graph.constant("loss/shares", shares.astype(np.float32)), TARGET], axis=0)
    of_class = graph.constant("loss/weights", weights.astype(np.float32))
    total = graph.add("ReduceSum", [graph.add("Gather", [of_class, TARGET], axis=0)], keepdims=0)
    terms = graph.add("Mul", [of_label, graph.add("LogSoftmax", [scores], axis=-1)])
    graph.add("Neg", [graph.add("Div", [graph.add("ReduceSum", [terms], keepdims=0), total])], LOSS)
