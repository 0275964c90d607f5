"""Tickets for tests: built by hand, from the golden descriptions, and drawn at random by hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from export.network import Network, Node, Parameter
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
CARD = {"task": "test", "input": {"mean": [0.25], "inverse_std": [4.0]}, "recipe": RECIPE}


def small_network() -> Network:
    return Network(
        (2, 2),
        (Parameter("a.weight", (3, 4), True), Parameter("a.bias", (3,)), Parameter("b.weight", (2, 3), True)),
        (
            Node("flatten", "flat", (0,)),
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


def described(name: str) -> dict[str, Any]:
    """The description of a golden file."""
    description: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return description


def golden_ticket(name: str) -> Ticket:
    d = described(name)
    nodes = tuple(
        Node(n["op"], n["name"], tuple(n["inputs"]), dict(zip(("weight", "bias"), n["params"], strict=False)))
        for n in d["nodes"]
    )
    parameters = tuple(Parameter(p["name"], tuple(p["shape"]), p["prunable"]) for p in d["parameters"])
    masks = {p["name"]: _mask(p) for p in d["parameters"] if "live" in p}
    values = {
        kind: {p["name"]: _spread(p, masks.get(p["name"]), kind) for p in d["parameters"]}
        for kind in ("init", "trained")
        if kind in d["parameters"][0]
    }
    network = Network(tuple(d["buffers"][0]), parameters, nodes)
    return Ticket(network, values["init"], masks, values.get("trained"), d["card"])


def _mask(parameter: dict[str, Any]) -> Bits:
    mask = np.zeros(parameter["shape"], np.bool_)
    for row, column in parameter["live"]:
        mask[row, column] = True
    return mask


def _spread(parameter: dict[str, Any], mask: Bits | None, kind: str) -> Floats:
    dense = np.zeros(parameter["shape"], np.float32)
    dense[mask if mask is not None else np.ones(dense.shape, np.bool_)] = parameter[kind]
    return dense


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MILD_FLOATS = st.floats(-2, 2, width=32)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Multilayer perceptrons: samples of rank 1 to 4, layers of 1 to 5, biases, skips and flattens here and there."""
    input_shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    nodes = [Node("flatten", "flat", (0,))] if len(input_shape) > 1 or draw(st.booleans()) else []
    parameters: list[Parameter] = []
    width, skip = int(np.prod(input_shape)), -1
    layers = draw(st.integers(1, 3))
    for layer in range(layers):
        last = layer == layers - 1
        out = draw(st.integers(2 if last else 1, 5))
        params = {"weight": f"fc{layer}.weight"} | ({"bias": f"fc{layer}.bias"} if draw(st.booleans()) else {})
        parameters.append(Parameter(params["weight"], (out, width), True))
        parameters += [Parameter(params["bias"], (out,))] if "bias" in params else []
        nodes.append(Node("linear", f"fc{layer}", (len(nodes),), params))
        if not last:
            skip = len(nodes)
            nodes.append(Node("relu", f"act{layer}", (skip,)))
            nodes += [Node("add", f"skip{layer}", (skip, skip + 1))] if draw(st.booleans()) else []
        width = out
    return Network(input_shape, tuple(parameters), tuple(nodes))


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
        return {
            name: np.where(masks[name], array, np.float32(0)) if name in masks else array
            for name, array in arrays.items()
        }

    card = CARD | {"input": {"mean": means, "inverse_std": stds}}
    return Ticket(network, drawn(), masks, drawn() if draw(st.booleans()) else None, card)
