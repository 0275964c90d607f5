"""Builds the device runtime for one target, by its toolchain file, into build/targets, and runs it under emulation.

A target whose compiler or emulator is not installed is skipped by name; `make ctest-targets` installs what it can.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.targets import example_data

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build/targets"
RUNTIME = ROOT / "device_runtime"
JNI = Path("jni/libticket_runtime_jni.so")  # in the folder of a build whose target has JNI
ANDROID_JNI = Path("/usr/include/android/nativehelper/jni.h")
RAM_BYTES = 96 * 1024  # all that the example may use, stack included


@dataclass(frozen=True)
class Target:
    """`programs`: what must be installed, each with its Debian package. `tools`: the prefix of its binutils."""

    name: str
    programs: tuple[tuple[str, str], ...]
    tools: str = ""


_ARM64 = (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user"))
_ARMV7 = (("arm-linux-gnueabihf-g++", "g++-arm-linux-gnueabihf"), ("qemu-arm", "qemu-user"))
_BARE = (("arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("qemu-system-arm", "qemu-system-arm"))
_CLANG = (("clang++-14", "clang-14"), ("ld.lld-14", "lld-14"))
_HOST = (("g++", "g++"),)

SYSTEMS = {
    target.name: target
    for target in (
        Target("x86-64", _HOST),
        Target("aarch64-linux", _ARM64, "aarch64-linux-gnu-"),
        Target("armv7-linux", _ARMV7, "arm-linux-gnueabihf-"),
    )
}
MICROCONTROLLERS = {name: Target(name, _BARE, "arm-none-eabi-") for name in ("cortex-m4f", "cortex-m7", "cortex-m55")}
ANDROID = {
    "arm64-v8a": Target("android-arm64-v8a", _CLANG + _ARM64, "aarch64-linux-gnu-"),
    "armeabi-v7a": Target("android-armeabi-v7a", _CLANG + _ARMV7 + _BARE, "arm-linux-gnueabihf-"),
    "x86_64": Target("android-x86_64", _CLANG + _HOST),
}


@dataclass(frozen=True)
class Outcome:
    """What the example printed."""

    losses: tuple[str, ...]
    instructions: tuple[int, ...]
    numbers: dict[str, int]
    correct: tuple[int, ...]


def need(target: Target) -> None:
    missing = [f"{program} (package {package})" for program, package in target.programs if not find(program)]
    if missing:
        pytest.skip(f"{target.name}: {', '.join(missing)} is not installed")
    if target.name.startswith("cortex") and run(["arm-none-eabi-gcc", "-print-file-name=libc.a"]).strip() == "libc.a":
        pytest.skip(f"{target.name}: newlib (package libnewlib-arm-none-eabi) is not installed")


def has_jni(target: Target) -> bool:
    """Whether the binding of Java is built too: on this machine and for Android, where its header is installed."""
    return find("javac") is not None if target.name == "x86-64" else is_android(target) and ANDROID_JNI.exists()


def need_jni(target: Target) -> None:
    need(target)
    if not has_jni(target):
        package = "android-libnativehelper-dev" if is_android(target) else "default-jdk-headless"
        pytest.skip(f"{target.name}: jni.h (package {package}) is not installed")


def is_android(target: Target) -> bool:
    return target.name.startswith("android")


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def run(command: list[str], *, fails: bool = False, **environment: str) -> str:
    """What the command printed. Fails with all of it if the command fails, or succeeds where `fails` is meant."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode != 0) == fails, f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The folder of a build, for one process at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield FOLDER / name


@functools.cache
def data() -> tuple[Path, Path, str]:
    with locked("data") as folder:
        folder.mkdir(exist_ok=True)
        return example_data.write(folder)


@functools.cache
def build(target: Target) -> tuple[Path, float]:
    """Its folder, and how many seconds the build took (little where there was an earlier one)."""
    need(target)
    start = time.perf_counter()
    with locked(target.name) as folder:
        configure(target, folder)
        run(["cmake", "--build", str(folder)])
    return folder, time.perf_counter() - start


def configure(target: Target, folder: Path) -> None:
    """Once, and again after a change of a toolchain file, which only a fresh configuration hears."""
    options = {"CMAKE_BUILD_TYPE": "Release", "TKT_JNI": "ON" if has_jni(target) else "OFF"}
    if target.name != "x86-64":
        options["CMAKE_TOOLCHAIN_FILE"] = str(RUNTIME / f"cmake/{target.name}.cmake")
    if not is_android(target):
        ticket, samples, _ = data()
        options |= {"TKT_BUILD_TESTS": "ON", "TKT_BUILD_EXAMPLE": "ON", "TKT_RAM_BYTES": str(RAM_BYTES)}
        options |= {"TKT_TICKET": str(ticket), "TKT_SAMPLES": str(samples)}
    words = [f"-D{name}={value}" for name, value in options.items()]
    toolchains = [path.read_text(encoding="utf-8") for path in sorted((RUNTIME / "cmake").glob("*.cmake"))]
    wanted, stamp = "\n".join([*words, *toolchains]), folder / "configured"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        run(["cmake", "--fresh", "-S", str(RUNTIME), "-B", str(folder), "-G", "Ninja", "--log-level=WARNING", *words])
        stamp.write_text(wanted, encoding="utf-8")


def link_with_ram(target: Target, ram_bytes: int, program: Path, *, fails: bool = False) -> str:
    """Links the example once more, for another size of RAM."""
    folder, _ = build(target)
    commands = run(["ninja", "-C", str(folder), "-t", "commands", "train_ticket"]).splitlines()
    last = commands[-1].replace(f"TKT_RAM_BYTES={RAM_BYTES}", f"TKT_RAM_BYTES={ram_bytes}")
    assert f"TKT_RAM_BYTES={ram_bytes}" in last
    return run(["sh", "-c", f"cd {folder} && {last.replace('-o mcu/train_ticket', f'-o {program}')}"], fails=fails)


def emulate(target: Target, program: Path, *, fails: bool = False) -> str:
    """Runs a program as ctest runs the tests."""
    folder, _ = build(target)
    tests = json.loads(run(["ctest", "--test-dir", str(folder), "--show-only=json-v1"]))["tests"]
    (command,) = (test["command"] for test in tests if test["name"] == "train_ticket")
    return run([*command[:-1], str(program)], fails=fails)


def ctest(folder: Path, *options: str) -> str:
    at_once = str(os.cpu_count() or 1)
    options = ("--output-on-failure", "--no-tests=error", "--parallel", at_once, *options)
    return run(["ctest", "--test-dir", str(folder), *options])


@functools.cache
def trained(target: Target, test: str = "train_ticket") -> Outcome:
    """The example on the target, under its emulator."""
    folder, _ = build(target)
    return outcome(ctest(folder, "--verbose", "--tests-regex", f"^{test}$"))


def outcome(text: str) -> Outcome:
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
