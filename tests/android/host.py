"""Compiles the Android part and its JUnit tests for this machine's JVM, and runs them with the native library of the host.

What touches Android is compiled against its own classes of API 23; of these a few stand in (stand_in/) where tests run them.
Skips by name what is not installed or cannot be had.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from device_runtime.java.build import compile_java
from examples.android import build_apk, toolchain
from tests.java import jvm
from tests.targets import builds
from tests.targets.builds import ROOT

JUNIT = "org.junit.runner.JUnitCore"
HERE = Path(__file__).parent
SQLITE = Path("/usr/share/java/sqlite-jdbc.jar")
LIBRARY = ROOT / "device_runtime/android/java"
APP = ROOT / "examples/android/java"
STAND_IN_TESTS = ("ExampleStoreTest", "TrainingJobServiceTest")
NEED_THE_STORE = ("NightlyTraining", "PersonalData")  # which is Android's


def touches_android(path: Path) -> bool:
    return "import android." in path.read_text(encoding="utf-8")


def plain(folder: Path) -> list[Path]:
    """The sources that need nothing of Android."""
    sources = [path for path in sorted(folder.rglob("*.java")) if path.stem not in NEED_THE_STORE]
    return [path for path in sources if not touches_android(path)]


@functools.cache
def plain_classes() -> Path:
    """Library and app without what touches Android, and their tests."""
    jvm.need()
    tests = [path for path in sorted((HERE / "io").rglob("*.java")) if path.stem not in STAND_IN_TESTS]
    with builds.locked("android-plain") as folder, jvm.told("javac"):
        folder.mkdir(exist_ok=True)
        compile_java([*plain(LIBRARY), *plain(APP), *tests], folder, [jvm.jar(), *jvm.JUNIT])
        return folder


@functools.cache
def android_jar() -> Path:
    """Skips by name where Debian 11 cannot be had."""
    try:
        with builds.locked("debian-11"):
            return toolchain.debian_11()[1]
    except toolchain.MissingToolError as error:
        pytest.skip(str(error))


@functools.cache
def stand_in_path() -> list[Path]:
    """Stand-ins first, then the library, then Android's own classes, whose methods only throw."""
    jvm.need()
    if not SQLITE.exists():
        pytest.skip("SQLite for Java (package libxerial-sqlite-jdbc-java) is not installed")
    android = android_jar()
    library = builds.FOLDER / "android-library"
    with builds.locked("android-stand-in") as folder, jvm.told("javac"):
        stand_ins, tests = folder / "stand-ins", folder / "tests"
        for made in (stand_ins, tests):
            made.mkdir(parents=True, exist_ok=True)
        build_apk.compile_java([ROOT / "device_runtime/java", LIBRARY], android, library)
        compile_java(sorted((HERE / "stand_in").rglob("*.java")), stand_ins, [android])
        sources = [HERE / f"io/pocketticket/android/{name}.java" for name in STAND_IN_TESTS]
        compile_java(sources, tests, [*jvm.JUNIT, stand_ins, library, android])
    return [tests, *jvm.JUNIT, SQLITE, stand_ins, library, android]  # which has a JUnit that only throws, too


def run(path: list[Path], main: str, *arguments: str, options: tuple[str, ...] = jvm.CHECKS) -> str:
    """What a class printed, run on this machine's JVM, under the checks of JNI unless other options are given."""
    native = jvm.library(jvm.HOST)
    words = [f"-Dio.pocketticket.library={native}", f"-Dfixtures={jvm.files()}", "-XX:-UsePerfData"]
    class_path = ["-classpath", ":".join(str(entry) for entry in path)]
    return builds.run(["java", *class_path, *words, *options, main, *arguments])
