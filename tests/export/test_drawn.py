"""A ticket whose weights a seed gives: true wherever it is, kept on disk, and refused in every other form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.compact import compact
from export.drawn import Distribution, Drawn, _fma
from export.ticket import JSON_NAME, Ticket, TicketError, load_ticket
from tests.export.tickets import dead_unit_ticket, small_parts, small_ticket

FLOATS = st.floats(-1e6, 1e6, width=32)
DISTRIBUTIONS = st.one_of(
    st.builds(Distribution, st.just("constant"), FLOATS),
    st.tuples(FLOATS, FLOATS).map(lambda pair: Distribution("uniform", *sorted(pair))),
    st.builds(Distribution, st.just("normal"), FLOATS, st.floats(0, 1e6, width=32)),
)
ORIGIN = Drawn(
    2**64 - 3,
    {
        "a.weight": Distribution("normal", 0.5, 0.1),
        "a.bias": Distribution("constant", -1),
        "b.weight": Distribution("uniform", -0.3, 0.3),
    },
)


def drawn_parts(drawn: Drawn = ORIGIN, masks: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Arguments of the small ticket with initial weights that `drawn` gives."""
    parts = small_parts()
    masks = parts["masks"] if masks is None else masks
    init = {}
    for name, shape in parts["network"].parameter_shapes.items():
        values = drawn.at(name, np.arange(np.prod(shape))).reshape(shape)
        init[name] = np.where(masks[name], values, np.float32(0)) if name in masks else values
    return {**parts, "masks": masks, "init": init, "drawn": drawn}


@given(st.integers(0, 2**64 - 1), DISTRIBUTIONS, DISTRIBUTIONS)
def test_round_trip_keeps_where_it_comes_from(
    tmp_path_factory: pytest.TempPathFactory, seed: int, first: Distribution, second: Distribution
) -> None:
    drawn = Drawn(seed, {"a.weight": first, "a.bias": second, "b.weight": first})
    ticket = Ticket(**drawn_parts(drawn))
    again = load_ticket(ticket.save(tmp_path_factory.mktemp("round") / "ticket"))
    assert again == ticket
    assert again.drawn is not None
    assert again.drawn == drawn
    assert list(again.drawn.distributions) == list(ticket.network.parameter_shapes), "streams are their places"


def test_it_is_part_of_the_hash_and_absent_where_there_is_none() -> None:
    ticket = Ticket(**drawn_parts())
    other = dataclasses.replace(ticket, drawn=None)
    assert other.hash != ticket.hash
    assert b"drawn" not in other._serialise()[0]


def test_streams_are_places_and_indices_those_of_the_whole_parameter() -> None:
    parts = drawn_parts()
    row, column = 2, 3
    alone = ORIGIN.distributions["a.weight"].draw(ORIGIN.seed, 0, np.array([row * 4 + column]))
    assert parts["init"]["a.weight"][row, column] == alone[0]
    alone = ORIGIN.distributions["b.weight"].draw(ORIGIN.seed, 2, np.array([4]))
    assert parts["init"]["b.weight"][1, 1] == alone[0]


def test_a_fused_sum_is_rounded_once() -> None:
    """The product is below half a unit of the addend by less than f64 can hold in the sum, which would round it up."""
    unit = np.float32(2**-23)
    little = np.arange(1, 8, dtype=np.float32) * unit
    addend = np.float32(1) + np.arange(1, 14, 2, dtype=np.float32) * unit
    factors = np.float32(1) + little, (np.float32(1) - little) * np.float32(2**-24)
    assert np.array_equal(_fma(*factors, addend), addend)
    assert np.array_equal(_fma(-factors[0], factors[1], -addend), -addend)
    assert np.array_equal(_fma(np.float32(3), np.float32(5), np.float32(-15)), [np.float32(0)])


@pytest.mark.parametrize("name", ORIGIN.distributions)
def test_a_value_that_the_seed_does_not_give_is_named(name: str) -> None:
    parts = drawn_parts()
    place = np.flatnonzero(parts["init"][name])[-1]
    parts["init"][name].ravel()[place] = np.nextafter(parts["init"][name].ravel()[place], np.float32(9))
    with pytest.raises(TicketError, match=rf"init '{name}': element {place} is .* but seed 18446744073709551613 gives"):
        Ticket(**parts)
    with pytest.raises(TicketError, match=r"but seed 5 gives"):
        Ticket(**drawn_parts() | {"drawn": dataclasses.replace(ORIGIN, seed=5)})


