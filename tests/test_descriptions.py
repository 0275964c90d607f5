"""What other runtimes' artifacts say of a ticket: written by export, read by device_runtime, and refused where damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from device_runtime import CorruptArtifact, IncompatibleArtifact
from device_runtime.artifact import read_info
from device_runtime.backends.description import read_description
from export.compact import compact
from export.description import describe
from export.to_native import to_native_bytes
from tests.export.tickets import dead_unit_ticket, small_ticket

TICKET = small_ticket()


def text(**changes: Any) -> bytes:
    return json.dumps({**describe(TICKET), **changes}).encode()


def test_they_are_the_facts_of_the_native_artifact() -> None:
    for ticket in (TICKET, dead_unit_ticket()):
        source = compact(ticket)
        native = read_info(to_native_bytes(source))
        told = read_description(json.dumps(describe(source)).encode(), native.artifact_bytes, native.sections).info
        for name in vars(native):
            if name not in ("operators", "card"):
                assert getattr(told, name) == getattr(native, name), name
        assert set(told.operators) == set(native.operators)
        assert told.labels == native.labels


def test_live_weights_are_counted_by_parameter() -> None:
    found = {p.name: p for p in read_description(text(), 0, {}).parameters}
    assert (found["a.weight"].live, found["a.weight"].size, found["a.weight"].shape) == (5, 5, (3, 4))
    assert (found["b.weight"].live, found["b.weight"].size) == (None, 6)


def test_damage_is_refused() -> None:
    for damaged in (b"", b"{", b"[]", b"null", b"\xff", text(parameters=[{}]), text(card=3), text(class_count="x")):
        with pytest.raises(CorruptArtifact, match="export the ticket again"):
            read_description(damaged, 0, {})
    with pytest.raises(IncompatibleArtifact, match="version 2, but this package reads 1"):
        read_description(text(version=2), 0, {})
