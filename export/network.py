"""The graph of operators that a device can train.

A network is a list of nodes in topological order: buffer 0 is the input, node i writes buffer i + 1, the last buffer is
the output. It holds names and shapes, never values. New operators are rows of OPERATORS. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Shape = tuple[int, ...]

LOSSES = ("cross_entropy",)
MAX_RANK = 4


class NetworkError(ValueError):
    """A network that breaks a rule; the text names the node, the value and the remedy."""


def _is_shape(shape: Shape) -> bool:
    return 1 <= len(shape) <= MAX_RANK and all(type(n) is int and n >= 1 for n in shape)


@dataclass(frozen=True)
class Parameter:
    """A tensor of a network: `name` as in the module's state_dict, its shape, and whether pruning may touch it."""

    name: str
    shape: Shape
    prunable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if not isinstance(self.name, str) or type(self.prunable) is not bool or not _is_shape(self.shape):
            raise NetworkError(
                f"parameter {self.name!r}: shape {self.shape} and prunable {self.prunable!r}; it needs a name, whole "
                "dimensions of at least 1, and true or false"
            )

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One operator. `params` maps roles (weight, bias) to parameter names; `attrs` are the operator's own settings."""

    op: str
    name: str
    inputs: tuple[int, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.op, str) or not isinstance(self.name, str):
            raise NetworkError(f"node {self.name!r}: operator {self.op!r}; both must be text")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __reduce__(self) -> tuple[Any, ...]:  # mapping proxies cannot be pickled
        return Node, (self.op, self.name, self.inputs, dict(self.params), dict(self.attrs))


ShapeRule = Callable[[Node, list[Shape], Mapping[str, Shape]], Shape]


@dataclass(frozen=True)
class Operator:
    """A row of the closed set: how many inputs, which parameter roles and attributes, and the shape rule."""

    input_count: int
    shape_rule: ShapeRule
    params: tuple[str, ...] = ()
    optional_params: tuple[str, ...] = ()
    attrs: Mapping[str, type] = field(default_factory=dict)


def _linear_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    weight = params["weight"]
    if len(weight) != 2 or len(x) != 1 or weight[1] != x[0]:
        raise NetworkError(
            f"linear '{node.name}': weight {weight} does not fit an input of shape {x}; flatten it first"
        )
    if "bias" in params and params["bias"] != (weight[0],):
        raise NetworkError(f"linear '{node.name}': bias shape {params['bias']} but {weight[0]} outputs")
    return (weight[0],)


def _same_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    if any(shape != inputs[0] for shape in inputs):
        raise NetworkError(
            f"{node.op} '{node.name}': inputs of shapes {inputs} must be equal; broadcasting is not supported"
        )
    return inputs[0]


def _flat_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    return (math.prod(inputs[0]),)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "linear": Operator(1, _linear_shape, params=("weight",), optional_params=("bias",)),
        "relu": Operator(1, _same_shape),
        "flatten": Operator(1, _flat_shape),
        "add": Operator(2, _same_shape),
    }
)


