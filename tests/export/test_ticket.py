"""A ticket keeps every bit and every rule: validation by name, the round trip, files that are damaged or half there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from export.ticket import JSON_NAME, WEIGHTS_NAME, Ticket, TicketError, load_ticket
from tests.export.tickets import Builder, golden_ticket, norm_params, small_parts, small_ticket, tickets

NAN = np.array([1, np.nan, 0], np.float32)


def bits(ticket: Ticket) -> dict[str, bytes]:
    """Every array of a ticket as it lies in memory."""
    parts: dict[str, Any] = {"init": ticket.init, "masks": ticket.masks, "trained": ticket.trained or {}}
    return {f"{part}/{name}": array.tobytes() for part, arrays in parts.items() for name, array in arrays.items()}


@given(tickets())
def test_round_trip_keeps_every_bit(tmp_path_factory: pytest.TempPathFactory, ticket: Ticket) -> None:
    path = ticket.save(tmp_path_factory.mktemp("round") / "ticket")
    again = load_ticket(path)
    assert bits(again) == bits(ticket)
    assert again == ticket
    assert again.network == ticket.network
    assert dict(again.card) == dict(ticket.card)
    assert again.hash == ticket.hash == hashlib.sha256((path / JSON_NAME).read_bytes()).hexdigest()


def test_hash_depends_on_every_part_and_not_on_order() -> None:
    ticket = small_ticket()
    parts = small_parts()
    reordered = Ticket(
        **parts | {"init": dict(reversed(parts["init"].items())), "card": dict(reversed(parts["card"].items()))}
    )
    assert reordered.hash == ticket.hash
    mask = parts["masks"]["a.weight"].copy()
    mask[1, 1] = True  # live, with the value 0.0
    others = [
        small_ticket(masks={"a.weight": mask}),
        small_ticket(masks={}),
        small_ticket(init=parts["init"] | {"a.bias": np.array([1, 1, -0.0], np.float32)}),
        small_ticket(init=parts["init"] | {"a.bias": np.array([1, 1, 0], np.float32)}),
        small_ticket(trained=parts["init"]),
        small_ticket(card=parts["card"] | {"task": "other"}),
    ]
    assert len({ticket, *others}) == 1 + len(others)


def test_masks_in_any_order_are_one_ticket() -> None:
    ticket = golden_ticket("tiny")
    reversed_masks = {name: ticket.masks[name] for name in reversed(list(ticket.masks))}
    assert dataclasses.replace(ticket, masks=reversed_masks).hash == ticket.hash


def test_live_zeros_stay_and_pruned_zeros_become_positive(tmp_path: Path) -> None:
    parts = small_parts()
    weight, mask = parts["init"]["a.weight"], parts["masks"]["a.weight"]
    weight[0, 0], weight[0, 3], weight[1, 1] = 0.0, -0.0, -0.0
    again = load_ticket(Ticket(**parts).save(tmp_path / "t")).init["a.weight"]
    assert not np.signbit(again[0, 0])
    assert np.signbit(again[0, 3])
    assert not np.signbit(again[1, 1])
    assert load_ticket(tmp_path / "t").masks["a.weight"].tolist() == mask.tolist()


def test_counts() -> None:
    ticket = small_ticket()
    assert ticket.live == 5
    assert ticket.density == 5 / 12
    assert small_ticket(masks={}).density == 1.0


def test_arrays_are_frozen_copies() -> None:
    parts = small_parts()
    ticket = Ticket(**parts)
    parts["init"]["a.weight"][0, 0] = 99
    parts["masks"]["a.weight"][0, 0] = False
    parts["card"]["recipe"]["batch"] = 1
    assert ticket.init["a.weight"][0, 0] == 1
    assert ticket.masks["a.weight"][0, 0]
    assert ticket.card["recipe"]["batch"] == 60
    for array in (*ticket.init.values(), *ticket.masks.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        ticket.init["a.weight"] = np.zeros(1)  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ticket.card = {}  # type: ignore[misc]


def with_array(part: str, name: str, array: Any) -> dict[str, Any]:
    parts = small_parts()
    parts["trained"] = dict(parts["init"])
    parts[part] = parts[part] | {name: array}
    return parts


def without(part: str, name: str) -> dict[str, Any]:
    parts = small_parts()
    del parts[part][name]
    return parts


FULL = np.ones((3, 4), np.float32)
BROKEN = {
    "mask 'a.bias': not a prunable parameter; prunable are a.weight, b.weight": with_array(
        "masks", "a.bias", np.ones(3, bool)
    ),
    "mask 'a.weight': shape (4, 3) but the network says (3, 4)": with_array("masks", "a.weight", np.ones((4, 3), bool)),
    "mask 'a.weight': no live weight is left": with_array("masks", "a.weight", np.zeros((3, 4), bool)),
    "'a.weight' must be a numpy array of bool, not float32": with_array("masks", "a.weight", FULL),
    "init: parameters ['a.bias', 'b.weight'] but": without("init", "a.weight"),
    "init: parameters ['a.bias', 'a.weight', 'b.weight', 'c'] but": with_array("init", "c", FULL),
    "'a.bias' must be a numpy array of float32, not float64": with_array("init", "a.bias", np.ones(3)),
    "'a.bias' must be a numpy array of float32, not >f4": with_array("init", "a.bias", np.ones(3, ">f4")),
    "'a.bias' must be a numpy array of float32, not <class 'list'>": with_array("init", "a.bias", [1.0, 2.0, 3.0]),
    "init 'a.bias': shape (4,) but the network says (3,)": with_array("init", "a.bias", np.ones(4, np.float32)),
    "init 'a.bias': holds NaN": with_array("init", "a.bias", NAN),
    "init 'a.weight': a pruned weight is not exactly 0": with_array("init", "a.weight", FULL),
    "trained 'a.bias': holds NaN": with_array("trained", "a.bias", NAN),
    "trained 'a.weight': a pruned weight is not exactly 0": with_array("trained", "a.weight", FULL),
    "card: Out of range float values": small_parts() | {"card": {"accuracy": float("nan")}},
    "card: Object of type float32": small_parts() | {"card": {"accuracy": np.float32(1)}},
    "card: int, but": small_parts() | {"card": 3},
}


@pytest.mark.parametrize("text", BROKEN)
def test_each_broken_rule_is_named(text: str) -> None:
    with pytest.raises(TicketError) as caught:
        Ticket(**BROKEN[text])
    assert text in str(caught.value)


def test_a_variance_is_never_negative() -> None:
    builder = Builder((3,))
    builder.add("batch_norm", params=norm_params(3), epsilon=1e-5, momentum=0.1, frozen=0)
    good = {p.name: np.zeros(3, np.float32) for p in builder.network().parameters}
    bad = good | {"batch_norm0.running_var": np.array([1, -0.5, 0], np.float32)}
    assert Ticket(builder.network(), good, {}, good).trained is not None
    with pytest.raises(TicketError, match=r"init 'batch_norm0\.running_var': a variance of -0\.5 is below 0"):
        Ticket(builder.network(), bad, {})
    with pytest.raises(TicketError, match=r"trained 'batch_norm0\.running_var': a variance of -0\.5 is below 0"):
        Ticket(builder.network(), good, {}, bad)


def test_saving_again_leaves_an_equal_ticket_and_never_overwrites_another(tmp_path: Path) -> None:
    path = small_ticket().save(tmp_path / "deep" / "ticket")
    before = (path / JSON_NAME).stat().st_mtime_ns
    assert small_ticket().save(path) == path
    assert (path / JSON_NAME).stat().st_mtime_ns == before
    with pytest.raises(TicketError, match="exists and holds something else; choose another path or remove it"):
        small_ticket(masks={}).save(path)
    with pytest.raises(TicketError, match="exists and holds something else"):
        small_ticket().save(tmp_path)
    assert load_ticket(path) == small_ticket()
    (path / WEIGHTS_NAME).write_bytes(b"")
    with pytest.raises(TicketError, match="damaged"):
        small_ticket().save(path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return golden_ticket("tiny").save(tmp_path / "ticket")


@pytest.mark.parametrize("name", [JSON_NAME, WEIGHTS_NAME])
def test_truncation_anywhere_is_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    for length in range(len(content) - 1):  # the last byte of ticket.json is its newline
        (saved / name).write_bytes(content[:length])
        with pytest.raises(TicketError, match=r"ticket"):
            load_ticket(saved)


@given(data=st.data())
def test_any_flipped_bit_of_the_weights_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = golden_ticket("tiny").save(tmp_path_factory.mktemp("flip") / "ticket")
    content = bytearray((path / WEIGHTS_NAME).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (path / WEIGHTS_NAME).write_bytes(content)
    with pytest.raises(TicketError, match="is damaged or of another ticket"):
        load_ticket(path)


@given(data=st.data())
def test_a_flipped_bit_of_the_json_gives_an_error_or_another_ticket(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ticket = golden_ticket("tiny")
    path = ticket.save(tmp_path_factory.mktemp("flip") / "ticket")
    content = bytearray((path / JSON_NAME).read_bytes())
    content[data.draw(st.integers(0, len(content) - 2))] ^= 1 << data.draw(st.integers(0, 7))
    (path / JSON_NAME).write_bytes(content)
    try:
        loaded = load_ticket(path)
    except TicketError:
        return
    assert loaded.hash != ticket.hash or json.loads(content) == json.loads(ticket._serialise()[0])


def rewrite(path: Path, change: dict[str, Any], remove: str | None = None, weights: bytes | None = None) -> None:
    """Edits a saved ticket as someone would who knows the format, checksum included."""
    document = json.loads((path / JSON_NAME).read_bytes()) | change
    if remove is not None:
        del document[remove]
    if weights is not None:
        (path / WEIGHTS_NAME).write_bytes(weights)
        document["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (path / JSON_NAME).write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "pocket-ticket/2"}, "format 'pocket-ticket/2', but this version reads 'pocket-ticket/1'"),
        ({"format": None}, "format None"),
        ({"weights_sha256": "0"}, "damaged or of another ticket"),
        ({"network": {}}, "not a network: KeyError"),
        ({"pruned": ["fc1.bias"]}, "mask/fc1.bias"),
        ({"pruned": 3}, "TypeError"),
        ({"pruned": ["fc1.weight"]}, "unknown tensor 'mask/mix.weight'"),
        ({"has_trained": False}, "unknown tensor 'trained/fc1.bias'"),
        ({"card": []}, "card: list"),
        ({"card": 3}, "card: int"),
        ({"signature": "x"}, "a key 'signature' that this version does not know"),
    ],
)
def test_a_foreign_document_is_named(saved: Path, change: dict[str, Any], text: str) -> None:
    rewrite(saved, change)
    with pytest.raises(TicketError) as caught:
        load_ticket(saved)
    assert text in str(caught.value)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("key", ["format", "network", "pruned", "has_trained", "weights_sha256", "card"])
def test_a_missing_key_is_refused(saved: Path, key: str) -> None:
    rewrite(saved, {}, remove=key)
    with pytest.raises(TicketError):
        load_ticket(saved)


def spoiled_tensors(name: str, array: Any) -> bytes:
    tensors = load(golden_ticket("tiny")._serialise()[1])
    if array is None:
        del tensors[name]
    else:
        tensors[name] = array
    return save(tensors)


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("mask/fc1.weight", np.zeros(4, np.uint8), "mask of 4 bytes for a weight of shape (4, 6)"),
        ("mask/fc1.weight", np.zeros(3, np.int8), "mask of 3 bytes"),
        ("mask/fc1.weight", np.zeros(3, np.uint8), "no live weight is left"),
        ("init/fc1.bias", np.zeros(4, np.float64), "must be a numpy array of float32"),
        ("init/fc1.bias", np.zeros(5, np.float32), "shape (5,) but the network says (4,)"),
        ("init/fc1.weight", np.ones((4, 6), np.float32), "a pruned weight is not exactly 0"),
        ("trained/out.bias", None, "KeyError 'trained/out.bias'"),
    ],
)
def test_foreign_weights_are_named(saved: Path, name: str, array: Any, text: str) -> None:
    rewrite(saved, {}, weights=spoiled_tensors(name, array))
    with pytest.raises(TicketError) as caught:
        load_ticket(saved)
    assert text in str(caught.value)


def test_bits_behind_the_end_of_a_mask_are_refused(tmp_path: Path) -> None:
    ticket = small_ticket(
        masks={"b.weight": np.array([[1, 0, 1], [0, 1, 1]], bool)},
        init=small_parts()["init"] | {"b.weight": np.array([[1, 0, 1], [0, 1, 1]], np.float32)},
    )
    path = ticket.save(tmp_path / "ticket")
    tensors = load((path / WEIGHTS_NAME).read_bytes())
    tensors["mask/b.weight"] = tensors["mask/b.weight"] | np.uint8(0x80)
    rewrite(path, {}, weights=save(tensors))
    with pytest.raises(TicketError, match="bits set behind its end"):
        load_ticket(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"', b"[]"])
def test_foreign_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / JSON_NAME).write_bytes(content)
    with pytest.raises(TicketError):
        load_ticket(saved)


def test_a_path_without_a_ticket_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(TicketError, match="is not a ticket"):
            load_ticket(path)
