"""The native artifact byte for byte: golden files both ways, random tickets through another reader, limits by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from export import to_native
from export.compact import compact
from export.network import Network, Node, Parameter
from export.ticket import Ticket, TicketError, load_ticket
from export.to_native import to_native_bytes
from tests.architectures import ARCHITECTURES
from tests.export.architecture_tickets import architecture_ticket
from tests.export.tickets import (
    GOLDEN,
    RECIPE,
    Builder,
    dead_unit_ticket,
    described,
    golden_ticket,
    same_bits,
    small_network,
    small_parts,
    small_ticket,
    tickets,
)
from tests.export.tkt_reader import read

ROLES = ("weight", "bias", "running_mean", "running_var")
NAMES = ("every", "masked", "tiny", "wide")


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
        {
            "op": n["op"],
            "inputs": n["inputs"],
            "params": [names.index(p) for p in n["params"]],
            "attrs": rounded(n.get("attrs", {})),
        }
        for n in d["nodes"]
    ]
    assert found["nodes"] == nodes
    assert found["loss"] == d["loss"]
    said = dict(d["card"]["recipe"])
    weights = said.pop("class_weights", None)
    assert found["recipe"] | rounded(said) == found["recipe"]
    assert found["class_weights"] == (weights and [float(np.float32(w)) for w in weights])
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


def rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Floats as f32."""
    return {name: float(np.float32(v)) if isinstance(v, float) else v for name, v in settings.items()}


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
        assert got["rows"] == parameter.shape[0]
        assert got["rows"] * got["cols"] == parameter.size
        assert (got["encoding"] != 0) == (parameter.name in ticket.masks)
        live = np.argwhere(mask.reshape(got["rows"], got["cols"])).tolist()
        places = got.get("live", live)  # of blocks column by column
        assert sorted(places) == live
        at = [row * got["cols"] + column for row, column in places]
        assert same_bits(got["init"], ticket.init[parameter.name].ravel()[at])
        assert same_bits(got.get("trained"), ticket.trained and ticket.trained[parameter.name].ravel()[at])


@given(tickets())
def test_nodes_come_back(ticket: Ticket) -> None:
    number = {parameter.name: index for index, parameter in enumerate(ticket.network.parameters)}
    for node, got in zip(ticket.network.nodes, read(to_native_bytes(ticket))["nodes"], strict=True):
        params = [number[node.params[role]] for role in ROLES if role in node.params]
        attrs = {name: value for name, value in node.attrs.items() if name != "shape"}
        assert got == {"op": node.op, "inputs": list(node.inputs), "params": params, "attrs": rounded(attrs)}


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


PLAIN = {
    "nesterov": 0,
    "label_smoothing": 0.0,
    "clip_norm": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
    "schedule_steps": 0,
    "schedule_factor": 1.0,
}


def test_recipe_is_written_as_it_stands() -> None:
    """A recipe of the nine keys that every card has leaves all else off."""
    found = read(to_native_bytes(small_ticket()))
    assert found["recipe"] == rounded(RECIPE) | PLAIN
    assert found["class_weights"] is None


