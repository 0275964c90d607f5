"""One source gives the same bits on every system: x86-64, 64- and 32-bit ARM under QEMU, Cortex-M4F, M7 and M55 bare metal.

Each target runs the C tests, most with the digest over every operator and optimizer, and trains LeNet-300-100 on thirty digits; the losses
and the values after 120 steps must be those of the scalar kernels on x86-64, and of the Python module.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from device_runtime import Trainer
from tests.targets import builds
from tests.targets.builds import MICROCONTROLLERS, RAM_BYTES, SYSTEMS, Outcome, Target

STEPS = 120
TARGETS = SYSTEMS | MICROCONTROLLERS
# Without the C test of all operators, the slowest under emulation: others have the same units.
BRIEF = ("armv7-linux", "cortex-m7")
M4F = MICROCONTROLLERS["cortex-m4f"]

# Instructions of all steps on Cortex-M4F, by the data set trained on, with this compiler. A change of the core changes
# them: run `make ctest-targets`, look whether the new number is meant, and write it here.
PINNED_COMPILER = "arm-none-eabi-gcc (15:12.2.rel1-1) 12.2.1 20221205"
PINNED_INSTRUCTIONS = {"MNIST": 53_358_922, "scikit-learn digits, enlarged to 28 x 28": 53_358_890}

# What a microcontroller's library may ask of others: four functions of C, and arithmetic that the processor lacks.
MAY_IMPORT = re.compile(r"mem(cpy|move|set|cmp)|__aeabi_[dfilu][a-z0-9]+")

Record = Callable[[str, object], None]


def bits(outcome: Outcome) -> tuple[tuple[str, ...], int]:
    """Every loss as the bits of its float, and the CRC-32 of the values at the end."""
    assert len(outcome.losses) == STEPS
    return outcome.losses, outcome.numbers["values crc"]


def reference() -> tuple[tuple[str, ...], int]:
    return bits(builds.trained(SYSTEMS["x86-64"], "train_ticket_scalar"))


def test_the_python_module_gives_the_same_bits() -> None:
    ticket, samples, _ = builds.data()
    rows = np.frombuffer(samples.read_bytes(), np.uint8).reshape(-1, 785)
    x, y = rows[:, 1:].astype(np.float32), rows[:, 0].astype(np.int32)
    with Trainer.open(ticket.read_bytes(), kernels="scalar", batch=1) as trainer:
        report = trainer.fit(x, y, steps=STEPS)
        words = report.losses.astype("<f4").view("<u4")
        assert (tuple(f"0x{word:08x}" for word in words), zlib.crc32(trainer.values.tobytes())) == reference()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_gives_the_same_bits(target: Target, record_property: Record) -> None:
    before = processor_seconds()
    folder, build_seconds = builds.build(target)
    start = time.perf_counter()
    builds.ctest(folder, "--exclude-regex", "train_ticket|kernels_test" if target.name in BRIEF else "train_ticket")
    for test in ("train_ticket", "train_ticket_scalar") if target in SYSTEMS.values() else ("train_ticket",):
        outcome = builds.trained(target, test)
        assert bits(outcome) == reference()
        assert outcome.correct[1] > outcome.correct[0] + 5, "the ticket learns"
    record_property("digits", builds.data()[2])
    record_property("build", f"{build_seconds:.1f} s")
    record_property("tests", f"{time.perf_counter() - start:.1f} s")
    record_property("processor", f"{processor_seconds() - before:.1f} s")


def processor_seconds() -> float:
    """Of all compilers and emulators so far: a busy machine does not lengthen it as it lengthens the others."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("target", MICROCONTROLLERS.values(), ids=MICROCONTROLLERS)
def test_a_microcontroller_trains_in_96_kilobytes(target: Target, record_property: Record) -> None:
    outcome = builds.trained(target)
    numbers = outcome.numbers
    assert numbers["arena bytes"] <= numbers["memory bytes"] < RAM_BYTES
    assert 0 < numbers["stack bytes"] < 8192, "the linker script keeps 8192 bytes for the stack"
    record_property("arena bytes", numbers["arena bytes"])
    record_property("stack bytes", numbers["stack bytes"])
    record_property("instructions a step", sum(outcome.instructions) // len(outcome.instructions))
    record_property("flash of the library", code_bytes(target))


def code_bytes(target: Target) -> str:
    """Of the example's program: what the linker kept of the runtime, without data."""
    folder, _ = builds.build(target)
    symbols = builds.run([f"{target.tools}nm", "--print-size", "--defined-only", str(folder / "mcu/train_ticket")])
    sizes = re.findall(r"^\w+ (\w+) [tTwWrR] \S*tkt\S*$", symbols, re.MULTILINE)
    return f"{sum(int(size, 16) for size in sizes)} bytes"


def test_too_little_memory_is_refused_by_name(tmp_path: Path) -> None:
    builds.link_with_ram(M4F, 40 * 1024, tmp_path / "program")
    text = builds.emulate(M4F, tmp_path / "program", fails=True)
    assert re.search(r"BudgetExceeded: .*arena", text), text


def test_less_ram_than_stack_and_data_does_not_link(tmp_path: Path) -> None:
    text = builds.link_with_ram(M4F, 4096, tmp_path / "program", fails=True)
    assert "region `RAM' overflowed" in text


def test_instructions_of_a_step_are_pinned() -> None:
    builds.need(M4F)
    compiler = builds.run(["arm-none-eabi-gcc", "--version"]).splitlines()[0]
    if compiler != PINNED_COMPILER:
        pytest.skip(f"pinned for {PINNED_COMPILER}; here is {compiler}")
    assert sum(builds.trained(M4F).instructions) == PINNED_INSTRUCTIONS[builds.data()[2]]


@pytest.mark.parametrize("target", MICROCONTROLLERS.values(), ids=MICROCONTROLLERS)
def test_a_microcontroller_library_needs_nothing_but_memcpy_and_arithmetic(target: Target) -> None:
    folder, _ = builds.build(target)
    symbols = builds.run([f"{target.tools}nm", "--extern-only", str(folder / "libticket_runtime.a")])
    wanted = set(re.findall(r"^\s+U (\S+)$", symbols, re.MULTILINE))
    found = set(re.findall(r"^\w{8} [A-TV-Z] (\S+)$", symbols, re.MULTILINE))
    assert "memcpy" in wanted
    assert "tkt_train_step" in found
    assert [name for name in sorted(wanted - found) if not MAY_IMPORT.fullmatch(name)] == []


@pytest.mark.parametrize("target", [*MICROCONTROLLERS.values(), SYSTEMS["armv7-linux"]], ids=lambda target: target.name)
def test_multiplications_are_fused_in_hardware_and_vector_units_that_flush_are_not_used(target: Target) -> None:
    folder, _ = builds.build(target)
    code = builds.run([f"{target.tools}objdump", "--disassemble", str(folder / "libticket_runtime.a")])
    assert len(re.findall(r"\tvfma\.f32\ts", code)) > 100
    assert re.findall(r"\tv\w+\.f32\tq.*", code) == []
    assert "__aeabi_fmul" not in code, "single precision is hardware"
