"""Lowers any torch.nn.Module to the Network a device can train, through torch.export.

What cannot be lowered is named with the module's path before any GPU hour is spent. It never guesses: an operator, a
setting, a constant or a shape it does not know is refused. Needs torch; only the server side and the exporters import it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from export.lower_operators import RULES, Call, UnsupportedOperator
from export.network import LOSSES, Network, NetworkError, Parameter
from export.operators import OPERATORS, STATE_ROLES, Node, Setting, Shape, output_shape

__all__ = ["UnsupportedOperator", "lower"]

FxNode = torch.fx.Node
SIZES = (int, torch.SymInt, torch.SymBool, type(None))  # what the graph computes of the batch size
BatchNorm = nn.modules.batchnorm._BatchNorm

# Settings of a module that a device does not have: class, attribute, what is allowed, what to do.
SETTINGS: tuple[tuple[type, str, Callable[[Any], bool], str], ...] = (
    (BatchNorm, "momentum", lambda v: v is not None, "give a number such as 0.1; a device keeps no count of batches"),
    (BatchNorm, "affine", bool, "leave it True; a weight of 1 and a bias of 0 start as nothing"),
    (BatchNorm, "track_running_stats", bool, "leave it True; a device predicts by the running statistics"),
    (nn.modules.conv._ConvNd, "padding_mode", lambda v: v == "zeros", "pad with zeros"),
    (nn.Embedding, "padding_idx", lambda v: v is None, "leave it out; every entry is trained"),
    (nn.Embedding, "max_norm", lambda v: v is None, "leave it out; an entry has any norm"),
    (nn.Embedding, "scale_grad_by_freq", lambda v: not v, "leave it False"),
    (nn.Embedding, "sparse", lambda v: not v, "leave it False; it is a ticket's mask that makes a weight sparse"),
)


def lower(module: nn.Module, input_shape: Shape, loss: str = "cross_entropy") -> Network:
    """The network of `module` for one sample of `input_shape` (no batch dimension), trained by `loss`.

    Node and parameter names are the module's own. A module in training mode is taken as it stands; one that is in eval
    mode as a whole is lowered as in training. A batch norm in eval mode is frozen, in either. A module with an embedding
    is shown whole numbers. Raises UnsupportedOperator, or NetworkError where shapes do not fit.
    """
    if loss not in LOSSES:
        raise NetworkError(f"loss '{loss}' is not known; known are {', '.join(LOSSES)}")
    _check_settings(module)
    _check_trained(module)
    return _Lowering(_exported(module, input_shape), input_shape, loss).network()


def _check_settings(module: nn.Module) -> None:
    for path, part in module.named_modules():
        for kind, name, allowed, remedy in SETTINGS:
            if isinstance(part, kind) and not allowed(value := getattr(part, name)):
                raise UnsupportedOperator(f"module '{path}' ({type(part).__name__}): {name}={value!r}; {remedy}")


def _check_trained(module: nn.Module) -> None:
    for path, parameter in module.named_parameters():
        if not parameter.requires_grad:
            raise UnsupportedOperator(
                f"parameter '{path}': requires_grad=False, but a device trains every parameter; set it True, or leave the "
                "frozen layers out and apply them to the samples beforehand"
            )


def _exported(module: nn.Module, input_shape: Shape) -> Any:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    indexed = any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in module.modules())
    example = torch.zeros((2, *input_shape), dtype=torch.long if indexed else torch.float32, device=device)
    try:
        with _quiet(), _in_training(module):
            batch = torch.export.Dim("batch", min=1)
            return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedOperator(
            f"module '{type(module).__name__}' cannot be exported for an input of shape {tuple(input_shape)} with a free "
            f"batch size: {first_line}; see torch.export for what a forward() may do"
        ) from error


@contextlib.contextmanager
def _in_training(module: nn.Module) -> Iterator[None]:
    """Every part's mode is set by itself: train() of the whole would thaw batch norms that the user froze."""
    modes = {part: part.training for part in module.modules()}
    stands = module.training
    try:
        for part, training in modes.items():
            part.training = training if stands or isinstance(part, BatchNorm) else True
        yield
    finally:
        for part, training in modes.items():
            part.training = training


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


@dataclass(frozen=True)
class _View:
    """What a value of the exported graph is: a buffer, in the shape that it has there, and where the shape came from."""

    buffer: int
    shape: Shape
    path: str