OPTIONS: list[dict[str, Any]] = [
    {"optimizer": "adamw"},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    {"nesterov": False},
    {"label_smoothing": 0.1},
    {"clip_norm": 2.5},
    {"warmup_steps": 7},
    {"schedule": "constant", "schedule_steps": 0, "schedule_factor": 1},
    {"schedule": "step", "schedule_steps": 30, "schedule_factor": 0.3, "warmup_steps": 2**32 - 1},
    {"schedule": "cosine", "schedule_steps": 100, "schedule_factor": 0},
    {"schedule": "linear", "schedule_steps": 100, "schedule_factor": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_a_recipe_are_written(options: dict[str, Any]) -> None:
    assert read(to_native_bytes(with_recipe(**options)))["recipe"] == rounded(RECIPE | PLAIN | options)


@pytest.mark.parametrize(("schedule", "factor"), [("step", 0.1), ("cosine", 0.0), ("linear", 0.0)])
def test_a_schedule_has_its_usual_factor(schedule: str, factor: float) -> None:
    found = read(to_native_bytes(with_recipe(schedule=schedule, schedule_steps=9)))["recipe"]
    assert found["schedule_factor"] == float(np.float32(factor))


def test_the_origin_is_written_for_what_was_compacted() -> None:
    ticket = small_ticket()
    assert read(to_native_bytes(ticket))["origin"] is None
    assert read(to_native_bytes(compact(ticket)))["origin"] is None  # nothing vanished
    ticket = dead_unit_ticket()
    found = read(to_native_bytes(compact(ticket)))
    assert found["origin"] == (12 + 3 + 6, 12 + 6)
    assert found["ticket_hash"] == ticket.hash
    assert [p["rows"] for p in found["parameters"]] == [2, 2, 2]


def test_class_weights_are_a_section_of_their_own() -> None:
    assert read(to_native_bytes(with_recipe(class_weights=[0, 2.5])))["class_weights"] == [0.0, 2.5]
    with_trained = small_ticket(
        trained=small_parts()["init"], card=small_parts()["card"] | {"recipe": RECIPE | {"class_weights": [1, 3]}}
    )
    assert read(to_native_bytes(with_trained))["class_weights"] == [1.0, 3.0]


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_the_loss_is_written(loss: str) -> None:
    assert read(to_native_bytes(with_loss(loss)))["loss"] == loss


def with_loss(loss: str, **changes: Any) -> Ticket:
    return dataclasses.replace(with_recipe(**changes), network=dataclasses.replace(small_network(), loss=loss))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_come_back(name: str) -> None:
    """Every operator's words by their names, parameters in rows of output channels, and running statistics last."""
    ticket = architecture_ticket(name)
    network, found = ticket.network, read(to_native_bytes(ticket))
    number = {parameter.name: index for index, parameter in enumerate(network.parameters)}
    assert found["buffers"] == [list(shape) for shape in network.shapes]
    for node, got in zip(network.nodes, found["nodes"], strict=True):
        attrs = {key: value for key, value in node.attrs.items() if key != "shape"}
        assert (got["op"], got["inputs"], got["attrs"]) == (node.op, list(node.inputs), rounded(attrs))
        assert got["params"] == [number[node.params[role]] for role in ROLES if role in node.params]
    for parameter, got in zip(network.parameters, found["parameters"], strict=True):
        mask = ticket.masks.get(parameter.name, np.ones(parameter.shape, np.bool_))
        matrix = parameter.shape if parameter.prunable else (parameter.size,)
        assert (got["rows"], got["cols"]) == (matrix[0], math.prod(matrix[1:]))
        assert same_bits(got["init"], ticket.init[parameter.name][mask])
        if parameter.name in ticket.masks:
            assert got["live"] == np.argwhere(mask.reshape(got["rows"], got["cols"])).tolist()


def test_a_layer_norm_of_two_dimensions_is_a_list() -> None:
    builder = Builder((2, 3))
    builder.add("layer_norm", params={"weight": (2, 3), "bias": (2, 3)}, epsilon=0.5, dimensions=2)
    builder.add("reshape", shape=(6,))
    network = builder.network()
    values = {p.name: np.arange(6, dtype=np.float32).reshape(2, 3) for p in network.parameters}
    found = read(to_native_bytes(Ticket(network, values, {}, card=small_parts()["card"])))
    assert [(p["rows"], p["cols"], p["init"]) for p in found["parameters"]] == [(6, 1, [0, 1, 2, 3, 4, 5])] * 2


def with_recipe(**changes: Any) -> Ticket:
    return small_ticket(card=small_parts()["card"] | {"recipe": RECIPE | changes})


def with_input(mean: Any, inverse_std: Any) -> Ticket:
    return small_ticket(card=small_parts()["card"] | {"input": {"mean": mean, "inverse_std": inverse_std}})


def without(key: str) -> Ticket:
    return small_ticket(card={name: part for name, part in small_parts()["card"].items() if name != key})


def reading(mean: float, inverse_std: float) -> Ticket:
    """A ticket whose network begins with an embedding."""
    builder = Builder((3,))
    builder.add("embedding", params={"weight": (5, 2)})
    builder.add("reshape", shape=(6,))
    weight = {"embedding0.weight": np.ones((5, 2), np.float32)}
    card = small_parts()["card"] | {"input": {"mean": [mean], "inverse_std": [inverse_std]}}
    return Ticket(builder.network(), weight, {}, card=card)


def test_an_embedding_reads_samples_as_they_are() -> None:
    assert read(to_native_bytes(reading(0.0, 1.0)))["nodes"][0]["op"] == "embedding"


BROKEN = {
    "card recipe: None, but it needs exactly optimizer, batch": without("recipe"),
    "card input: None, but it needs exactly mean, inverse_std": without("input"),
    "'momentum', 'nestorov', 'optimizer', 'weight_decay'], but it needs exactly": with_recipe(nestorov=True),
    "epochs, and may have nesterov, label_smoothing, clip_norm, schedule, warmup_steps": with_recipe(betas=1),
    "optimizer 'lamb'; known are sgd, adam, adamw": with_recipe(optimizer="lamb"),
    "optimizer ['sgd']; known are": with_recipe(optimizer=["sgd"]),
    "nesterov True with momentum 0.0; it is true or false, and true needs momentum > 0": with_recipe(nesterov=True),
    "nesterov 1 with momentum": with_recipe(nesterov=1, momentum=0.9),
    "label_smoothing 1.0 must be in [0, 1) as f32": with_recipe(label_smoothing=1.0),
    "label_smoothing 0.10000000149011612 with the loss mse; only cross_entropy": with_loss("mse", label_smoothing=0.1),
    "clip_norm -1 must be in [0, inf) as f32": with_recipe(clip_norm=-1),
    "schedule 'exponential'; known are constant, step, cosine, linear": with_recipe(schedule="exponential"),
    "schedule None; known are": with_recipe(schedule=None),
    "schedule 'cosine' with schedule_steps 0; give the steps it takes": with_recipe(schedule="cosine"),
    "schedule 'constant' with schedule_steps 5 and schedule_factor 1.0; leave both out": with_recipe(schedule_steps=5),
    "schedule 'constant' with schedule_steps 0 and schedule_factor 0.5": with_recipe(schedule_factor=0.5),
    "schedule_factor 1.5 must be in [0, 1] as f32": with_recipe(schedule="step", schedule_steps=5, schedule_factor=1.5),
    "warmup_steps 2.0 must be a whole number": with_recipe(warmup_steps=2.0),
    "schedule_steps -1 must be a whole number": with_recipe(schedule_steps=-1),
    "class_weights [1.0]; give one finite weight >= 0 for each of the 2 classes, not all 0": with_recipe(
        class_weights=[1.0]
    ),
    "class_weights [0, 0.0]": with_recipe(class_weights=[0, 0.0]),
    "class_weights [1, -1]": with_recipe(class_weights=[1, -1]),
    "class_weights [1, 1e+39]": with_recipe(class_weights=[1, 1e39]),
    "class_weights [1, 'x']": with_recipe(class_weights=[1, "x"]),
    "class_weights None": with_recipe(class_weights=None),
    "class_weights with the loss bce; only cross_entropy has classes": with_loss("bce", class_weights=[1, 1]),
    "whole numbers, which must stay as they are; give mean 0 and inverse_std 1": reading(0.0, 2.0),
    "card input: the network's embedding reads whole numbers": reading(0.5, 1.0),
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
    "shorten it, or export with --no-compact": small_ticket(card=small_parts()["card"] | {"compaction": "x" * 2**20}),
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
