"""Compiles the SDK and its JUnit tests, and runs Java: on the JVM of this machine, or on an emulated one of 64-bit ARM.

Skips by name what is not installed; `make test` installs what it can.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_runtime.java.build import build, compile_java
from tests.java import fixtures
from tests.targets import builds
from tests.targets.builds import ANDROID, JNI, Target

JUNIT = (Path("/usr/share/java/junit4.jar"), Path("/usr/share/java/hamcrest.jar"))
TESTS = Path(__file__).parent / "io/pocketticket"
CHECKS = ("-Xcheck:jni", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FAMILY = "io.pocketticket"
JAR = "pocket-ticket.jar"
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{time.time_ns()}"  # the same in all its processes
HOST = builds.SYSTEMS["x86-64"]
ARM64 = ANDROID["arm64-v8a"]


def need() -> None:
    """Skips unless there are a JDK and JUnit."""
    if builds.find("javac") is None:
        pytest.skip("javac (package default-jdk-headless) is not installed")
    if not all(path.exists() for path in JUNIT):
        pytest.skip("JUnit (package junit4) is not installed")


@contextmanager
def told(what: str) -> Iterator[None]:
    """A failed compilation, with the compiler's words in place of a command line."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{what}: exit status {error.returncode}") from error


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of each run of the tests makes anew; the others may be reading it."""
    with builds.locked(name) as folder:
        stamp = folder / "run"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != RUN:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            stamp.write_text(RUN, encoding="utf-8")
        return folder


@functools.cache
def jar() -> Path:
    need()
    with told("javac"):
        return once("java", lambda folder: build(folder / JAR)) / JAR


@functools.cache
def tests() -> Path:
    """The classes of the tests."""
    path = [jar(), *JUNIT]
    with told("javac"):
        return once("java-tests", lambda folder: compile_java(sorted(TESTS.glob("*.java")), folder, path))


@functools.cache
def files() -> Path:
    return once("java-fixtures", fixtures.write)


@functools.cache
def library(target: Target) -> Path:
    """The native library, as it is built for the target."""
    builds.need_jni(target)
    return builds.build(target)[0] / JNI


def classes() -> tuple[str, ...]:
    return tuple(f"{FAMILY}.{path.stem}" for path in sorted(TESTS.glob("*Test.java")))


def command(main: str, *arguments: str, options: tuple[str, ...] = CHECKS) -> list[str]:
    """The command line that runs a class of the tests on this machine's JVM."""
    return ["java", *java_options(library(HOST)), *options, main, *arguments]


def java_options(native: Path) -> list[str]:
    path = ":".join(str(entry) for entry in (jar(), tests(), *JUNIT))
    return ["-classpath", path, f"-Dio.pocketticket.library={native}", f"-Dfixtures={files()}", "-XX:-UsePerfData"]


def junit_passed(output: str) -> int:
    """How many tests JUnit ran; fails unless all passed and nothing else was printed."""
    lines = [line for line in output.splitlines() if line.strip()]
    ok = [line for line in lines if line.startswith("OK (")]
    assert len(ok) == 1, output
    noise = [line for line in lines if not line.startswith(("JUnit version", ".", "Time: ", "OK ("))]
    assert noise == [], output
    return int(ok[0].split("(")[1].split()[0])
