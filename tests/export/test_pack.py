"""Packed artifacts: the code against one written apart, the same ticket as in the plain form, sizes against the entropy."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.compact import compact
from export.network import Network, Node, Parameter
from export.pack import CONTEXTS, _shift, contexts, encode, packed_pattern
from export.ticket import Bits, Ticket, TicketError
from export.to_native import SLIM_CARD, to_native_bytes, to_packed_bytes
from tests.export.tickets import CARD, dead_unit_ticket, same_bits, small_parts, small_ticket, tickets
from tests.export.tkt_reader import read
from tests.golden import range_coder

DENSITIES = (0.001, 0.01, 0.036, 0.3, 0.7, 0.99, 1.0)
LENET = {"fc1": ((300, 784), 0.036), "fc2": ((100, 300), 0.036), "fc3": ((10, 100), 0.2)}


def random_bits(seed: int, count: int, density: float) -> NDArray[np.uint8]:
    """Ends with a 1, as what is coded does."""
    bits = (np.random.default_rng(seed).random(count) < density).astype(np.uint8)
    return bits[: np.flatnonzero(bits)[-1] + 1] if bits.any() else bits[:0]


@pytest.mark.parametrize("line", [0, 2, 3, 28, 64, 65, 1023])
@pytest.mark.parametrize("density", DENSITIES)
def test_contexts_are_those_of_the_format(density: float, line: int) -> None:
    bits = random_bits(3, 1300, density)
    model, wanted = range_coder.Model(line), []
    for bit in bits.tolist():
        wanted.append(model.context())
        model.see(bit)
    assert contexts(bits, line).tolist() == wanted
    assert max(wanted, default=0) < CONTEXTS


@pytest.mark.parametrize("density", DENSITIES)
def test_the_code_is_that_of_the_format(density: float) -> None:
    """Long enough that counts are halved and that carries run through bytes of 255."""
    matrices = [(random_bits(seed, 9000 * seed, density), line) for seed, line in enumerate((0, 0, 2, 90))]
    code = encode((bits, contexts(bits, line)) for bits, line in matrices)
    assert code == range_coder.encode([(bits.tolist(), line) for bits, line in matrices])


@given(st.lists(st.lists(st.integers(0, 1), max_size=200), max_size=3), st.sampled_from([0, 2, 7, 100]))
def test_what_is_coded_can_be_read(lists: list[list[int]], line: int) -> None:
    sequences = [np.array(bits, np.uint8) for bits in lists]
    cut = [bits[: np.flatnonzero(bits)[-1] + 1] if bits.any() else bits[:0] for bits in sequences]
    code = encode((bits, contexts(bits, line)) for bits in cut)
    assert range_coder.decode(code, [(len(bits), sum(bits), line) for bits in lists]) == lists


def test_carries_reach_over_bytes_of_255() -> None:
    code = bytearray(b"\x7f\xff\xff")
    assert (_shift(0x1_23456789, code), bytes(code)) == (0x45678900, b"\x80\x00\x00\x23")


@given(tickets())
def test_packed_holds_what_plain_holds(ticket: Ticket) -> None:
    plain = read(to_native_bytes(ticket))
    packed = read(to_packed_bytes(ticket, trained=ticket.trained is not None))
    for mine, theirs in zip(packed["parameters"], plain["parameters"], strict=True):
        assert same_bits(mine.pop("init"), theirs.pop("init"))
        assert same_bits(mine.pop("trained", None), theirs.pop("trained", None))
    card = plain.pop("card")
    assert packed.pop("card") == {key: card[key] for key in SLIM_CARD if key in card}
    assert packed == plain


@given(tickets(st.floats(-65504, 65504, width=16)))
def test_half_floats_that_are_exact_come_back(ticket: Ticket) -> None:
    wanted, found = read(to_packed_bytes(ticket)), read(to_packed_bytes(ticket, "float16"))
    for mine, theirs in zip(found["parameters"], wanted["parameters"], strict=True):
        assert same_bits(mine["init"], theirs["init"])


def test_half_floats_are_rounded_to_nearest_even() -> None:
    init = small_parts()["init"]
    init["a.bias"] = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.996], np.float32)
    (bias,) = (p["init"] for p in read(to_packed_bytes(small_ticket(init=init), "float16"))["parameters"][1:2])
    assert bias == [1.0, 1 + 2**-9, 65504.0]


def test_what_half_floats_cannot_hold_is_refused_by_name() -> None:
    init = small_parts()["init"]
    init["a.bias"] = np.array([0, -65520, 1], np.float32)
    with pytest.raises(TicketError, match=r"'a\.bias' has the value 65520; float16 .* pack as float32"):
        to_packed_bytes(small_ticket(init=init), "float16")
    to_packed_bytes(small_ticket(init=init))


def test_trained_values_come_only_when_asked_for() -> None:
    init = small_parts()["init"]
    ticket = small_ticket(trained={name: 2 * value for name, value in init.items()})
    assert all("trained" not in parameter for parameter in read(to_packed_bytes(ticket))["parameters"])
    found = read(to_packed_bytes(ticket, "float16", trained=True))["parameters"]
    assert found[1]["trained"] == [2.0, 2.0, 2.0]
    with pytest.raises(TicketError, match="no trained values"):
        to_packed_bytes(small_ticket(), trained=True)


def test_the_card_is_slim() -> None:
    card: dict[str, Any] = {
        **CARD,
        "labels": ["a", "b"],
        "verdict": {"long": "x" * 999},
        "provenance": {},
        "density": 0.5,
    }
    card = read(to_packed_bytes(small_ticket(card=card)))["card"]
    assert sorted(card) == ["density", "input", "labels", "recipe", "task"]


def test_a_compacted_ticket_keeps_its_origin() -> None:
    ticket = dead_unit_ticket()
    plain, packed = read(to_native_bytes(compact(ticket))), read(to_packed_bytes(compact(ticket)))
    assert packed["origin"] == plain["origin"] != None  # noqa: E711
    assert packed["ticket_hash"] == ticket.hash
    assert packed["parameters"] == plain["parameters"]


def lenet(masks: dict[str, Bits]) -> Ticket:
    names = list(LENET)
    parameters = [
        p for n in names for p in (Parameter(f"{n}.weight", LENET[n][0], True), Parameter(f"{n}.bias", LENET[n][0][:1]))
    ]
    nodes = [Node("reshape", "flat", (0,), attrs={"shape": (784,)})]
    for name in names:
        nodes.append(Node("linear", name, (len(nodes),), {"weight": f"{name}.weight", "bias": f"{name}.bias"}))
        nodes += [Node("relu", f"{name}.act", (len(nodes),))] if name != names[-1] else []
    random = np.random.default_rng(1)
    init = {p.name: random.normal(0, 0.1, p.shape).astype(np.float32) for p in parameters}
    init |= {f"{n}.weight": np.where(masks[n], init[f"{n}.weight"], np.float32(0)) for n in names}
    network = Network((1, 28, 28), tuple(parameters), tuple(nodes))
    return Ticket(network, init, {f"{n}.weight": masks[n] for n in names}, card=CARD)


def random_masks(scale: float = 1.0) -> dict[str, Bits]:
    random = np.random.default_rng(0)
    return {name: random.random(shape) < min(density * scale, 1) for name, (shape, density) in LENET.items()}


def entropy_bytes(masks: dict[str, Bits]) -> float:
    total = 0.0
    for mask in masks.values():
        p = float(mask.mean())
        total += mask.size * sum(-q * math.log2(q) for q in (p, 1 - p) if q)
    return total / 8


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_a_random_pattern_takes_its_entropy(scale: float) -> None:
    masks = random_masks(scale)
    ticket = lenet(masks)
    assert len(packed_pattern(ticket.network, ticket.masks)) <= 1.02 * entropy_bytes(masks)


def test_lenet_fits_its_limits() -> None:
    """At 3.6 % of the weights, in a random pattern: what is left of 9 KB is for a seed; half floats take two bytes each."""
    masks = random_masks()
    ticket = lenet(masks)
    entropy, content = entropy_bytes(masks), to_packed_bytes(ticket, "float16")
    weights = sum(int(mask.sum()) for mask in masks.values()) + 410
    assert len(content) - 2 * weights <= 9 * 1024 - 256
    assert len(content) <= 1.15 * (entropy + 2 * weights)
    assert len(to_packed_bytes(ticket)) < 0.8 * len(to_native_bytes(ticket))


def test_lines_of_an_image_are_found() -> None:
    """Each unit looks at some columns of the image, so that what lies above tells most."""
    masks = random_masks()
    columns = np.random.default_rng(5).random((300, 28)) < 0.1
    masks["fc1"] = np.tile(columns, 28)
    ticket = lenet(masks)
    section = packed_pattern(ticket.network, ticket.masks)
    assert struct.unpack_from("<3H", section, 4)[0] == 28
    assert len(section) < 0.25 * entropy_bytes(masks)


def test_equal_tickets_give_equal_bytes() -> None:
    assert to_packed_bytes(small_ticket(), "float16") == to_packed_bytes(small_ticket(), "float16")
