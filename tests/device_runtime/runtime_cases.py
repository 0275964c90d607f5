"""Tickets for tests of runtimes that an app ships already: a network for each operator, and values by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.gate import without_dropout
from export.layout import layouts
from export.network import OPERATORS, Network
from export.ticket import Floats, Ticket
from tests.export.tickets import (
    ACTIVATIONS,
    CARD,
    RECIPE,
    Builder,
    golden_ticket,
    norm_params,
    window,
)

CLASSES = 4


def dense(builder: Builder, out: int) -> Builder:
    if len(builder.shape) > 1:
        builder.add("reshape", shape=(int(np.prod(builder.shape)),))
    builder.add("linear", params={"weight": (out, builder.shape[0]), "bias": (out,)})
    return builder


def conv(shape: tuple[int, ...], out: int, groups: int = 1, **settings: int) -> Builder:
    builder = Builder(shape)
    settings = {"kernel": 3, "stride": 1, "dilation": 1, "pad": 1, **settings}
    params = {"weight": (out, shape[0] // groups, *[settings["kernel"]] * (len(shape) - 1)), "bias": (out,)}
    builder.add("conv", params=params, groups=groups, **window(shape, **settings))
    return builder


def then(builder: Builder, op: str, *others: int, loss: str = "cross_entropy", **settings: Any) -> Network:
    builder.add(op, *others, **settings)
    return dense(builder, CLASSES).network(loss)


def joined(op: str) -> Network:
    builder = dense(Builder((6,)), 8)
    before = builder.at
    builder.add("tanh")
    return then(builder, op, before)


def pooled(op: str, shape: tuple[int, ...], kernel: int, stride: int, pad: int, **settings: Any) -> Network:
    builder = conv(shape, 4)
    return then(builder, op, **settings, **window(builder.shape, kernel=kernel, stride=stride, pad=pad))


def normed(builder: Builder, frozen: int = 0) -> Network:
    return then(builder, "batch_norm", params=norm_params(builder.shape[0]), epsilon=0.01, momentum=0.1, frozen=frozen)


def layer_normed(builder: Builder, dimensions: int, *, affine: bool) -> Network:
    params = dict.fromkeys(("weight", "bias"), builder.shape[-dimensions:]) if affine else {}
    return then(builder, "layer_norm", params=params, epsilon=0.01, dimensions=dimensions)


MLP = then(dense(Builder((5,)), 8), "relu")
CASES: dict[str, Network] = {
    "linear": MLP,
    **{
        f"{op} {attrs}": then(dense(Builder((6,)), 8), op, **dict[str, Any](attrs))
        for op, attrs in (*ACTIVATIONS, ("softmax", {}))
        if op != "dropout"
    },
    "dropout of nothing": then(dense(Builder((6,)), 8), "dropout", probability=0.0),
    **{op: joined(op) for op in ("add", "mul", "concat")},
    "conv of one dimension": then(conv((2, 7), 3), "relu"),
    "conv, stride, dilation, groups": then(conv((4, 7, 8), 4, 2, stride=2, dilation=2, pad=2), "relu"),
    "conv, depthwise": then(conv((4, 7, 8), 4, 4), "relu"),
    "max_pool": pooled("max_pool", (2, 7, 8), 2, 2, 0),
    "max_pool, padded": pooled("max_pool", (2, 7, 8), 3, 2, 1),
    "max_pool of one dimension": pooled("max_pool", (2, 9), 3, 2, 1),
    "avg_pool": pooled("avg_pool", (2, 7, 8), 2, 2, 0, count_include_pad=1),
    "avg_pool, padding counted": pooled("avg_pool", (2, 7, 8), 3, 2, 1, count_include_pad=1),
    "avg_pool, padding not counted": pooled("avg_pool", (2, 7, 8), 3, 2, 1, count_include_pad=0),
    "avg_pool of one dimension": pooled("avg_pool", (2, 9), 3, 2, 1, count_include_pad=0),
    "global_avg_pool": then(conv((2, 7, 8), 6), "global_avg_pool"),
    "global_avg_pool of one dimension": then(conv((2, 7), 6), "global_avg_pool"),
    "batch_norm of images": normed(conv((2, 5, 4), 4)),
    "batch_norm of signals": normed(conv((2, 5), 4)),
    "batch_norm of vectors": normed(dense(Builder((6,)), 8)),
    "batch_norm, frozen": normed(conv((2, 5, 4), 4), frozen=1),
    "layer_norm": layer_normed(dense(Builder((6,)), 8), 1, affine=True),
    "layer_norm of two dimensions": layer_normed(conv((2, 5, 4), 4), 2, affine=True),
    "layer_norm of all": layer_normed(conv((2, 5, 4), 4), 3, affine=False),
    "mse": then(dense(Builder((5,)), 8), "tanh", loss="mse"),
    "bce": then(dense(Builder((5,)), 8), "tanh", loss="bce"),
}


def ticket_of(network: Network, seed: int = 0, **recipe: Any) -> Ticket:
    """Half of each weight is pruned; samples are normalised."""
    random = np.random.default_rng(seed)
    init = {p.name: (0.5 * random.normal(size=p.shape)).astype(np.float32) for p in network.parameters}
    init |= {name: np.abs(array) + np.float32(0.5) for name, array in init.items() if name.endswith("_var")}
    masks = {name: random.random(init[name].shape) < 0.5 for name in network.prunable}
    for mask in masks.values():
        mask.flat[0] = True  # one is live
    init |= {name: init[name] * mask for name, mask in masks.items()}
    return Ticket(network, init, masks, card=CARD | {"recipe": {**RECIPE, **recipe}})


def every() -> Ticket:
    """All operators in one network, by AdamW with clipping, smoothing, class weights and a schedule; drops nothing."""
    ticket = without_dropout(golden_ticket("every"))
    assert {node.op for node in ticket.network.nodes} == set(OPERATORS)
    return ticket


def data_of(network: Network, count: int) -> tuple[Floats, Any]:
    random = np.random.default_rng(1)
    x = random.normal(size=(count, *network.input_shape)).astype(np.float32)
    if network.nodes[0].op == "embedding":
        x = random.integers(0, network.parameters[0].shape[0], x.shape).astype(np.float32)
    (classes,) = network.output_shape
    y = random.integers(0, classes, count)
    return x, y if network.loss == "cross_entropy" else np.eye(classes, dtype=np.float32)[y]


def by_parameter(ticket: Ticket, flat: Floats, *, native: bool, state: bool = False) -> dict[str, Floats]:
    """The live values of each parameter, row-major, of what a trainer tells."""
    states = {p.name for p in ticket.network.parameters if p.state}
    found, start = {}, 0
    for name, layout in layouts(ticket.network, ticket.masks).items():
        if name in states and not state:
            continue
        live = np.flatnonzero(ticket.masks[name]) if name in ticket.masks else np.arange(layout.rows * layout.cols)
        places = layout.stored if native else live
        whole = np.zeros(layout.rows * layout.cols, np.float32)
        whole[places] = flat[start : start + len(places)]
        found[name], start = whole[live], start + len(places)
    assert start == len(flat)
    return found


def worst(got: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference, over the largest value of all."""
    assert set(got) == set(expected)
    scale = max(float(np.abs(value).max()) for value in expected.values())
    return max(float(np.abs(got[name] - expected[name]).max()) for name in expected) / scale