class _Lowering:
    """One walk over the exported graph, in order. Reshapes are views until an operator needs the new shape."""

    def __init__(self, program: Any, input_shape: Shape, loss: str) -> None:
        signature = program.graph_signature
        self.graph, self.loss = program.graph, loss
        self.parameter_of: Mapping[str, str] = signature.inputs_to_parameters
        self.constant_of: Mapping[str, str] = {
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.parameters = {name: tuple(p.shape) for name, p in program.named_parameters()}
        self.shape_of: dict[str, Shape] = self.parameters | {n: tuple(b.shape) for n, b in program.named_buffers()}
        self.outputs: tuple[str, ...] = signature.user_outputs
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = [tuple(input_shape)]
        self.batch = ""  # the free dimension's name
        self._views: dict[FxNode, _View] = {}
        self._reshaped: dict[tuple[int, Shape], int] = {}
        self._storage: dict[FxNode, FxNode] = {}
        self._stale: dict[FxNode, str] = {}

    def network(self) -> Network:
        live = self._live()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                if node in live and not isinstance(node.meta.get("val"), SIZES):
                    self._call(node)
                self._follow_storage(node)
        output = [node for node in self._views if node.name in self.outputs]
        if len(self.outputs) != 1 or not output:
            raise UnsupportedOperator("forward() must return exactly one tensor, the class scores")
        result = self.view(_call_of(output[0]), output[0])
        self._reshape(result.buffer, result.shape, result.path)
        used = [node.params[r] for node in self.nodes for r in OPERATORS[node.op].roles_of(node)]
        if unused := [name for name in self.parameters if name not in used]:
            raise UnsupportedOperator(f"parameter '{unused[0]}' is never used in forward(); remove it or use it")
        return Network(self.shapes[0], self._parameters(), tuple(self.nodes), self.loss)

    def _parameters(self) -> tuple[Parameter, ...]:
        """In order of the graph, state last."""
        found = {}
        for node in self.nodes:
            for role in OPERATORS[node.op].roles_of(node):
                name, prunable = node.params[role], OPERATORS[node.op].matrix and role == "weight"
                found[name] = Parameter(name, self.shape_of[name], prunable, role in STATE_ROLES)
        return tuple(sorted(found.values(), key=lambda parameter: parameter.state))

    def _live(self) -> set[FxNode]:
        """What the output depends on; counters of batches and the like are not looked at."""
        waiting = [node for node in self.graph.nodes if node.name in self.outputs]
        live: set[FxNode] = set()
        while waiting:
            node = waiting.pop()
            if node not in live:
                live.add(node)
                waiting += node.all_input_nodes
        return live

    def _placeholder(self, node: FxNode) -> None:
        self._storage[node] = node
        if node.name not in self.constant_of and node.name not in self.parameter_of:
            self._views[node] = _View(0, self.shapes[0], "input")
            self.batch = str(node.meta["val"].shape[0])

    def _follow_storage(self, node: FxNode) -> None:
        """An operator in place leaves a new value; every other view of the same memory now means something else."""
        source, writes = _aliased(node)
        self._storage[node] = base = self._storage.get(source, node) if source is not None else node
        if writes:
            self._stale |= {n: str(node.target) for n, b in self._storage.items() if b is base and n is not node}

    def _call(self, node: FxNode) -> None:
        call = _call_of(node)
        rule = RULES.get(call.operator)
        if rule is None:
            raise call.refused(f"cannot be trained on a device; supported are {', '.join(OPERATORS)}")
        rule(self, call)

    def view(self, call: Call, value: Any) -> _View:
        """What `value`, an argument of `call`, is; refuses all but tensors that the network computes."""
        if not isinstance(value, FxNode) or isinstance(value.meta.get("val"), SIZES):
            raise call.refused(f"of the number {value}: only tensors of the network; fold it into a weight or bias")
        if value in self._stale:
            raise call.refused(
                f"reads what {self._stale[value]} changed through another view; do not work in place there"
            )
        if value.name in self.parameter_of:
            raise call.refused(
                f"of the parameter '{self.parameter_of[value.name]}'; a device has none outside of layers"
            )
        if value.name in self.constant_of:
            raise call.refused(f"of the buffer or constant '{self.constant_of[value.name]}'; a device keeps none")
        return self._views[value]

    def buffer(self, call: Call, value: Any, shape: Shape | None = None) -> int:
        """The buffer that holds `value`, f32, in its own shape or in `shape`; a reshape is added where it needs one."""
        view = self.view(call, value)
        if value.meta["val"].dtype != torch.float32 and call.operator != "aten.embedding.default":
            raise call.refused(f"of {value.meta['val'].dtype}; a device computes in float32")
        return self._reshape(view.buffer, shape or view.shape, call.path if shape else view.path)

    def _reshape(self, buffer: int, shape: Shape, path: str) -> int:
        if self.shapes[buffer] == shape:
            return buffer
        if (buffer, shape) not in self._reshaped:
            self._reshaped[buffer, shape] = self._append(Node("reshape", path, (buffer,), attrs={"shape": shape}))
        return self._reshaped[buffer, shape]

    def parameter(self, call: Call, role: str) -> str:
        """The name of the parameter or, for running statistics, of the buffer that the argument `role` is."""
        value = call.arguments[role]
        known = {**self.parameter_of, **(self.constant_of if role in STATE_ROLES else {})}
        if not isinstance(value, FxNode) or value.name not in known:
            raise call.refused(f"with the {role} {value}; a device trains a layer's own parameters, not computed ones")
        if value in self._stale and role not in STATE_ROLES:
            raise call.refused(f"reads the {role} that {self._stale[value]} changed; leave parameters to the optimizer")
        return known[value.name]

    def keep(self, call: Call, value: Any) -> None:
        """The result is `value` itself, perhaps in another shape."""
        view, shape = self.view(call, value), self.result_shape(call)
        self._views[call.node] = _View(view.buffer, shape, view.path if shape == view.shape else call.path)

    def add(
        self,
        call: Call,
        op: str,
        inputs: list[int],
        roles: tuple[str, ...] = (),
        attrs: Mapping[str, Setting] | None = None,
    ) -> None:
        """Appends one operator that reads the buffers `inputs` and whose output is the result of `call`."""
        params = {role: self.parameter(call, role) for role in roles}
        buffer = self._append(Node(op, call.path, tuple(inputs), params, attrs or {}))
        shape = self.result_shape(call)
        if math.prod(shape) != math.prod(self.shapes[buffer]):
            raise call.refused(f"gives {shape}, but {op} on a device {self.shapes[buffer]}")
        self._views[call.node] = _View(buffer, shape, call.path)

    def _append(self, node: Node) -> int:
        if node.name in {other.name for other in self.nodes}:
            node = Node(node.op, f"{node.name}#{len(self.nodes)}", node.inputs, node.params, node.attrs)
        params = {role: self.shape_of[name] for role, name in node.params.items()}
        self.shapes.append(output_shape(node, [self.shapes[b] for b in node.inputs], params))
        self.nodes.append(node)
        return len(self.nodes)

    def result_shape(self, call: Call) -> Shape:
        """Shape of a sample of the result; refuses what does not keep the samples of a batch apart."""
        shape = call.node.meta["val"].shape
        if len(shape) < 2 or str(shape[0]) != self.batch or not all(type(size) is int for size in shape[1:]):
            raise call.refused(f"gives {tuple(shape)}; the first dimension must stay the batch, and samples their own")
        return tuple(shape[1:])

    def is_whole(self, value: Any) -> bool:
        """Whether `value` holds whole numbers."""
        return not value.meta["val"].dtype.is_floating_point


def _call_of(node: FxNode) -> Call:
    """Path and class are of the innermost module; the operator itself for the root's forward()."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else (node.name, "forward")
    schema = getattr(node.target, "_schema", None)
    arguments: dict[str, Any] = {}
    if schema is not None:
        arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        arguments |= {a.name: value for a, value in zip(schema.arguments, node.args, strict=False)}
    operator = str(node.target)
    if _aliased(node)[1]:
        operator = operator.replace("_.", ".", 1)  # in place or not is the same to a device
    return Call(node, operator, arguments | node.kwargs, path or node.name, str(kind).rsplit(".", 1)[-1])


def _aliased(node: FxNode) -> tuple[FxNode | None, bool]:
    """The value whose memory the result shares, if any, and whether the operator writes there."""
    schema = getattr(node.target, "_schema", None)
    for argument, value in zip(schema.arguments if schema else (), node.args, strict=False):
        if argument.alias_info is not None and isinstance(value, FxNode):
            return value, argument.alias_info.is_write
    if str(node.target) == "aten.dropout.default" and (node.args[1] == 0 or not node.args[2]):
        return node.all_input_nodes[0], False  # it hands on its input where it does nothing, and no schema says so
    return None, False
