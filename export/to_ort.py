"""Writes a ticket as the folder that ONNX Runtime trains from: training, eval and optimizer model, checkpoint, description.

Checkpoint and optimizer state are as long as the live weights; the step is not faster than a dense one. Needs
onnxruntime-training 1.19.2, the last there is. What that runtime cannot follow is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from device_runtime.backends.silence import silent
from export.card import Recipe, recipe
from export.compact import Compaction
from export.description import describe
from export.onnx_operators import Graph
from export.ticket import Floats, Ticket, TicketError
from export.to_onnx import PRODUCER, Values, chosen_values, live_values
from export.training_graph import LOSS, OPSET, TARGET, forward_graph
from export.training_operators import NEXT

IR_VERSION = 10  # the newest that ONNX Runtime 1.19.2 reads
DESCRIPTION, CHECKPOINT = "description.json", "checkpoint"
TRAINING, EVAL, OPTIMIZER = "training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"
UNSIGNED = "0" * 64  # stands for the description's SHA-256 in what it is of
RESET = "lazy_reset_grad"
MICROSOFT = "com.microsoft"
SCALE = "gradient_scale"  # by which clipping multiplied the gradients


def to_ort(source: Ticket | Compaction, values: Values = "init") -> dict[str, bytes]:
    """The files of the folder by name; equal tickets give equal bytes.

    Samples are raw, `(batch, *input_shape)`. A parameter has its name in the ticket, and where it is pruned its live
    weights, row-major. Raises TicketError for what ONNX Runtime cannot train: the option or operator, and the remedy.
    """
    ticket = source.ticket if isinstance(source, Compaction) else source
    settings = recipe(ticket)
    _check(settings)
    kept = _kept(ticket, chosen_values(ticket, values))
    state = [parameter.name for parameter in ticket.network.parameters if parameter.state]
    trained = [parameter.name for parameter in ticket.network.parameters if not parameter.state]
    training, evaluation = (
        _parameters_as_inputs(forward_graph(ticket, settings, kept, training=t), kept) for t in (True, False)
    )
    files = {
        CHECKPOINT: _checkpoint({name: kept[name] for name in trained}, {name: kept[name] for name in state}),
        TRAINING: _serialised(_with_gradients(training, trained, settings)),
        EVAL: _serialised(evaluation),
        OPTIMIZER: _serialised(_optimizer_model(settings)),
    }
    told = describe(source) | {
        "values": values,
        "next": {o.name.removesuffix(NEXT): o.name for o in training.graph.output if o.name.endswith(NEXT)},
        "files": {name: {"bytes": len(content), "sha256": _digest(content)} for name, content in files.items()},
    }
    unsigned = json.dumps(told | {"checksum": UNSIGNED}, indent=1, sort_keys=True) + "\n"
    return {**files, DESCRIPTION: unsigned.replace(UNSIGNED, _digest(unsigned.encode())).encode()}


def _check(r: Recipe) -> None:
    if r.nesterov and r.optimizer == "sgd":
        raise TicketError(
            "recipe: nesterov by ONNX Runtime: its optimizers have none; leave it out, or export as native"
        )


def _kept(ticket: Ticket, values: Mapping[str, Floats]) -> dict[str, Floats]:
    for name in values:
        if name in (TARGET, LOSS, SCALE, RESET) or name.endswith((NEXT, "_grad", ".buffer", ".out")):
            raise TicketError(f"parameter '{name}': the training model uses that name itself; rename the parameter")
    return live_values(ticket, values)


def _parameters_as_inputs(model: onnx.ModelProto, kept: Mapping[str, Floats]) -> onnx.ModelProto:
    """In this order after the others, as ONNX Runtime's modules want them."""
    constants = [tensor for tensor in model.graph.initializer if tensor.name not in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    model.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in kept.items())
    return model


