"""Builds the device runtime and its example for a target, by its toolchain file, and runs them under emulation.

For what needs a clone: the sources of the runtime are not in the installed package. Names what must be installed; refuses nothing
else, and a build or program that fails is a TargetError with everything it printed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "device_runtime"
SECONDS = 300  # that a command may take


class TargetError(RuntimeError):
    """A command that ended otherwise than it should; the text has all that it printed."""


@dataclass(frozen=True)
class Target:
    """`programs`: what must be installed, each with its Debian package. `tools`: the prefix of its binutils."""

    name: str
    programs: tuple[tuple[str, str], ...]
    tools: str = ""


ARM64 = (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user"))
ARMV7 = (("arm-linux-gnueabihf-g++", "g++-arm-linux-gnueabihf"), ("qemu-arm", "qemu-user"))
BARE = (("arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("qemu-system-arm", "qemu-system-arm"))
HOST = (("g++", "g++"),)
BUILD = (("cmake", "cmake"), ("ninja", "ninja-build"))  # what every target needs besides

SYSTEMS = {
    target.name: target
    for target in (
        Target("x86-64", HOST),
        Target("aarch64-linux", ARM64, "aarch64-linux-gnu-"),
        Target("armv7-linux", ARMV7, "arm-linux-gnueabihf-"),
    )
}
MICROCONTROLLERS = {name: Target(name, BARE, "arm-none-eabi-") for name in ("cortex-m4f", "cortex-m7", "cortex-m55")}


@dataclass(frozen=True)
class Outcome:
    """What the example printed."""

    losses: tuple[str, ...]
    instructions: tuple[int, ...]
    numbers: dict[str, int]
    correct: tuple[int, ...]


def is_clone() -> bool:
    """Whether the sources of the device runtime are there."""
    return (RUNTIME / "CMakeLists.txt").is_file()


def missing(target: Target) -> list[tuple[str, str]]:
    """What is not installed, each with its Debian package."""
    absent = [(program, package) for program, package in (*target.programs, *BUILD) if not find(program)]
    if target.programs == BARE and not absent and run(["arm-none-eabi-gcc", "-print-file-name=libc.a"]) == "libc.a\n":
        return [("newlib", "libnewlib-arm-none-eabi")]
    return absent


def find(program: str) -> str | None:
    return shutil.which(program, path=_path())


def _path() -> str:
    """What pip has installed beside Python comes first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def run(command: Sequence[str], *, fails: bool = False, **environment: str) -> str:
    """What the command printed. Raises TargetError with all of it if the command fails, or succeeds where `fails` is meant."""
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": _path(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if (done.returncode != 0) != fails:
        raise TargetError(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}")
    return done.stdout


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """The folder of a build, for one process at a time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def configure(target: Target, folder: Path, options: Mapping[str, str]) -> None:
    """Once, and again after a change of an option or a toolchain file, which only a fresh configuration hears."""
    options = {"CMAKE_BUILD_TYPE": "Release", **options}
    if target.name != "x86-64":
        options["CMAKE_TOOLCHAIN_FILE"] = str(RUNTIME / f"cmake/{target.name}.cmake")
    words = [f"-D{name}={value}" for name, value in options.items()]
    toolchains = [path.read_text(encoding="utf-8") for path in sorted((RUNTIME / "cmake").glob("*.cmake"))]
    wanted, stamp = "\n".join([*words, *toolchains]), folder / "configured"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        run(["cmake", "--fresh", "-S", str(RUNTIME), "-B", str(folder), "-G", "Ninja", "--log-level=WARNING", *words])
        stamp.write_text(wanted, encoding="utf-8")


def example_command(folder: Path) -> list[str]:
    """How the example is run, emulator first, its program last."""
    tests = json.loads(run(["ctest", "--test-dir", str(folder), "--show-only=json-v1"]))["tests"]
    (command,) = (test["command"] for test in tests if test["name"] == "train_ticket")
    return list(command)


def outcome(text: str) -> Outcome:
    """Of what the example printed, perhaps by way of ctest."""
    lines = [re.sub(r"^\d+: ", "", line) for line in text.splitlines()]
    steps = [
        match for line in lines if (match := re.match(r"step \d+ loss (0x\w{8}) = \S+, instructions (\d+)$", line))
    ]
    named = [match for line in lines if (match := re.match(r"([a-z][a-z ]+) (\d+)$", line))]
    return Outcome(
        losses=tuple(match[1] for match in steps),
        instructions=tuple(int(match[2]) for match in steps),
        numbers={match[1]: int(match[2]) for match in named},
        correct=tuple(int(match[2]) for match in named if match[1] == "correct"),
    )
