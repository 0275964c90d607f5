"""The closed set of operators that a device can train: inputs, parameter roles, attributes and shape rule of each.

One row of OPERATORS for each row of the table in FORMAT.md, attributes in the order of their words there. It holds names
and shapes, never values; what breaks a rule is refused by node, value and remedy. Needs the standard library only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Shape = tuple[int, ...]
Setting = int | float | Shape

MAX_RANK = 4
MAX_KERNEL = 256  # of kernel, stride and dilation
MAX_REACH = 4096  # of a dilated kernel
MAX_CONCAT = 16
MAX_ENTRIES = 2**24  # whole numbers that f32, the type of every sample, can tell apart
STATE_ROLES = ("running_mean", "running_var")


class NetworkError(ValueError):
    """A network that breaks a rule; the text names the node, the value and the remedy."""


def is_shape(value: Any) -> bool:
    return type(value) is tuple and 1 <= len(value) <= MAX_RANK and all(type(n) is int and n >= 1 for n in value)


def f32(value: float) -> float:
    """The nearest f32; infinite beyond its range."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


@dataclass(frozen=True)
class Node:
    """One operator. `params` maps roles (weight, bias) to parameter names; `attrs` are the operator's own settings."""

    op: str
    name: str
    inputs: tuple[int, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.op, str) or not isinstance(self.name, str):
            raise NetworkError(f"node {self.name!r}: operator {self.op!r}; both must be text")
        attrs = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(self.attrs).items()}
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "attrs", MappingProxyType(attrs))

    def whole(self, name: str) -> int:
        """The attribute `name`, a whole number."""
        value = self.attrs[name]
        assert type(value) is int
        return value

    def real(self, name: str) -> float:
        """The attribute `name`, a float."""
        value = self.attrs[name]
        assert type(value) is float
        return value

    def __reduce__(self) -> tuple[Any, ...]:  # mapping proxies cannot be pickled
        return Node, (self.op, self.name, self.inputs, dict(self.params), dict(self.attrs))


ShapeRule = Callable[[Node, list[Shape], Mapping[str, Shape]], Shape]


@dataclass(frozen=True)
class Attribute:
    """A typed setting: what values it may have, and how an error says so. A float is judged by its nearest f32."""

    kind: type
    fits: Callable[[Any], bool]
    range: str

    def allows(self, value: Any) -> bool:
        exact = f32(value) if isinstance(value, float) else value
        return type(value) is self.kind and self.fits(exact)


@dataclass(frozen=True)
class Operator:
    """A row of the closed set. `roles` are the sets of parameters it may have; `inputs` the fewest and the most.

    The weight of a `matrix` operator is a matrix of rows that pruning may thin out; all other parameters are dense.
    """

    shape_rule: ShapeRule
    inputs: tuple[int, int] = (1, 1)
    roles: tuple[tuple[str, ...], ...] = ((),)
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    matrix: bool = False

    def roles_of(self, node: Node) -> tuple[str, ...]:
        """The node's parameter roles, in the order of the format."""
        for roles in self.roles:
            if set(roles) == set(node.params):
                return roles
        allowed = " or ".join(", ".join(roles) or "none" for roles in self.roles)
        raise NetworkError(f"{node.op} '{node.name}': parameter roles {sorted(node.params)}, but it takes {allowed}")


def output_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    """Shape of what `node` writes, without the batch; raises NetworkError where a rule of its operator does not hold.

    `params` maps roles to shapes. Which buffers may be read is the network's rule, not the operator's.
    """
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise NetworkError(f"node '{node.name}': operator '{node.op}' is not known; known are {', '.join(OPERATORS)}")
    operator.roles_of(node)
    if set(node.attrs) != set(operator.attrs):
        raise NetworkError(
            f"{node.op} '{node.name}': attributes {dict(node.attrs)}, but it takes {', '.join(operator.attrs) or 'none'}"
        )
    for name, attribute in operator.attrs.items():
        if not attribute.allows(node.attrs[name]):
            raise NetworkError(f"{node.op} '{node.name}': {name} {node.attrs[name]!r} must be {attribute.range}")
    return operator.shape_rule(node, inputs, params)


def _broken(node: Node, text: str) -> NetworkError:
    return NetworkError(f"{node.op} '{node.name}': {text}")


