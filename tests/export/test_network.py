"""The network's rules, each by name, and its JSON form: equal after a round trip, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.network import LOSSES, OPERATORS, Network, NetworkError, Node, Parameter
from export.to_native import LOSS_CODES, OPERATOR_CODES
from tests.export.tickets import Builder, networks, norm_params, small_network


def document() -> dict[str, Any]:
    return json.loads(json.dumps(small_network().to_json()))  # type: ignore[no-any-return]


def test_shapes_are_inferred() -> None:
    network = small_network()
    assert network.shapes == ((2, 2), (4,), (3,), (3,), (2,))
    assert network.output_shape == (2,)
    assert network.prunable == ("a.weight", "b.weight")
    assert [parameter.size for parameter in network.parameters] == [12, 3, 6]


@given(networks())
def test_json_round_trip(network: Network) -> None:
    again = Network.from_json(json.loads(json.dumps(network.to_json())))
    assert again == network
    assert again.shapes == network.shapes


def test_network_is_frozen_and_pickles() -> None:
    network = small_network()
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.loss = "mse"  # type: ignore[misc]
    with pytest.raises(TypeError):
        network.nodes[1].params["weight"] = "other"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(network)) == network


def spoil(*path: Any, value: Any) -> dict[str, Any]:
    """The small network's document with one place replaced."""
    whole = document()
    place: Any = whole
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return whole


WEIGHT = {"name": "a.weight", "shape": [3, 4], "prunable": True}
BROKEN = {
    "loss 'hinge' is not known; known are cross_entropy, mse, bce": spoil("loss", value="hinge"),
    "input shape () must have": spoil("input_shape", value=[]),
    "input shape (2, 0) must have": spoil("input_shape", value=[2, 0]),
    "input shape (1, 1, 1, 2, 2) must have": spoil("input_shape", value=[1, 1, 1, 2, 2]),
    "input shape (2.0, 2) must have 1 to 4 whole": spoil("input_shape", value=[2.0, 2]),
    "parameter 'a.weight' is declared 2 and used 1 times": spoil("parameters", 2, value=WEIGHT),
    "parameter 'a.weight' is declared 1 and used 2 times": spoil("nodes", 3, "params", "weight", value="a.weight"),
    "parameter 'a.bias' is declared 1 and used 0 times": spoil("nodes", 1, "params", value={"weight": "a.weight"}),
    "parameter 'c' is used by a node but not declared": spoil("nodes", 2, "params", value={"weight": "c"}),
    "parameter 'a.weight': shape (3, 0)": spoil("parameters", 0, "shape", value=[3, 0]),
    "parameter 'a.weight': shape (3, True)": spoil("parameters", 0, "shape", value=[3, True]),
    "parameter 'a.weight': shape (3, 4), prunable 1 and state False": spoil("parameters", 0, "prunable", value=1),
    "parameter 7": spoil("parameters", 0, "name", value=7),
    "node 'act': operator 'softsign' is not known": spoil("nodes", 2, "op", value="softsign"),
    "node 7: operator 'relu'": spoil("nodes", 2, "name", value=7),
    "relu 'act': inputs (3,), but it takes 1 of 0..2": spoil("nodes", 2, "inputs", value=[3]),
    "relu 'act': inputs (-1,)": spoil("nodes", 2, "inputs", value=[-1]),
    "relu 'act': inputs (2.0,)": spoil("nodes", 2, "inputs", value=[2.0]),
    "relu 'act': inputs (2, 2)": spoil("nodes", 2, "inputs", value=[2, 2]),
    "relu 'act': attributes {'alpha': 1}, but it takes none": spoil("nodes", 2, "attrs", value={"alpha": 1}),
    "linear 'a': parameter roles ['bias', 'weights'], but it takes weight or weight, bias": spoil(
        "nodes", 1, "params", value={"weights": "a.weight", "bias": "a.bias"}
    ),
    "linear 'a': parameter roles ['bias']": spoil("nodes", 1, "params", value={"bias": "a.bias"})
    | {"parameters": document()["parameters"][1:]},
    "linear 'a': weight (3, 5) does not fit an input of shape (4,)": spoil("parameters", 0, "shape", value=[3, 5]),
    "linear 'a': weight (3, 4) does not fit an input of shape (2, 2)": spoil("nodes", 1, "inputs", value=[0]),
    "linear 'a': bias shape (4,) but 3 outputs": spoil("parameters", 1, "shape", value=[4]),
    "add 'act': inputs of shapes [(3,), (4,)] must be equal": spoil(
        "nodes", 2, value={"op": "add", "name": "act", "inputs": [2, 1], "params": {}, "attrs": {}}
    ),
    "reshape 'flat': attributes {}, but it takes shape": spoil("nodes", 0, "attrs", value={}),
    "reshape 'flat': shape (2, 3) holds 6 elements, but its input (2, 2) another number": spoil(
        "nodes", 0, "attrs", "shape", value=[2, 3]
    ),
    "reshape 'flat': shape (4, 0) must be 1 to 4 whole dimensions": spoil("nodes", 0, "attrs", "shape", value=[4, 0]),
    "reshape 'flat': shape 4 must be 1 to 4 whole dimensions": spoil("nodes", 0, "attrs", "shape", value=4),
    "parameter 'a.bias': the bias of linear 'a' cannot be pruned; set prunable false": spoil(
        "parameters", 1, "prunable", value=True
    ),
    "parameter 'a.weight': the weight of linear 'a' is not state": spoil("parameters", 0, "state", value=True),
    "parameter 'a.weight': shape (3, 4), prunable True and state 1": spoil("parameters", 0, "state", value=1),
    "not a network: it holds more than this version knows, in {'input_shape'": spoil(
        "parameters", 0, "state", value=False
    ),
    "buffer 3 is never read": spoil("nodes", 3, "inputs", value=[2]),
    "a network needs at least one node": spoil("nodes", value=[]) | {"parameters": []},
    "the output has shape (1,)": spoil("parameters", 2, "shape", value=[1, 3]),
    "the output has shape (2, 2)": {
        "input_shape": [2, 2],
        "parameters": [],
        "nodes": [{"op": "relu", "name": "r", "inputs": [0], "params": {}, "attrs": {}}],
        "loss": "cross_entropy",
    },
    "not a network: KeyError 'loss'": {key: value for key, value in document().items() if key != "loss"},
    "not a network: TypeError": spoil("nodes", value=[1]),
    "not a network: it holds more than this version knows": document() | {"quantised": True},
}


