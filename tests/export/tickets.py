"""Tickets for tests: built by hand, from the golden descriptions, and drawn at random by hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from export.network import Network, Node, Parameter, Shape
from export.operators import OPERATORS, STATE_ROLES, output_shape
from export.ticket import Bits, Floats, Ticket

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPE: dict[str, Any] = {
    "optimizer": "adam",
    "batch": 60,
    "learning_rate": 0.0012,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "epochs": 10,
}
CARD: dict[str, Any] = {"task": "test", "input": {"mean": [0.25], "inverse_std": [4.0]}, "recipe": RECIPE}


def small_network() -> Network:
    return Network(
        (2, 2),
        (Parameter("a.weight", (3, 4), True), Parameter("a.bias", (3,)), Parameter("b.weight", (2, 3), True)),
        (
            Node("reshape", "flat", (0,), attrs={"shape": (4,)}),
            Node("linear", "a", (1,), {"weight": "a.weight", "bias": "a.bias"}),
            Node("relu", "act", (2,)),
            Node("linear", "b", (3,), {"weight": "b.weight"}),
        ),
    )


def small_parts() -> dict[str, Any]:
    """Arguments of a valid Ticket, fresh each time, for tests that spoil one."""
    mask = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], np.bool_)
    weight = np.arange(1, 13, dtype=np.float32).reshape(3, 4) * mask
    init = {"a.weight": weight, "a.bias": np.ones(3, np.float32), "b.weight": np.full((2, 3), 0.5, np.float32)}
    return {"network": small_network(), "init": init, "masks": {"a.weight": mask}, "card": json.loads(json.dumps(CARD))}


def small_ticket(**changes: Any) -> Ticket:
    return Ticket(**(small_parts() | changes))


def dead_unit_ticket() -> Ticket:
    """The small one with its first layer's last unit read by nobody."""
    live = np.array([[True, True, False]] * 2)
    init = {"b.weight": np.where(live, np.float32(0.5), np.float32(0))}
    parts = small_parts()
    return small_ticket(init=parts["init"] | init, masks=parts["masks"] | {"b.weight": live})


def described(name: str) -> dict[str, Any]:
    """The description of a golden file."""
    description: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return description


def golden_ticket(name: str) -> Ticket:
    d = described(name)
    nodes = tuple(_described_node(n, d["buffers"][index + 1]) for index, n in enumerate(d["nodes"]))
    parameters = tuple(
        Parameter(p["name"], tuple(p["shape"]), p["prunable"], p.get("state", False)) for p in d["parameters"]
    )
    masks = {p["name"]: _mask(p) for p in d["parameters"] if "live" in p}
    values = {
        kind: {p["name"]: _spread(p, masks.get(p["name"]), kind) for p in d["parameters"]}
        for kind in ("init", "trained")
        if kind in d["parameters"][0]
    }
    network = Network(tuple(d["buffers"][0]), parameters, nodes, d["loss"])
    return Ticket(network, values["init"], masks, values.get("trained"), d["card"])


def _described_node(node: dict[str, Any], shape: list[int]) -> Node:
    roles = ("weight", "bias", *STATE_ROLES)
    params = dict(zip(roles, node["params"], strict=False))
    attrs = {"shape": tuple(shape)} if node["op"] == "reshape" else node.get("attrs", {})
    return Node(node["op"], node["name"], tuple(node["inputs"]), params, attrs)


