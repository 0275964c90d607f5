"""The native library of the Java SDK for Android: native methods alone are shown, of the types that Java declares; small,
aligned to 16 KB, and closed but for a few functions of libc. It also runs, on an emulated JVM: test_arm64.py.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime.java.build import RELEASE, SOURCES
from tests.java import jvm
from tests.targets import builds, elf
from tests.targets.builds import ANDROID, ROOT
from tests.targets.test_android import MAY_IMPORT

BINDING = ROOT / "device_runtime/jni"
MAX_STRIPPED_BYTES = 170 * 1024
MAY_ALSO_IMPORT = {"mmap", "munmap", "open", "fsync", "close"}
PREFIX = "Java_io_pocketticket_Native_"

Record = Callable[[str, object], None]
ABIS = pytest.mark.parametrize("abi", ANDROID)


def declared(folder: Path) -> dict[str, tuple[str, str]]:
    """Result and parameters of each native method, as javac writes them into a header."""
    sources = sorted((SOURCES / "io").rglob("*.java"))
    command = ["javac", "--release", RELEASE, "-nowarn", "-Xlint:-options", "-d", str(folder), "-h", str(folder)]
    subprocess.run([*command, *map(str, sources)], check=True)
    (header,) = folder.glob("*Native.h")
    found = re.findall(rf"JNIEXPORT (\w+) JNICALL {PREFIX}(\w+)\s*\((.*?)\);", header.read_text("utf-8"), re.DOTALL)
    return {name: (result, types(words)) for result, name, words in found}


def defined() -> dict[str, tuple[str, str]]:
    text = "".join(path.read_text("utf-8") for path in sorted(BINDING.glob("*.cpp")))
    found = re.findall(r"^TKT_NATIVE\((\w+), (\w+)\)\s*\((.*?)\) \{", text, re.DOTALL | re.MULTILINE)
    return {name: (result, types(words)) for result, name, words in found}


def types(parameters: str) -> str:
    """Without names, which javac leaves out."""
    return ", ".join(re.sub(r"\s*\*.*", " *", word.strip()).split(" ")[0] for word in parameters.split(","))


def test_every_native_method_is_defined_with_the_types_that_java_declares(tmp_path: Path) -> None:
    jvm.need()
    methods = declared(tmp_path)
    assert len(methods) > 20
    assert defined() == methods


@ABIS
def test_native_methods_alone_are_exported(abi: str) -> None:
    exported, _ = elf.dynamic_symbols(jvm.library(ANDROID[abi]))
    assert exported == {f"{PREFIX}{name}" for name in defined()} | {"JNI_OnLoad"}


@ABIS
def test_imports_are_the_core_s_and_pages_and_folders(abi: str) -> None:
    _, imported = elf.dynamic_symbols(jvm.library(ANDROID[abi]))
    others = {name for name in imported if not MAY_IMPORT.fullmatch(name)}
    assert others == MAY_ALSO_IMPORT


@ABIS
def test_segments_suit_pages_of_16_kilobytes_and_are_closed_at_once(abi: str) -> None:
    elf.check_segments(jvm.library(ANDROID[abi]), needed=["libc.so"])


def test_the_arm64_library_is_small(tmp_path: Path, record_property: Record) -> None:
    target, stripped = ANDROID["arm64-v8a"], tmp_path / "stripped.so"
    builds.run([f"{target.tools}strip", "-o", str(stripped), str(jvm.library(target))])
    record_property("stripped bytes", stripped.stat().st_size)
    assert stripped.stat().st_size <= MAX_STRIPPED_BYTES