@dataclass(frozen=True)
class Network:
    """A checked graph: construction infers every shape and raises NetworkError where a rule does not hold.

    `input_shape` is that of one sample, without the batch. The last buffer holds one score (logit) a class.
    """

    input_shape: Shape
    parameters: tuple[Parameter, ...]
    nodes: tuple[Node, ...]
    loss: str = "cross_entropy"
    shapes: tuple[Shape, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if self.loss not in LOSSES:
            raise NetworkError(f"loss '{self.loss}' is not known; known are {', '.join(LOSSES)}")
        if not _is_shape(self.input_shape):
            raise NetworkError(
                f"input shape {self.input_shape} must have 1 to {MAX_RANK} whole dimensions of at least 1"
            )
        self._check_parameters()
        object.__setattr__(self, "shapes", self._infer_shapes())

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def parameter_shapes(self) -> dict[str, Shape]:
        return {parameter.name: parameter.shape for parameter in self.parameters}

    @property
    def prunable(self) -> tuple[str, ...]:
        """Names of the parameters that pruning may touch, in order of the graph; the last one is the output layer's."""
        return tuple(parameter.name for parameter in self.parameters if parameter.prunable)

    def _check_parameters(self) -> None:
        used = [name for node in self.nodes for name in node.params.values()]
        declared = [parameter.name for parameter in self.parameters]
        for name in declared:
            if declared.count(name) > 1 or used.count(name) != 1:
                raise NetworkError(
                    f"parameter '{name}' is declared {declared.count(name)} and used {used.count(name)} times; "
                    "each must be declared and used exactly once (shared weights are not supported)"
                )
        if unknown := sorted(set(used) - set(declared)):
            raise NetworkError(f"parameter '{unknown[0]}' is used by a node but not declared")

    def _infer_shapes(self) -> tuple[Shape, ...]:
        if not self.nodes:
            raise NetworkError("a network needs at least one node")
        shapes: list[Shape] = [self.input_shape]
        for index, node in enumerate(self.nodes):
            shapes.append(self._node_shape(index, node, shapes))
        read = {buffer for node in self.nodes for buffer in node.inputs}
        if dead := sorted(set(range(len(self.nodes))) - read):
            raise NetworkError(f"buffer {dead[0]} is never read; remove the node that writes it")
        if len(shapes[-1]) != 1 or shapes[-1][0] < 2:
            raise NetworkError(
                f"the output has shape {shapes[-1]}; cross-entropy needs one score for each of >= 2 classes"
            )
        return tuple(shapes)

    def _node_shape(self, index: int, node: Node, shapes: list[Shape]) -> Shape:
        operator = OPERATORS.get(node.op)
        if operator is None:
            raise NetworkError(
                f"node '{node.name}': operator '{node.op}' is not known; known are {', '.join(OPERATORS)}"
            )
        if len(node.inputs) != operator.input_count or any(
            type(b) is not int or not 0 <= b <= index for b in node.inputs
        ):
            raise NetworkError(
                f"{node.op} '{node.name}': inputs {node.inputs}, but it takes {operator.input_count} of 0..{index}"
            )
        roles = set(node.params)
        if not set(operator.params) <= roles or not roles <= set(operator.params) | set(operator.optional_params):
            raise NetworkError(
                f"{node.op} '{node.name}': parameter roles {sorted(roles)}, but it takes {operator.params}"
            )
        if {name: type(value) for name, value in node.attrs.items()} != dict(operator.attrs):
            raise NetworkError(
                f"{node.op} '{node.name}': attributes {dict(node.attrs)}, but it takes {dict(operator.attrs)}"
            )
        all_shapes = self.parameter_shapes
        params = {role: all_shapes[name] for role, name in node.params.items()}
        return operator.shape_rule(node, [shapes[b] for b in node.inputs], params)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` gives an equal network."""
        return {
            "input_shape": list(self.input_shape),
            "parameters": [{"name": p.name, "shape": list(p.shape), "prunable": p.prunable} for p in self.parameters],
            "nodes": [
                {"op": n.op, "name": n.name, "inputs": list(n.inputs), "params": dict(n.params), "attrs": dict(n.attrs)}
                for n in self.nodes
            ],
            "loss": self.loss,
        }

    @classmethod
    def from_json(cls, value: Any) -> Network:
        """Raises NetworkError for anything that is not exactly such an object."""
        try:
            network = cls(
                input_shape=tuple(value["input_shape"]),
                parameters=tuple(Parameter(p["name"], tuple(p["shape"]), p["prunable"]) for p in value["parameters"]),
                nodes=tuple(
                    Node(n["op"], n["name"], tuple(n["inputs"]), n["params"], n["attrs"]) for n in value["nodes"]
                ),
                loss=value["loss"],
            )
        except NetworkError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise NetworkError(f"not a network: {type(error).__name__} {error} in {str(value)[:80]}") from error
        if network.to_json() != value:
            raise NetworkError(f"not a network: it holds more than this version knows, in {str(value)[:80]}")
        return network