def test_every_parameter_has_its_origin_in_its_order() -> None:
    names = list(ORIGIN.distributions)
    for wrong in (names[:2], names[::-1], [*names, "c"]):
        others = {name: ORIGIN.distributions.get(name, Distribution("constant", 0)) for name in wrong}
        with pytest.raises(TicketError, match=r"but the network has .*, in this order"):
            Ticket(**drawn_parts() | {"drawn": Drawn(1, others)})


@pytest.mark.parametrize(
    "arguments",
    [
        ("cauchy", 0, 1),
        ("normal", 0, -1),
        ("normal", 0, float("nan")),
        ("normal", 0, 1e38),
        ("uniform", 1, 0.5),
        ("uniform", float("-inf"), 0),
        ("constant", 1, 1),
        ("constant", True, 0),
        ("constant", "1", 0),
        (["constant"], 1, 0),
    ],
)
def test_what_is_no_distribution_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        Distribution(*arguments)


DAMAGE: dict[str, Any] = {
    "null": lambda d: None,
    "a list": lambda d: [d],
    "another key": lambda d: d | {"generator": "philox"},
    "no seed": lambda d: {"parameters": d["parameters"]},
    "no parameters": lambda d: {"seed": d["seed"]},
    "a negative seed": lambda d: d | {"seed": -1},
    "a seed of 65 bits": lambda d: d | {"seed": 2**64},
    "a seed that is no whole number": lambda d: d | {"seed": 1.0},
    "a seed that is true": lambda d: d | {"seed": True},
    "a seed that is another": lambda d: d | {"seed": 7},
    "parameters that are none": lambda d: d | {"parameters": 3},
    "a parameter that is none": lambda d: d | {"parameters": [3]},
    "a parameter without a kind": lambda d: d | {"parameters": [["a.weight"]]},
    "a kind that is unknown": lambda d: d | {"parameters": [["a.weight", "cauchy", 0, 1], *d["parameters"][1:]]},
    "a number too many": lambda d: d | {"parameters": [[*d["parameters"][0], 1], *d["parameters"][1:]]},
    "a number that is no float32": lambda d: (
        d | {"parameters": [["a.weight", "normal", 0.5, 0.1], *d["parameters"][1:]]}
    ),
    "a number that is too large": lambda d: (
        d | {"parameters": [["a.weight", "normal", 10**400, 1], *d["parameters"][1:]]}
    ),
    "a parameter twice": lambda d: d | {"parameters": [*d["parameters"], d["parameters"][0]]},
    "a parameter less": lambda d: d | {"parameters": d["parameters"][1:]},
    "another order": lambda d: d | {"parameters": d["parameters"][::-1]},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    path = Ticket(**drawn_parts()).save(tmp_path / "ticket")
    document = json.loads((path / JSON_NAME).read_bytes())
    document["drawn"] = DAMAGE[damage](document["drawn"])
    (path / JSON_NAME).write_text(json.dumps(document))
    with pytest.raises(TicketError, match=r"drawn|seed 7 gives"):
        load_ticket(path)


def test_a_compacted_ticket_is_drawn_in_the_places_of_the_whole_one() -> None:
    """Its own elements have other numbers, so it says nothing of a seed; the original still does."""
    whole = Ticket(**drawn_parts(masks=dict(dead_unit_ticket().masks)))
    compaction = compact(whole)
    assert compaction.vanished
    assert compaction.ticket.drawn is None
    assert compaction.original.drawn == ORIGIN
    for name, array in compaction.ticket.init.items():
        numbers = np.arange(whole.init[name].size).reshape(whole.init[name].shape)[np.ix_(*compaction.kept[name])]
        live = np.flatnonzero(compaction.ticket.masks.get(name, np.ones(array.shape, bool)))
        assert np.array_equal(array.ravel()[live], ORIGIN.at(name, numbers.ravel()[live]))
    assert compact(small_ticket()).ticket.drawn is None