@pytest.mark.parametrize("text", BROKEN)
def test_each_broken_rule_is_named(text: str) -> None:
    with pytest.raises(NetworkError) as caught:
        Network.from_json(BROKEN[text])
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [1, 2], {"nodes": 1}])
def test_foreign_json_is_refused(value: Any) -> None:
    with pytest.raises(NetworkError, match="not a network"):
        Network.from_json(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from(("relu", "a.weight", "")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("weight", "op", "x")), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inner for place in places(item, (*path, key))]


@given(st.sampled_from(places(document())), JSON)
def test_any_other_value_anywhere_is_refused_or_kept(path: tuple[Any, ...], value: Any) -> None:
    """Nothing but NetworkError may come out, and what is accepted is written again as it was read."""
    spoiled = spoil(*path, value=value)
    try:
        network = Network.from_json(spoiled)
    except NetworkError:
        return
    assert json.dumps(network.to_json()) == json.dumps(spoiled)


def test_relu_reads_the_input_itself() -> None:
    network = Network((2,), (), (Node("relu", "r", (0,)),))
    assert network.output_shape == (2,)


def test_every_operator_and_loss_has_a_code_in_the_native_format() -> None:
    assert set(OPERATOR_CODES) == set(OPERATORS)
    assert len(set(OPERATOR_CODES.values())) == len(OPERATOR_CODES)
    assert set(LOSS_CODES) == set(LOSSES)


def test_losses_say_how_many_outputs_they_need() -> None:
    nodes = (Node("relu", "r", (0,)),)
    for loss in ("mse", "bce"):
        assert Network((1,), (), nodes, loss).output_shape == (1,)
        with pytest.raises(NetworkError, match=rf"shape \(2, 2\); {loss} needs one dimension a sample; flatten it"):
            Network((2, 2), (), nodes, loss)
    with pytest.raises(NetworkError, match="cross-entropy needs one score for each of >= 2 classes"):
        Network((1,), (), nodes)


def normed() -> Network:
    builder = Builder((4, 3))
    builder.add("batch_norm", params=norm_params(4), epsilon=1e-5, momentum=0.1, frozen=0)
    builder.add("global_avg_pool")
    return builder.network()


def test_state_is_told_in_json_and_comes_back() -> None:
    network = normed()
    written = network.to_json()["parameters"]
    assert [p.get("state", False) for p in written] == [False, False, True, True]
    assert "state" not in written[0]
    assert Network.from_json(json.loads(json.dumps(network.to_json()))) == network


def test_state_comes_last_and_is_said_to_be_state() -> None:
    network = normed()
    weight, bias, mean, variance = network.parameters
    with pytest.raises(NetworkError, match=r"'batch_norm0\.bias' follows the state 'batch_norm0\.running_mean'"):
        Network((4, 3), (weight, mean, bias, variance), network.nodes)
    unsaid = Parameter(mean.name, mean.shape)
    with pytest.raises(NetworkError, match="the running_mean of batch_norm 'batch_norm0' is state; say so"):
        Network((4, 3), (weight, bias, unsaid, variance), network.nodes)
    pruned = Parameter(weight.name, weight.shape, True)
    with pytest.raises(NetworkError, match="the weight of batch_norm 'batch_norm0' cannot be pruned"):
        Network((4, 3), (pruned, bias, mean, variance), network.nodes)
