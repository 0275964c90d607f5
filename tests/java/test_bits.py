"""Java gives the losses of Python and C to the last bit: the run that every target of tests/targets trains."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.java import arm64, jvm
from tests.targets import builds
from tests.targets.test_systems import STEPS, reference

COMMANDS: dict[str, Callable[..., list[str]]] = {"this machine": jvm.command, "android arm64": arm64.command}


@pytest.mark.parametrize("where", COMMANDS)
def test_java_gives_the_losses_and_values_of_c(where: str) -> None:
    jvm.need()
    ticket, samples, _ = builds.data()
    text = builds.run(COMMANDS[where]("io.pocketticket.Trace", str(ticket), str(samples), str(STEPS)))
    losses = tuple(re.findall(r"^0x\w{8}$", text, re.MULTILINE))
    (checksum,) = re.findall(r"^values crc (\d+)$", text, re.MULTILINE)
    assert len(losses) == STEPS
    assert (losses, int(checksum)) == reference()
