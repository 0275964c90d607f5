"""Lowers any torch.nn.Module to the Network a device can train, through torch.export.

What cannot be lowered is named with the module's path before any GPU hour is spent. It never guesses: an operator, a
constant or a shape it does not know is refused. Needs torch; only the server side and the exporters import it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from export.network import OPERATORS, Network, NetworkError, Node, Parameter, Shape

FxNode = torch.fx.Node
SIZES = (int, torch.SymInt, torch.SymBool, type(None))  # what the graph computes of the batch size


class UnsupportedOperator(NetworkError):
    """The module uses something a device cannot train; the text names the module's path, the operator and the remedy."""


def lower(module: nn.Module, input_shape: Shape) -> Network:
    """The network of `module` for one sample of `input_shape` (no batch dimension) and softmax cross-entropy.

    Node and parameter names are the module's own. Raises UnsupportedOperator, or NetworkError where shapes do not fit.
    """
    program = _exported(module, input_shape)
    return _Lowering(program, input_shape).network()


def _exported(module: nn.Module, input_shape: Shape) -> Any:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    example = torch.zeros((2, *input_shape), dtype=torch.float32, device=device)
    was_training = module.training
    try:
        with _quiet():
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(module.train(), (example,), dynamic_shapes=({0: batch},))
            return program.run_decompositions({})  # in-place operators become plain ones, nothing else changes
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedOperator(
            f"module '{type(module).__name__}' cannot be exported for an input of shape {tuple(input_shape)} with a free "
            f"batch size: {first_line}; see torch.export for what a forward() may do"
        ) from error
    finally:
        module.train(was_training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export logs and warns about its own internals; the error it raises says all that matters to a user."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Lowering:
    """One walk over the exported graph, in order; `buffers` maps what was computed to buffer numbers."""

    def __init__(self, program: Any, input_shape: Shape) -> None:
        signature = program.graph_signature
        self.graph = program.graph
        self.input_shape = tuple(input_shape)
        self.parameter_of: Mapping[str, str] = signature.inputs_to_parameters
        self.constant_of: Mapping[str, str] = {
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.shape_of = {name: tuple(p.shape) for name, p in program.named_parameters()}
        self.outputs: tuple[str, ...] = signature.user_outputs
        self.buffers: dict[FxNode, int] = {}
        self.nodes: list[Node] = []
        self.pruned: set[str] = set()

    def network(self) -> Network:
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function" and not isinstance(node.meta.get("val"), SIZES):
                self._call(node)
        output = [node for node in self.buffers if node.name in self.outputs]
        if len(self.outputs) != 1 or not output or self.buffers[output[0]] != len(self.nodes):
            raise UnsupportedOperator("forward() must return exactly one tensor, the class scores, computed last")
        used = [name for node in self.nodes for name in node.params.values()]
        if unused := [name for name in self.shape_of if name not in used]:
            raise UnsupportedOperator(f"parameter '{unused[0]}' is never used in forward(); remove it or use it")
        parameters = tuple(Parameter(name, self.shape_of[name], name in self.pruned) for name in dict.fromkeys(used))
        return Network(self.input_shape, parameters, tuple(self.nodes))

    def _placeholder(self, node: FxNode) -> None:
        if node.name in self.constant_of:
            raise UnsupportedOperator(f"buffer or constant '{self.constant_of[node.name]}': state is not supported yet")
        if node.name not in self.parameter_of:
            self.buffers[node] = 0

    def _call(self, node: FxNode) -> None:
        rule = RULES.get(str(node.target))
        if rule is None:
            path, kind = _origin(node)
            known = ", ".join(OPERATORS)
            raise UnsupportedOperator(
                f"module '{path}' ({kind}): {node.target} cannot be trained on a device; supported are {known}"
            )
        rule(self, node)

    def add(self, node: FxNode, op: str, inputs: list[Any], params: Mapping[str, Any] | None = None) -> None:
        """Appends one operator; `inputs` must be computed tensors and `params` parameters of the module."""
        path, kind = _origin(node)
        names = {role: self.parameter_of[p.name] for role, p in (params or {}).items() if p is not None}
        for value in inputs:
            if value not in self.buffers:
                raise UnsupportedOperator(f"module '{path}' ({kind}): {node.target} of a parameter or number, {value}")
        used = {node.name for node in self.nodes}
        name = path if path not in used else f"{path}#{len(self.nodes)}"
        self.nodes.append(Node(op, name, tuple(self.buffers[v] for v in inputs), names))
        self.buffers[node] = len(self.nodes)


def _origin(node: FxNode) -> tuple[str, str]:
    """Path and class of the innermost module the operator came from; the operator itself for the root's forward()."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return node.name, "forward"
    path, kind = stack[-1]
    return path or node.name, str(kind).rsplit(".", 1)[-1]


def _linear(lowering: _Lowering, node: FxNode) -> None:
    x, weight, bias = (*node.args, None)[:3]
    for value in (weight, bias):
        if value is not None and (not isinstance(value, FxNode) or value.name not in lowering.parameter_of):
            path, kind = _origin(node)
            raise UnsupportedOperator(f"module '{path}' ({kind}): linear with a computed weight cannot be pruned")
    assert isinstance(weight, FxNode)
    lowering.pruned.add(lowering.parameter_of[weight.name])
    lowering.add(node, "linear", [x], {"weight": weight, "bias": bias})


def _relu(lowering: _Lowering, node: FxNode) -> None:
    lowering.add(node, "relu", [node.args[0]])


def _add(lowering: _Lowering, node: FxNode) -> None:
    if node.kwargs.get("alpha", 1) != 1:
        path, kind = _origin(node)
        raise UnsupportedOperator(
            f"module '{path}' ({kind}): add with alpha={node.kwargs['alpha']}; scale before adding"
        )
    lowering.add(node, "add", list(node.args[:2]))


def _reshape(lowering: _Lowering, node: FxNode) -> None:
    """Only what keeps the batch and flattens the rest."""
    source = node.args[0]
    before, after = source.meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    path, kind = _origin(node)
    if len(after) != 2 or str(after[0]) != str(before[0]):
        raise UnsupportedOperator(
            f"module '{path}' ({kind}): reshape from {tuple(before)} to {tuple(after)}; only flattening all but the batch works"
        )
    if len(before) == 2:
        lowering.buffers[node] = lowering.buffers[source]  # type: ignore[index]
    else:
        lowering.add(node, "flatten", [source])


RULES: Mapping[str, Callable[[_Lowering, FxNode], None]] = {
    "aten.linear.default": _linear,
    "aten.relu.default": _relu,
    "aten.add.Tensor": _add,
    "aten.flatten.using_ints": _reshape,
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten._unsafe_view.default": _reshape,
}
