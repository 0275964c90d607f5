"""Artifacts that hold a seed in the place of values: from a ticket through export to a device, the same bits and far fewer bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_runtime import Trainer, inspect
from export.__main__ import main
from export.compact import compact
from export.ticket import Ticket, TicketError
from export.to_native import to_native_bytes, to_packed_bytes
from tests.export.test_drawn import drawn_parts
from tests.export.tickets import small_ticket

TICKET = Ticket(**drawn_parts())


def test_a_device_trains_from_the_same_bits() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2, 2)).astype(np.float32)
    y = np.arange(20, dtype=np.int32) % 2
    with Trainer.open(to_packed_bytes(TICKET, "seed")) as seeded, Trainer.open(to_native_bytes(TICKET)) as plain:
        assert seeded.values.tobytes() == plain.values.tobytes()
        assert seeded.fit(x, y, steps=20).losses.tobytes() == plain.fit(x, y, steps=20).losses.tobytes()


def test_no_value_is_stored() -> None:
    parts = inspect(to_packed_bytes(TICKET, "seed"))["sections"]
    assert parts["packed_init"] == 8 + 8 + 12 * len(TICKET.network.parameters)
    assert "init" not in parts


def test_trained_values_come_as_float32() -> None:
    trained = {name: value + (value != 0) for name, value in TICKET.init.items()}
    content = to_packed_bytes(replace(TICKET, trained=trained), "seed", trained=True)
    with Trainer.open(content, start="trained") as trainer, Trainer.open(content) as initial:
        live = initial.values != 0
        assert trainer.values[live] == pytest.approx(initial.values[live] + 1)


def test_what_has_no_seed_is_refused() -> None:
    with pytest.raises(TicketError, match="have no seed; find one with --init-from-seed"):
        to_packed_bytes(small_ticket(), "seed")
    with pytest.raises(TicketError, match="cannot be drawn from the seed; export with --no-compact"):
        to_packed_bytes(replace(compact(TICKET), ticket=replace(TICKET)), "seed")


def test_the_command_writes_it_whole_and_judges_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = TICKET.save(tmp_path / "ticket")
    assert main([str(place), "--formats", "packed", "--packed-values", "seed", "--json", "--quiet"]) == 0
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert artifact["gate"]["largest_gradient_error"] < 1e-5
    assert Path(artifact["path"]).read_bytes() == to_packed_bytes(TICKET, "seed")
    plain = small_ticket().save(tmp_path / "plain")
    assert main([str(plain), "--formats", "packed", "--packed-values", "seed"]) == 2
    assert "have no seed" in capsys.readouterr().err
