"""The instructions that `python -m export report` tells: against another way to count them, and with what they must grow."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pytest

from export import instructions as measured
from export.instructions import FOLDER, TARGETS, instructions
from export.targets import TargetError, example_command
from export.ticket import Ticket
from export.to_native import to_native_bytes
from tests.export.tickets import golden_ticket, small_ticket
from tests.targets import builds

SPARSE = golden_ticket("tiny")
DENSE = replace(
    SPARSE,
    masks={},
    init={name: np.where(values == 0, np.float32(0.5), values) for name, values in SPARSE.init.items()},
    trained=None,
)


def told(ticket: Ticket, name: str) -> int:
    builds.need(TARGETS[name])
    row = instructions(to_native_bytes(ticket), ticket, name)
    assert set(row) == {"target", "instructions_a_step", "arena_bytes"}, row
    return int(row["instructions_a_step"])


@pytest.mark.parametrize("name", ["cortex-m4f", "aarch64-linux"])
def test_a_step_takes_as_many_each_time_and_more_with_more_weights(name: str) -> None:
    weights = sum(mask.size - int(mask.sum()) for mask in SPARSE.masks.values())
    assert weights > 10
    assert told(SPARSE, name) == told(SPARSE, name)
    assert told(DENSE, name) > told(SPARSE, name) + weights  # a forward and a backward product each


def test_blocks_of_instructions_give_what_single_ones_do() -> None:
    once = told(SPARSE, "aarch64-linux")
    emulator, program = example_command(FOLDER / "aarch64-linux")
    single = "-one-insn-per-tb" if "one-insn-per-tb" in builds.run([emulator, "--help"]) else "-singlestep"
    words = [builds.find(emulator) or emulator, single, "-d", "exec,nochain", program]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    lines = done.stderr.splitlines()
    readings = [number for number, line in enumerate(lines) if line.endswith(b" board_instructions")]
    first = [number for number in readings if number - 1 not in readings]
    steps = [end - start for start, end in zip(first[::2], first[1::2], strict=True)]
    length = readings[1] - readings[0] + 1  # of the function itself: it is not counted
    assert length == 2
    assert sum(steps) // len(steps) - length == once


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    builds.need(TARGETS["cortex-m4f"])
    ticket = small_ticket()
    other = replace(ticket, network=replace(ticket.network, loss="mse"))
    row = instructions(to_native_bytes(other), other, "cortex-m4f")
    assert row["not_measured"] == "loss mse: the example trains classes alone"

    def fail(*_: object) -> None:
        raise TargetError("qemu-system-arm ...\nexit status 1\nBudgetExceeded: the arena needs 9 bytes\nlast\n")

    monkeypatch.setattr(measured, "run", fail)
    row = instructions(to_native_bytes(ticket), ticket, "cortex-m4f")
    assert row == {"target": "cortex-m4f", "not_measured": "BudgetExceeded: the arena needs 9 bytes"}
