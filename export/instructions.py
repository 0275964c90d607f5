"""How many instructions a training step of a native artifact takes on targets that are emulated here.

Trains the artifact by the example of device_runtime/mcu, a sample a step, by the recipe's optimizer. On a microcontroller QEMU moves
the clock by one tick an instruction, which the example reads; of a program on ARM64 Linux it tells every block of instructions, and those
between the example's two readings are counted. They are no cycles: QEMU knows no pipeline, cache or wait state.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.atomic import write_file
from export.card import normalisation
from export.targets import (
    MICROCONTROLLERS,
    ROOT,
    SYSTEMS,
    Target,
    TargetError,
    configure,
    example_command,
    find,
    is_clone,
    locked,
    missing,
    outcome,
    run,
)
from export.ticket import Ticket

TARGETS = {name: (SYSTEMS | MICROCONTROLLERS)[name] for name in ("cortex-m4f", "cortex-m7", "aarch64-linux")}
FOLDER = ROOT / "build/report"
STEPS, SAMPLES = 3, 2
MEMORY_BYTES = 4 << 20  # of flash and of RAM on the emulated boards, a piece each; a microcontroller has less
MAX_ELEMENTS = 32768  # of a sample
MOST_TRACED = 30_000_000  # a minute or two
LARGEST_CLASS = 255  # of a label in a byte


def instructions(artifact: bytes, ticket: Ticket, name: str) -> dict[str, Any]:
    """`instructions_a_step` and `arena_bytes` on the target `name`, or why they were `not_measured`. `ticket` is what the artifact was
    written from."""
    target = TARGETS[name]
    if not is_clone():
        return {
            "target": name,
            "not_measured": "needs a clone of the repository, of which only the package is installed",
        }
    if absent := missing(target):
        return {"target": name, "not_measured": f"install {', '.join(package for _, package in absent)}"}
    if ticket.network.loss != "cross_entropy":
        return {"target": name, "not_measured": f"loss {ticket.network.loss}: the example trains classes alone"}
    try:
        return {"target": name, **_measured(artifact, ticket, target)}
    except (TargetError, subprocess.TimeoutExpired, OSError) as error:
        return {"target": name, "not_measured": _reason(error)}


def _reason(error: Exception) -> str:
    """The line of what was printed that says most."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{Path(error.cmd[0]).name} took longer than {error.timeout:.0f} seconds"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if "BudgetExceeded" in line or "overflowed" in line or "the example takes" in line
    ]
    return (telling or lines)[-1]


def _measured(artifact: bytes, ticket: Ticket, target: Target) -> dict[str, Any]:
    with locked(FOLDER / target.name) as folder:
        files = {"TKT_TICKET": folder / "ticket.tkt", "TKT_SAMPLES": folder / "samples.bin"}
        for path, content in zip(files.values(), (artifact, samples(ticket)), strict=True):
            if not path.exists() or path.read_bytes() != content:
                write_file(path, content)
        options = {name: str(path) for name, path in files.items()}
        options |= {"TKT_BUILD_EXAMPLE": "ON", "TKT_STEPS": str(STEPS), "TKT_MAX_ELEMENTS": str(MAX_ELEMENTS)}
        options |= {f"TKT_{memory}_BYTES": str(MEMORY_BYTES) for memory in ("RAM", "FLASH")}
        configure(target, folder, options)
        run(["cmake", "--build", str(folder)])
        command = example_command(folder)
        done = outcome(run(command))
        counted = done.instructions if target.name in MICROCONTROLLERS else traced(command)
        return {"instructions_a_step": sum(counted) // len(counted), "arena_bytes": done.numbers["arena bytes"]}


def samples(ticket: Ticket) -> bytes:
    """Of each a label, and bytes about as the data has them: what the card's normalisation takes to numbers near 0."""
    random, shape = np.random.default_rng(0), ticket.network.input_shape
    n = normalisation(ticket)
    spread = random.standard_normal((SAMPLES, *shape)) / _by_channel(n.inverse_std, shape) + _by_channel(n.mean, shape)
    x = np.clip(np.rint(spread), 0, 255)
    if any(node.op == "embedding" for node in ticket.network.nodes):
        x = random.integers(0, 2, x.shape)
    classes = min(ticket.network.output_shape[0], LARGEST_CLASS)
    labels = random.integers(0, classes, (SAMPLES, 1))
    return np.concatenate([labels, x.reshape(SAMPLES, -1)], axis=1).astype(np.uint8).tobytes()


def _by_channel(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    return values.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1))


def traced(command: Sequence[str]) -> list[int]:
    """Instructions between two readings of the example's counter: first what is before a step, then the step, and so on.

    The emulator tells the instructions of every block as it translates it, and then each time that it runs one.
    """
    path = find(command[0]) or command[0]
    words = [path, "-d", "in_asm,exec,nochain", *command[1:]]
    trace = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert trace.stderr is not None
    sizes: dict[int, int] = {}  # of each block, by its address
    between, block, seen, inside = [], 0, 0, False
    try:
        for number, line in enumerate(trace.stderr):
            if line.startswith(b"Trace"):
                reading = line.endswith(b" board_instructions\n")
                if reading and not inside:
                    between.append(seen)
                    seen = 0
                inside = reading
                seen += 0 if reading else sizes[int(line.split(b"/")[1], 16)]
            elif line.startswith(b"IN:"):
                block = 0
            elif line.startswith(b"0x"):
                block = block or int(line.split(b":")[0], 16)
                sizes[block] = 1 if int(line.split(b":")[0], 16) == block else sizes[block] + 1
            if number > MOST_TRACED:
                raise TargetError(
                    f"more than {MOST_TRACED:,} blocks of instructions, those to open the artifact included"
                )
    finally:
        trace.kill()
        trace.stderr.close()
        trace.wait()
    return between[1::2]
