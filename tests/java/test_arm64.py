"""The JUnit tests of the SDK on an emulated JVM of 64-bit ARM, with the Android library exactly as an app would ship it."""

from __future__ import annotations

from collections.abc import Callable

from tests.java import arm64, jvm
from tests.targets import builds

Record = Callable[[str, object], None]


def test_every_junit_test_passes_with_the_android_library(record_property: Record) -> None:
    jvm.need()
    run = jvm.junit_passed(builds.run(arm64.command("org.junit.runner.JUnitCore", *jvm.classes())))
    assert run > 30
    record_property("JUnit tests", run)