def _mask(parameter: dict[str, Any]) -> Bits:
    rows = parameter["shape"][0]
    mask = np.zeros((rows, int(np.prod(parameter["shape"])) // rows), np.bool_)
    for row, column in parameter["live"]:
        mask[row, column] = True
    return mask.reshape(parameter["shape"])


def _spread(parameter: dict[str, Any], mask: Bits | None, kind: str) -> Floats:
    dense = np.zeros(parameter["shape"], np.float32)
    dense[mask if mask is not None else np.ones(dense.shape, np.bool_)] = np.array(parameter[kind]).ravel()
    return dense


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MILD_FLOATS = st.floats(-2, 2, width=32)


ACTIVATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("relu", {}),
    ("leaky_relu", {"slope": 0.125}),
    ("relu6", {}),
    ("hardswish", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("gelu", {"approximation": 0}),
    ("gelu", {"approximation": 1}),
    ("dropout", {"probability": 0.25}),
)


class Builder:
    """Nodes and parameters of a network, one after the other; `at` is the last buffer and `shape` its shape."""

    def __init__(self, input_shape: Shape) -> None:
        self.nodes: list[Node] = []
        self.parameters: list[Parameter] = []
        self.shapes = [input_shape]

    @property
    def at(self) -> int:
        return len(self.nodes)

    @property
    def shape(self) -> Shape:
        return self.shapes[-1]

    def add(self, op: str, *others: int, params: dict[str, Shape] | None = None, **attrs: Any) -> int:
        """Reads the last buffer and `others`; the number of the buffer it writes."""
        name, params = f"{op}{self.at}", params or {}
        matrix = OPERATORS[op].matrix
        self.parameters += [
            Parameter(f"{name}.{role}", shape, matrix and role == "weight", role in STATE_ROLES)
            for role, shape in params.items()
        ]
        node = Node(op, name, (self.at, *others), {role: f"{name}.{role}" for role in params}, attrs)
        shape = output_shape(node, [self.shapes[b] for b in node.inputs], params)
        self.nodes.append(node)
        self.shapes.append(shape)
        return self.at

    def network(self, loss: str = "cross_entropy") -> Network:
        parameters = sorted(self.parameters, key=lambda parameter: parameter.state)
        return Network(self.shapes[0], tuple(parameters), tuple(self.nodes), loss)


def window(shape: Shape, **settings: Any) -> dict[str, Any]:
    """Attributes `kernel_h`, `kernel_w` and so on of one number each; none along a height that is not there."""
    nothing = {"kernel": 1, "stride": 1, "dilation": 1, "pad": 0}
    widths = {f"{name}_w": value for name, value in settings.items()}
    heights = {f"{name}_h": value if len(shape) == 3 else nothing[name] for name, value in settings.items()}
    return widths | heights


def norm_params(channels: int) -> dict[str, Shape]:
    return dict.fromkeys(("weight", "bias", *STATE_ROLES), (channels,))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Samples of rank 1 to 4; convolutions, pools and norms where they have positions, then linear layers with skips."""
    input_shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    builder = Builder(input_shape)
    if len(input_shape) in (2, 3):
        for _ in range(draw(st.integers(0, 2))):
            _convolve(draw, builder)
        if draw(st.booleans()):
            builder.add("global_avg_pool")
    if len(builder.shape) > 1 or draw(st.booleans()):
        builder.add("reshape", shape=(int(np.prod(builder.shape)),))
    layers = draw(st.integers(1, 3))
    for layer in range(layers):
        last = layer == layers - 1
        _connect(draw, builder, draw(st.integers(2 if last else 1, 5)))
        if not last:
            _bend(draw, builder)
    return builder.network()


def _convolve(draw: st.DrawFn, builder: Builder) -> None:
    channels, groups = builder.shape[0], 1
    if draw(st.booleans()):
        groups = channels
    out = groups * draw(st.integers(1, 2))
    kernel, pad = draw(st.sampled_from(((1, 0), (2, 1), (3, 1), (3, 2))))
    settings = {"kernel": kernel, "stride": draw(st.integers(1, 2)), "pad": pad, "dilation": 1}
    kernels = (kernel,) * (len(builder.shape) - 1)
    if min(builder.shape[1:]) + 2 * pad < kernel:
        return
    params = {"weight": (out, channels // groups, *kernels)} | ({"bias": (out,)} if draw(st.booleans()) else {})
    builder.add("conv", params=params, groups=groups, **window(builder.shape, **settings))
    if draw(st.booleans()):
        frozen = int(draw(st.booleans()))
        builder.add("batch_norm", params=norm_params(out), epsilon=0.01, momentum=0.1, frozen=frozen)
    op, attrs = draw(st.sampled_from(ACTIVATIONS))
    builder.add(op, **attrs)
    if draw(st.booleans()):
        pool = {"kernel": 2, "stride": draw(st.integers(1, 2)), "pad": 1}
        if draw(st.booleans()):
            builder.add("max_pool", **window(builder.shape, **pool))
        else:
            included = int(draw(st.booleans()))
            builder.add("avg_pool", count_include_pad=included, **window(builder.shape, **pool))


def _connect(draw: st.DrawFn, builder: Builder, out: int) -> None:
    params: dict[str, Shape] = {"weight": (out, builder.shape[0])}
    builder.add("linear", params=params | ({"bias": (out,)} if draw(st.booleans()) else {}))


def _bend(draw: st.DrawFn, builder: Builder) -> None:
    """An activation, then nothing, a norm, or a skip around the activation."""
    before = builder.at
    op, attrs = draw(st.sampled_from((*ACTIVATIONS, ("softmax", {}))))
    builder.add(op, **attrs)
    after = draw(st.sampled_from(("nothing", "norm", "add", "mul", "concat")))
    if after == "norm":
        params = {"weight": builder.shape, "bias": builder.shape} if draw(st.booleans()) else {}
        builder.add("layer_norm", params=params, epsilon=0.25, dimensions=1)
    elif after != "nothing":
        builder.add(after, before)


@st.composite
def tickets(draw: st.DrawFn, values: st.SearchStrategy[float] = FLOATS) -> Ticket:
    """Any subset of the layers pruned to any pattern with a live weight; one channel or as many as there are."""
    network = draw(networks())
    shapes = network.parameter_shapes
    masks = {}
    for name in network.prunable:
        mask = draw(npst.arrays(np.bool_, shapes[name]))
        if draw(st.booleans()) and mask.any():
            masks[name] = mask
    channels = draw(st.sampled_from((1, network.input_shape[0])))
    means = draw(st.lists(st.floats(-4, 4, width=32), min_size=channels, max_size=channels))
    stds = draw(st.lists(st.floats(0.25, 4, width=32), min_size=channels, max_size=channels))

    def drawn() -> dict[str, Floats]:
        arrays = {name: draw(npst.arrays(np.float32, shape, elements=values)) for name, shape in shapes.items()}
        arrays |= {n: np.clip(np.abs(a), np.float32(0.25), None) for n, a in arrays.items() if n.endswith("_var")}
        return {
            name: np.where(masks[name], array, np.float32(0)) if name in masks else array
            for name, array in arrays.items()
        }

    card = CARD | {"input": {"mean": means, "inverse_std": stds}}
    return Ticket(network, drawn(), masks, drawn() if draw(st.booleans()) else None, card)


def same_bits(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    return np.array(left, np.float32).tobytes() == np.array(right, np.float32).tobytes()
