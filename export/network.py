"""The graph of operators that a device can train.

A network is a list of nodes in topological order: buffer 0 is the input, node i writes buffer i + 1, the last buffer is
the output. It holds names and shapes, never values. The operators are those of operators.py.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from export.operators import MAX_RANK, OPERATORS, STATE_ROLES, NetworkError, Node, Shape, is_shape, output_shape

__all__ = ["LOSSES", "OPERATORS", "Network", "NetworkError", "Node", "Parameter", "Shape"]

LOSSES = ("cross_entropy", "mse", "bce")


@dataclass(frozen=True)
class Parameter:
    """A tensor of a network: `name` as in the module's state_dict, its shape, and whether pruning may touch it.

    `state`: kept and restored like a value, but moved by the forward pass alone (running statistics), never pruned.
    """

    name: str
    shape: Shape
    prunable: bool = False
    state: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        flags = type(self.prunable) is bool and type(self.state) is bool
        if not isinstance(self.name, str) or not flags or not is_shape(self.shape):
            raise NetworkError(
                f"parameter {self.name!r}: shape {self.shape}, prunable {self.prunable!r} and state {self.state!r}; it "
                "needs a name, whole dimensions of at least 1, and true or false for both"
            )

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Network:
    """A checked graph: construction infers every shape and raises NetworkError where a rule does not hold.

    `input_shape` is that of one sample, without the batch. The last buffer holds one score (logit) a class, or what is
    to be near the target where `loss` is mse. State parameters come after all others.
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
        if not is_shape(self.input_shape):
            raise NetworkError(
                f"input shape {self.input_shape} must have 1 to {MAX_RANK} whole dimensions of at least 1"
            )
        self._check_parameters()
        object.__setattr__(self, "shapes", self._infer_shapes())
        self._check_kinds()

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
        used = Counter(name for node in self.nodes for name in node.params.values())
        declared = Counter(parameter.name for parameter in self.parameters)
        for name in declared:
            if declared[name] > 1 or used[name] != 1:
                raise NetworkError(
                    f"parameter '{name}' is declared {declared[name]} and used {used[name]} times; "
                    "each must be declared and used exactly once (shared weights are not supported)"
                )
        if unknown := sorted(set(used) - set(declared)):
            raise NetworkError(f"parameter '{unknown[0]}' is used by a node but not declared")

    def _check_kinds(self) -> None:
        """Only weights of matrices are pruned, only running statistics are state, and state comes last."""
        place = {name: (node, role) for node in self.nodes for role, name in node.params.items()}
        for before, parameter in zip((None, *self.parameters), self.parameters, strict=False):
            node, role = place[parameter.name]
            if parameter.prunable and not (OPERATORS[node.op].matrix and role == "weight"):
                raise NetworkError(
                    f"parameter '{parameter.name}': the {role} of {node.op} '{node.name}' cannot be pruned; set prunable false"
                )
            if parameter.state != (role in STATE_ROLES):
                wanted = "is state" if role in STATE_ROLES else "is not state"
                raise NetworkError(
                    f"parameter '{parameter.name}': the {role} of {node.op} '{node.name}' {wanted}; say so"
                )
            if before is not None and before.state and not parameter.state:
                raise NetworkError(f"parameter '{parameter.name}' follows the state '{before.name}'; put state last")

    def _infer_shapes(self) -> tuple[Shape, ...]:
        if not self.nodes:
            raise NetworkError("a network needs at least one node")
        shapes: list[Shape] = [self.input_shape]
        all_params = self.parameter_shapes
        for index, node in enumerate(self.nodes):
            params = {role: all_params[name] for role, name in node.params.items()}
            _check_inputs(index, node)
            shapes.append(output_shape(node, [shapes[b] for b in node.inputs], params))
        read = {buffer for node in self.nodes for buffer in node.inputs}
        if dead := sorted(set(range(len(self.nodes))) - read):
            raise NetworkError(f"buffer {dead[0]} is never read; remove the node that writes it")
        if len(shapes[-1]) != 1 or (self.loss == "cross_entropy" and shapes[-1][0] < 2):
            needed = "one score for each of >= 2 classes" if self.loss == "cross_entropy" else "one dimension a sample"
            raise NetworkError(
                f"the output has shape {shapes[-1]}; {self.loss.replace('_', '-')} needs {needed}; flatten it"
            )
        return tuple(shapes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` gives an equal network."""
        return {
            "input_shape": list(self.input_shape),
            "parameters": [_parameter_to_json(parameter) for parameter in self.parameters],
            "nodes": [_node_to_json(node) for node in self.nodes],
            "loss": self.loss,
        }

    @classmethod
    def from_json(cls, value: Any) -> Network:
        """Raises NetworkError for anything that is not exactly such an object."""
        try:
            network = cls(
                input_shape=tuple(value["input_shape"]),
                parameters=tuple(
                    Parameter(p["name"], tuple(p["shape"]), p["prunable"], p.get("state", False))
                    for p in value["parameters"]
                ),
                nodes=tuple(
                    Node(n["op"], n["name"], tuple(n["inputs"]), n["params"], n["attrs"]) for n in value["nodes"]
                ),
                loss=value["loss"],
            )
        except NetworkError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NetworkError(f"not a network: {type(error).__name__} {error} in {str(value)[:80]}") from error
        if network.to_json() != value:
            raise NetworkError(f"not a network: it holds more than this version knows, in {str(value)[:80]}")
        return network


def _check_inputs(index: int, node: Node) -> None:
    low, high = OPERATORS[node.op].inputs if node.op in OPERATORS else (0, len(node.inputs))
    if not low <= len(node.inputs) <= high or any(type(b) is not int or not 0 <= b <= index for b in node.inputs):
        count = str(low) if low == high else f"{low} to {high}"
        raise NetworkError(f"{node.op} '{node.name}': inputs {node.inputs}, but it takes {count} of 0..{index}")


def _parameter_to_json(parameter: Parameter) -> dict[str, Any]:
    known = {"name": parameter.name, "shape": list(parameter.shape), "prunable": parameter.prunable}
    return known | ({"state": True} if parameter.state else {})


def _node_to_json(node: Node) -> dict[str, Any]:
    attrs = {name: list(value) if isinstance(value, tuple) else value for name, value in node.attrs.items()}
    return {"op": node.op, "name": node.name, "inputs": list(node.inputs), "params": dict(node.params), "attrs": attrs}
