"""The native artifact byte for byte: golden files both ways, random tickets through another reader, limits by name."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from export import to_native
from export.network import Network, Node, Parameter
from export.ticket import Ticket, TicketError, load_ticket
from export.to_native import to_native_bytes
from tests.export.tickets import GOLDEN, RECIPE, described, golden_ticket, small_parts, small_ticket, tickets
from tests.export.tkt_reader import read

NAMES = ("tiny", "wide")


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_is_what_the_exporter_writes(name: str) -> None:
    ticket = golden_ticket(name)
    assert ticket.hash == described(name)["ticket_hash"], "the ticket's identity changed: safetensors' layout, or ours?"
    assert to_native_bytes(ticket) == (GOLDEN / f"{name}.tkt").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_is_what_its_description_says(name: str) -> None:
    d, found = described(name), read((GOLDEN / f"{name}.tkt").read_bytes())
    assert (found["ticket_hash"], found["card"], found["buffers"]) == (d["ticket_hash"], d["card"], d["buffers"])
    names = [p["name"] for p in d["parameters"]]
    nodes = [
        {"op": n["op"], "inputs": n["inputs"], "params": [names.index(p) for p in n["params"]]} for n in d["nodes"]
    ]
    assert found["nodes"] == nodes
    assert [p.get("live") for p in found["parameters"]] == [p.get("live") for p in d["parameters"]]
    for kind in ("init", "trained"):
        for got, said in zip(found["parameters"], d["parameters"], strict=True):
            assert same_bits(got.get(kind), said.get(kind))


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_is_what_its_script_writes(name: str) -> None:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.artifact(described(name)) == (GOLDEN / f"{name}.tkt").read_bytes()


def same_bits(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    return np.array(left, np.float32).tobytes() == np.array(right, np.float32).tobytes()


@given(tickets())
def test_every_live_weight_is_in_its_place(ticket: Ticket) -> None:
    """Patterns, values of every bit, shapes and normalisation come back as they were, zeros and empty rows included."""
    found = read(to_native_bytes(ticket))
    assert found["ticket_hash"] == ticket.hash
    assert found["card"] == dict(ticket.card)
    assert found["buffers"] == [list(shape) for shape in ticket.network.shapes]
    assert found["mean"] == ticket.card["input"]["mean"]
    assert found["inverse_std"] == ticket.card["input"]["inverse_std"]
    assert len(found["parameters"]) == len(ticket.network.parameters)
    for parameter, got in zip(ticket.network.parameters, found["parameters"], strict=True):
        mask = ticket.masks.get(parameter.name, np.ones(parameter.shape, np.bool_))
        assert got["rows"] * got["cols"] == parameter.size
        assert got["encoding"] == (parameter.name in ticket.masks)
        assert got.get("live", np.argwhere(mask).tolist()) == np.argwhere(mask).tolist()
        assert same_bits(got["init"], ticket.init[parameter.name][mask])
        assert same_bits(got.get("trained"), ticket.trained and ticket.trained[parameter.name][mask])


@given(tickets())
def test_nodes_come_back(ticket: Ticket) -> None:
    number = {parameter.name: index for index, parameter in enumerate(ticket.network.parameters)}
    for node, got in zip(ticket.network.nodes, read(to_native_bytes(ticket))["nodes"], strict=True):
        params = [number[node.params[role]] for role in ("weight", "bias") if role in node.params]
        assert got == {"op": node.op, "inputs": list(node.inputs), "params": params}


def test_equal_tickets_give_equal_bytes(tmp_path: Path) -> None:
    ticket = golden_ticket("tiny")
    again = load_ticket(ticket.save(tmp_path / "ticket"))
    assert to_native_bytes(again) == to_native_bytes(ticket) == to_native_bytes(ticket)


@pytest.mark.parametrize(("cols", "encoding"), [(65535, 1), (65536, 1), (65537, 2)])
def test_columns_are_u16_as_long_as_they_fit(cols: int, encoding: int) -> None:
    network = Network((cols,), (Parameter("w", (2, cols), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
    mask = np.zeros((2, cols), np.bool_)
    mask[1, [0, cols - 1]] = True
    ticket = Ticket(network, {"w": mask.astype(np.float32)}, {"w": mask}, card=small_parts()["card"])
    (parameter,) = read(to_native_bytes(ticket))["parameters"]
    assert parameter["encoding"] == encoding
    assert parameter["live"] == [[1, 0], [1, cols - 1]]


def test_recipe_is_written_as_it_stands() -> None:
    floats = [RECIPE[key] for key in ("learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon")]
    rounded = [float(np.float32(value)) for value in floats]
    assert read(to_native_bytes(small_ticket()))["recipe"] == (2, 60, *rounded, 10, 0)


def with_recipe(**changes: Any) -> Ticket:
    return small_ticket(card=small_parts()["card"] | {"recipe": RECIPE | changes})


def with_input(mean: Any, inverse_std: Any) -> Ticket:
    return small_ticket(card=small_parts()["card"] | {"input": {"mean": mean, "inverse_std": inverse_std}})


def without(key: str) -> Ticket:
    return small_ticket(card={name: part for name, part in small_parts()["card"].items() if name != key})


def pruned_bias() -> Ticket:
    network = Network(
        (2,),
        (Parameter("w", (2, 2), True), Parameter("b", (2,), True)),
        (Node("linear", "fc", (0,), {"weight": "w", "bias": "b"}),),
    )
    values = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    return Ticket(network, values, {"b": np.ones(2, np.bool_)}, card=small_parts()["card"])


BROKEN = {
    "card recipe: None, but it needs exactly optimizer, batch": without("recipe"),
    "card input: None, but it needs exactly mean, inverse_std": without("input"),
    "'nesterov', 'optimizer', 'weight_decay'], but it needs exactly": with_recipe(nesterov=True),
    "optimizer 'adamw'; known are sgd, adam": with_recipe(optimizer="adamw"),
    "batch 0 must be a whole number in 1..65536": with_recipe(batch=0),
    "batch 65537": with_recipe(batch=65537),
    "batch 60.0": with_recipe(batch=60.0),
    "batch True": with_recipe(batch=True),
    "epochs -1": with_recipe(epochs=-1),
    "epochs 4294967296": with_recipe(epochs=2**32),
    "learning_rate -0.1 must be in [0, inf) as f32": with_recipe(learning_rate=-0.1),
    "learning_rate 1e+39": with_recipe(learning_rate=1e39),
    "learning_rate 1000": with_recipe(learning_rate=10**400),
    "learning_rate '0.1'": with_recipe(learning_rate="0.1"),
    "momentum 1.0 must be in [0, 1) as f32": with_recipe(momentum=1.0),
    "beta1 0.99999999": with_recipe(beta1=0.99999999),  # 1 as f32
    "beta2 -0.5": with_recipe(beta2=-0.5),
    "weight_decay None": with_recipe(weight_decay=None),
    "epsilon 0 must be in (0, inf) as f32": with_recipe(epsilon=0),
    "epsilon 1e-50": with_recipe(epsilon=1e-50),  # 0 as f32
    "mean [] must be a list of finite numbers": with_input([], []),
    "mean 0.5 must be": with_input(0.5, 2.0),
    "inverse_std [1e+39] must be": with_input([0.5], [1e39]),
    "2 means and 1 inverse_stds for a sample of shape (2, 2); give 1 of each, or 2": with_input([0.5, 1], [2]),
    "3 means and 3 inverse_stds": with_input([1, 2, 3], [1, 2, 3]),
    "inverse_std 0.0 must be above 0": with_input([1, 2], [1, 0]),
    "parameter 'b': a pruned bias has no place": pruned_bias(),
    "bytes; the format holds at most 1048576; shorten it": small_ticket(
        card=small_parts()["card"] | {"x": "x" * 2**20}
    ),
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_does_not_fit_the_format_is_named(text: str) -> None:
    with pytest.raises(TicketError) as caught:
        to_native_bytes(BROKEN[text])
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("MAX_NODES", "the network has 4 nodes; the format holds 1 to 1"),
        ("MAX_PARAMETERS", "the network has 3 parameters; the format holds 1 to 1"),
        ("MAX_BUFFER_ELEMENTS", "buffer 0: shape (2, 2) has 4 elements; the format holds at most 1"),
        ("MAX_PARAMETER_ELEMENTS", "parameter 'a.weight': shape (3, 4) has 12 elements; the format holds at most 1"),
        ("MAX_FILE_BYTES", "bytes, but at most 1 fit"),
    ],
)
def test_limits_of_the_format_are_named(monkeypatch: pytest.MonkeyPatch, limit: str, text: str) -> None:
    monkeypatch.setattr(to_native, limit, 1)
    with pytest.raises(TicketError) as caught:
        to_native_bytes(small_ticket())
    assert text in str(caught.value)


def test_a_network_without_parameters_is_refused() -> None:
    network = Network((2,), (), (Node("relu", "r", (0,)),))
    with pytest.raises(TicketError, match="the network has 0 parameters"):
        to_native_bytes(Ticket(network, {}, {}, card=small_parts()["card"]))


def test_limits_are_those_of_the_specification() -> None:
    text = (Path(to_native.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
    assert math.log2(to_native.MAX_BUFFER_ELEMENTS) == 24
    assert "at most 2^24 elements" in text
    assert math.log2(to_native.MAX_PARAMETER_ELEMENTS) == 28
    assert "rows * cols <= 2^28" in text
    assert f"1 <= node_count <= {to_native.MAX_NODES}" in text
    assert f"`u32 count` (1..{to_native.MAX_PARAMETERS})" in text
    assert to_native.MAX_CARD_BYTES == 2**20
    assert "At most 1 MiB" in text
    assert to_native.MAX_FILE_BYTES == 2**31 - 1
    assert "<= 2^31 - 1" in text


def test_a_card_with_any_text_is_valid_utf8() -> None:
    card = small_parts()["card"] | {"labels": ["café", "\ud800"]}  # half a surrogate pair has no UTF-8
    assert read(to_native_bytes(small_ticket(card=card)))["card"] == card
