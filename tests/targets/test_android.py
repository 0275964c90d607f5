"""The Android libraries, built by clang without the NDK: small, aligned to 16 KB, and closed but for the header's functions.

They also run: the example is linked with each and must compute the bits of the others. On a device Android's own libc
answers the names that are imported; here glibc does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.targets import builds, elf
from tests.targets.builds import ANDROID, ROOT, RUNTIME, Target
from tests.targets.test_systems import bits, reference

HEADER = RUNTIME / "include/ticket_runtime.h"
MAX_STRIPPED_BYTES = 150 * 1024
MAY_IMPORT = re.compile(
    r"mem(cpy|move|set|cmp)|__aeabi_mem(cpy|move|set|clr)[48]?|sigfillset|"
    r"pthread_(create|join|sigmask|mutex_(init|lock|unlock|destroy)|cond_(init|wait|signal|broadcast|destroy))"
)
FUSED = {"arm64-v8a": r"fmla\tv\d+\.4s", "armeabi-v7a": r"vfma\.f32\ts", "x86_64": r"vfmadd\w+ .*%zmm"}
SOFT_FLOAT_FLAG = 0x200  # EF_ARM_ABI_FLOAT_SOFT in the ELF header

Record = Callable[[str, object], None]
ABIS = pytest.mark.parametrize("abi", ANDROID)


def library(abi: str) -> Path:
    return builds.build(ANDROID[abi])[0] / "libticket_runtime.so"


@ABIS
def test_exports_are_the_functions_of_the_header(abi: str) -> None:
    declared = re.findall(r"^TKT_API [^;(]*?(\w+)\(", HEADER.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(declared) > 20
    assert elf.dynamic_symbols(library(abi))[0] == set(declared)


@ABIS
def test_imports_are_memory_functions_and_threads_alone(abi: str) -> None:
    imported = elf.dynamic_symbols(library(abi))[1]
    assert imported
    assert [name for name in sorted(imported) if not MAY_IMPORT.fullmatch(name)] == []


@ABIS
def test_segments_suit_pages_of_16_kilobytes_and_are_closed_at_once(abi: str) -> None:
    elf.check_segments(library(abi), needed=["libc.so"])


@ABIS
def test_code_uses_the_processor(abi: str, record_property: Record) -> None:
    code = builds.run([f"{ANDROID[abi].tools}objdump", "--disassemble", str(library(abi))])
    fused = len(re.findall(FUSED[abi], code))
    assert fused > 100
    if abi == "armeabi-v7a":
        assert re.findall(r"\tv\w+\.f32\tq.*", code) == [], "32-bit NEON flushes subnormals"
    record_property("vector or fused instructions", fused)


def test_the_arm64_library_is_small(tmp_path: Path, record_property: Record) -> None:
    stripped = tmp_path / "stripped.so"
    builds.run([f"{ANDROID['arm64-v8a'].tools}strip", "-o", str(stripped), str(library("arm64-v8a"))])
    record_property("stripped bytes", stripped.stat().st_size)
    assert stripped.stat().st_size <= MAX_STRIPPED_BYTES


@ABIS
def test_the_library_gives_the_same_bits(abi: str, tmp_path: Path) -> None:
    program, shared = tmp_path / "train_ticket", tmp_path / "libticket_runtime.so"
    for name in ("libticket_runtime.so", "libc.so"):
        content = bytearray((library(abi).parent / name).read_bytes())
        if abi == "armeabi-v7a":  # glibc here is hard float; the header's functions take no float by value, so they fit
            content[36:40] = (int.from_bytes(content[36:40], "little") & ~SOFT_FLOAT_FLAG).to_bytes(4, "little")
        (tmp_path / name).write_bytes(content)
    builds.run([*compile_command(ANDROID[abi]), str(shared), "-o", str(program)])
    assert bits(builds.outcome(builds.run([*emulator(abi, tmp_path), str(program)]))) == reference()


def compile_command(target: Target) -> list[str]:
    ticket, samples, _ = builds.data()
    example = ROOT / "device_runtime/mcu/example"
    sources = [str(example / name) for name in ("train.c", "data.c", "board_posix.c")]
    names = [f'-DTKT_TICKET="{ticket}"', f'-DTKT_SAMPLES="{samples}"', f"-I{HEADER.parent}"]
    return [f"{target.tools}gcc", "-std=c11", *names, *sources, "-Wl,--unresolved-symbols=ignore-in-shared-libs"]


def emulator(abi: str, folder: Path) -> list[str]:
    if abi == "x86_64":
        return ["env", f"LD_LIBRARY_PATH={folder}"]
    name = {"arm64-v8a": "qemu-aarch64", "armeabi-v7a": "qemu-arm"}[abi]
    return [name, "-L", f"/usr/{ANDROID[abi].tools.removesuffix('-')}", "-E", f"LD_LIBRARY_PATH={folder}"]