def _with_gradients(model: onnx.ModelProto, trained: list[str], r: Recipe) -> onnx.ModelProto:
    """What is to be subtracted is added to a buffer for each parameter, which ONNX Runtime keeps, or with RESET replaces what is there.

    Built from the graph as it is: the transformations that `generate_artifacts` makes first would store a pruned matrix's zeros.
    """
    from onnxruntime import SessionOptions
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    told = [output.name for output in model.graph.output]
    builder = GradientGraphBuilder(model.SerializeToString(), {LOSS}, set(trained), LOSS, SessionOptions())
    try:
        with silent():
            builder.build()
    except RuntimeError as error:
        raise TicketError(
            f"ONNX Runtime cannot derive the gradients ({' '.join(str(error).split())[-120:]}); the native artifact trains this ticket"
        ) from error
    found = onnx.load_from_string(builder.get_model())
    outputs = {output.name: output for output in found.graph.output}
    del found.graph.output[:]
    found.graph.output.extend(outputs[name] for name in told)
    graph = Graph("step")
    updates = _clipped_and_decayed(graph, trained, r)
    if r.clip_norm:
        found.graph.output.append(helper.make_tensor_value_info(SCALE, TensorProto.FLOAT, []))
    for name, update in zip(trained, updates, strict=True):
        gradient = outputs[f"{name}_grad"]
        buffer, done = (f"{gradient.name}.accumulation.{end}" for end in ("buffer", "out"))
        graph.add("InPlaceAccumulatorV2", [buffer, update, RESET], done, domain=MICROSOFT)
        gradient.name = buffer
        found.graph.input.append(gradient)
        found.graph.output.append(helper.make_tensor_value_info(done, TensorProto.BOOL, [1]))
    found.graph.input.append(helper.make_tensor_value_info(RESET, TensorProto.BOOL, [1]))
    found.graph.node.extend(graph.nodes)
    known = {constant.name for constant in found.graph.initializer}
    found.graph.initializer.extend(constant for name, constant in graph.constants.items() if name not in known)
    return found


def _clipped_and_decayed(graph: Graph, trained: list[str], r: Recipe) -> list[str]:
    """By name what the optimizer gets. ONNX Runtime's own clipping adds up in an order that a restored checkpoint changes, and
    it has no decay but AdamW's."""
    updates = [f"{name}_grad" for name in trained]
    if r.clip_norm:
        squares = [graph.add("ReduceSum", [graph.add("Mul", [name, name])], keepdims=0) for name in updates]
        norm = graph.add("Sqrt", [reduce(lambda total, square: graph.add("Add", [total, square]), squares)])
        above = graph.add("Div", [graph.number(r.clip_norm), graph.add("Add", [norm, graph.number(1e-6)])])
        scale = graph.add("Min", [above, graph.number(1.0)], SCALE)
        updates = [graph.add("Mul", [name, scale]) for name in updates]
    if r.weight_decay and r.optimizer != "adamw":
        decay = graph.number(r.weight_decay)
        terms = [graph.add("Mul", [name, decay]) for name in trained]
        updates = [graph.add("Add", [update, term]) for update, term in zip(updates, terms, strict=True)]
    return updates


def _checkpoint(trained: Mapping[str, Floats], state: Mapping[str, Floats]) -> bytes:
    from onnxruntime.training.onnxblock import save_checkpoint

    parameters = tuple([numpy_helper.from_array(a, n) for n, a in part.items()] for part in (trained, state))
    with tempfile.TemporaryDirectory() as folder, silent():
        path = Path(folder, CHECKPOINT)
        save_checkpoint(parameters, path)
        return path.read_bytes()


def _optimizer_model(r: Recipe) -> onnx.ModelProto:
    """One node; its inputs are sequences, an entry a parameter.

    SGD with momentum is AdamW whose second moments stay 0: m = u m + (1 - u) g and w = w - rate m / (1 - u), PyTorch's
    velocity being m / (1 - u). Mode 0 of AdamW is PyTorch's.
    """
    inputs = [
        helper.make_tensor_value_info("learning_rate", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
    ]
    names = ["params", "gradients", "first_order_moments", "second_order_moments"]
    if r.optimizer == "sgd" and r.momentum == 0:
        names = names[:3]
        node = helper.make_node("SGDOptimizerV2", ["learning_rate", "params", "gradients"], ["done"], domain=MICROSOFT)
    else:
        attributes = _momentum(r.momentum) if r.optimizer == "sgd" else _adam(r)
        operands = ["learning_rate", "step", *names]
        node = helper.make_node("AdamWOptimizer", operands, ["done"], domain=MICROSOFT, **attributes)
    inputs += [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in names]
    outputs = [helper.make_tensor_value_info("done", TensorProto.BOOL, [1])]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph([node], "optimizer", inputs, outputs)
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)


def _momentum(momentum: float) -> dict[str, Any]:
    return {
        "alpha": momentum,
        "beta": 1.0,
        "epsilon": 1 - momentum,
        "weight_decay": 0.0,
        "correct_bias": 0,
        "adam_mode": 1,
    }


def _adam(r: Recipe) -> dict[str, Any]:
    decay = r.weight_decay if r.optimizer == "adamw" else 0.0
    return {
        "alpha": r.beta1,
        "beta": r.beta2,
        "epsilon": r.epsilon,
        "weight_decay": decay,
        "correct_bias": 1,
        "adam_mode": 0,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _serialised(model: onnx.ModelProto) -> bytes:
    model.ir_version = min(model.ir_version, IR_VERSION)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