def _linear_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    weight = params["weight"]
    if len(weight) != 2 or len(x) != 1 or weight[1] != x[0]:
        raise _broken(node, f"weight {weight} does not fit an input of shape {x}; flatten it first")
    _check_bias(node, params, weight[0])
    return (weight[0],)


def _check_bias(node: Node, params: Mapping[str, Shape], outputs: int) -> None:
    if "bias" in params and params["bias"] != (outputs,):
        raise _broken(node, f"bias shape {params['bias']} but {outputs} outputs")


def _same_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    if any(shape != inputs[0] for shape in inputs):
        raise _broken(node, f"inputs of shapes {inputs} must be equal; broadcasting is not supported")
    return inputs[0]


def _reshape_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    shape = node.attrs["shape"]
    assert isinstance(shape, tuple)
    if math.prod(shape) != math.prod(inputs[0]):
        raise _broken(
            node, f"shape {shape} holds {math.prod(shape)} elements, but its input {inputs[0]} another number"
        )
    return shape


def _concat_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    if any(shape[1:] != inputs[0][1:] for shape in inputs):
        raise _broken(node, f"inputs of shapes {inputs} may differ in the first dimension only")
    return (sum(shape[0] for shape in inputs), *inputs[0][1:])


def _image(node: Node, x: Shape) -> tuple[int, int, int]:
    """(channels, height, width); a sample of rank 2 is an image of height 1."""
    if len(x) not in (2, 3):
        raise _broken(node, f"an input of shape {x}; it takes (channels, length) or (channels, height, width)")
    if len(x) == 2:
        neutral = {"kernel_h": 1, "stride_h": 1, "dilation_h": 1, "pad_h": 0}
        for name, value in neutral.items():
            if node.attrs.get(name, value) != value:
                raise _broken(node, f"{name} {node.attrs[name]} but the input {x} has no height; it must be {value}")
    return (x[0], 1, x[1]) if len(x) == 2 else (x[0], x[1], x[2])


