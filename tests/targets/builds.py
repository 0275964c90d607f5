"""Builds the device runtime for one target, by its toolchain file, into build/targets, and runs it under emulation.

A target whose compiler or emulator is not installed is skipped by name; `make ctest-targets` installs what it can.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export import targets
from export.targets import (
    ARM64,
    ARMV7,
    BARE,
    HOST,
    MICROCONTROLLERS,
    ROOT,
    RUNTIME,
    SYSTEMS,
    Outcome,
    Target,
    example_command,
    find,
    outcome,
    run,
)
from tests.targets import example_data

__all__ = ["MICROCONTROLLERS", "ROOT", "RUNTIME", "SYSTEMS", "Outcome", "Target", "find", "outcome", "run"]
FOLDER = ROOT / "build/targets"
JNI = Path("jni/libticket_runtime_jni.so")  # in the folder of a build whose target has JNI
ANDROID_JNI = Path("/usr/include/android/nativehelper/jni.h")
RAM_BYTES = 96 * 1024  # all that the example may use, stack included

_CLANG = (("clang++-14", "clang-14"), ("ld.lld-14", "lld-14"))
ANDROID = {
    "arm64-v8a": Target("android-arm64-v8a", _CLANG + ARM64, "aarch64-linux-gnu-"),
    "armeabi-v7a": Target("android-armeabi-v7a", _CLANG + ARMV7 + BARE, "arm-linux-gnueabihf-"),
    "x86_64": Target("android-x86_64", _CLANG + HOST),
}


def need(target: Target) -> None:
    if absent := targets.missing(target):
        names = ", ".join(f"{program} (package {package})" for program, package in absent)
        pytest.skip(f"{target.name}: {names} is not installed")


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


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The folder of a build, for one process at a time."""
    with targets.locked(FOLDER / name) as folder:
        yield folder


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
    options = {"TKT_JNI": "ON" if has_jni(target) else "OFF"}
    if not is_android(target):
        ticket, samples, _ = data()
        options |= {"TKT_BUILD_TESTS": "ON", "TKT_BUILD_EXAMPLE": "ON", "TKT_RAM_BYTES": str(RAM_BYTES)}
        options |= {"TKT_TICKET": str(ticket), "TKT_SAMPLES": str(samples)}
    targets.configure(target, folder, options)


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
    return run([*example_command(folder)[:-1], str(program)], fails=fails)


def ctest(folder: Path, *options: str) -> str:
    at_once = str(os.cpu_count() or 1)
    options = ("--output-on-failure", "--no-tests=error", "--parallel", at_once, *options)
    return run(["ctest", "--test-dir", str(folder), *options])


@functools.cache
def trained(target: Target, test: str = "train_ticket") -> Outcome:
    """The example on the target, under its emulator."""
    folder, _ = build(target)
    return outcome(ctest(folder, "--verbose", "--tests-regex", f"^{test}$"))