def _window(node: Node, image: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of what a sliding window leaves."""
    sizes = []
    for axis, size in zip("hw", image[1:], strict=True):
        kernel, stride, pad = (node.whole(f"{name}_{axis}") for name in ("kernel", "stride", "pad"))
        reach = (node.whole(f"dilation_{axis}") if node.op == "conv" else 1) * (kernel - 1) + 1
        if reach > MAX_REACH:
            raise _broken(node, f"a kernel that reaches over {reach}; at most {MAX_REACH}, dilate less")
        most = reach - 1 if node.op == "conv" else kernel // 2
        if pad > most:
            raise _broken(node, f"pad_{axis} {pad} with kernel_{axis} {kernel} must be at most {most}; pad less")
        left = size + 2 * pad - reach
        if left < 0:
            raise _broken(node, f"a window of {reach} does not fit an input of {size} with {pad} of padding; pool less")
        sizes.append(left // stride + 1)
    return sizes[0], sizes[1]


def _as_rank_of(x: Shape, channels: int, size: tuple[int, int]) -> Shape:
    return (channels, size[1]) if len(x) == 2 else (channels, *size)


def _conv_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    image, weight, groups = _image(node, x), params["weight"], node.whole("groups")
    kernel = (node.whole("kernel_h"), node.whole("kernel_w"))[3 - len(x) :]
    if len(weight) != len(x) + 1 or image[0] % groups or weight[0] % groups or weight[1] != image[0] // groups:
        raise _broken(
            node, f"weight {weight} does not fit an input of shape {x} in {groups} groups; give it as many channels"
        )
    if weight[2:] != kernel:
        raise _broken(node, f"weight {weight} but a kernel of {kernel}; they must agree")
    _check_bias(node, params, weight[0])
    return _as_rank_of(x, weight[0], _window(node, image))


def _pool_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    image = _image(node, x)
    return _as_rank_of(x, image[0], _window(node, image))


def _global_pool_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    return (_image(node, inputs[0])[0],)


def _batch_norm_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    for role, shape in params.items():
        if shape != x[:1] or len(x) > 3:
            raise _broken(node, f"{role} {shape} for an input of shape {x}; one value a channel, at most 3 dimensions")
    return x


def _layer_norm_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    dimensions = node.whole("dimensions")
    if dimensions > len(x):
        raise _broken(node, f"dimensions {dimensions} but the input {x} has {len(x)}")
    for role, shape in params.items():
        if shape != x[-dimensions:]:
            raise _broken(node, f"{role} {shape} but the last {dimensions} dimensions of {x} are normalised")
    return x


def _vector_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    if len(inputs[0]) != 1:
        raise _broken(node, f"an input of shape {inputs[0]}; it works on samples of one dimension, flatten it first")
    return inputs[0]


def _embedding_shape(node: Node, inputs: list[Shape], params: Mapping[str, Shape]) -> Shape:
    (x,), weight = inputs, params["weight"]
    if len(weight) != 2 or len(x) != 1:
        raise _broken(node, f"weight {weight} and an input of shape {x}; it takes a list of whole numbers a sample")
    if weight[0] > MAX_ENTRIES:
        raise _broken(node, f"{weight[0]} entries; samples are f32 and can number {MAX_ENTRIES} at most")
    if node.inputs != (0,):
        raise _broken(node, f"reads buffer {node.inputs[0]}; only the network's own input holds whole numbers")
    return (x[0], weight[1])


def _in(low: int, high: int) -> Attribute:
    return Attribute(int, lambda value: low <= value <= high, f"a whole number in {low}..{high}")


_SLIDE, _PAD, _GROUPS = _in(1, MAX_KERNEL), _in(0, MAX_REACH), _in(1, 2**24)
_SWITCH = _in(0, 1)
_EPSILON = Attribute(float, lambda value: 0 < value < math.inf, "a number above 0, as f32 too")
_SHARE = Attribute(float, lambda value: 0 <= value <= 1, "a number in 0..1")
_PROBABILITY = Attribute(float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1, as f32 too")
_SLOPE = Attribute(float, lambda value: 0 <= value < math.inf, "a finite number of at least 0, as f32 too")
_SHAPE = Attribute(tuple, is_shape, f"1 to {MAX_RANK} whole dimensions of at least 1")

_POOL = {
    "kernel_h": _SLIDE,
    "kernel_w": _SLIDE,
    "stride_h": _SLIDE,
    "stride_w": _SLIDE,
    "pad_h": _PAD,
    "pad_w": _PAD,
}
_CONV = {**_POOL, "dilation_h": _SLIDE, "dilation_w": _SLIDE, "groups": _GROUPS}
_BIASED = (("weight",), ("weight", "bias"))
_BATCH_NORM = {"epsilon": _EPSILON, "momentum": _SHARE, "frozen": _SWITCH}

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "linear": Operator(_linear_shape, roles=_BIASED, matrix=True),
        "relu": Operator(_same_shape),
        "reshape": Operator(_reshape_shape, attrs={"shape": _SHAPE}),
        "add": Operator(_same_shape, inputs=(2, 2)),
        "mul": Operator(_same_shape, inputs=(2, 2)),
        "concat": Operator(_concat_shape, inputs=(2, MAX_CONCAT)),
        "conv": Operator(_conv_shape, roles=_BIASED, attrs=_CONV, matrix=True),
        "batch_norm": Operator(_batch_norm_shape, roles=(("weight", "bias", *STATE_ROLES),), attrs=_BATCH_NORM),
        "layer_norm": Operator(
            _layer_norm_shape,
            roles=((), ("weight", "bias")),
            attrs={"epsilon": _EPSILON, "dimensions": _in(1, MAX_RANK)},
        ),
        "leaky_relu": Operator(_same_shape, attrs={"slope": _SLOPE}),
        "relu6": Operator(_same_shape),
        "hardswish": Operator(_same_shape),
        "sigmoid": Operator(_same_shape),
        "tanh": Operator(_same_shape),
        "gelu": Operator(_same_shape, attrs={"approximation": _SWITCH}),
        "max_pool": Operator(_pool_shape, attrs=_POOL),
        "avg_pool": Operator(_pool_shape, attrs={**_POOL, "count_include_pad": _SWITCH}),
        "global_avg_pool": Operator(_global_pool_shape),
        "softmax": Operator(_vector_shape),
        "embedding": Operator(_embedding_shape, roles=(("weight",),), matrix=True),
        "dropout": Operator(_same_shape, attrs={"probability": _PROBABILITY}),
    }
)
