"""The JUnit tests of the SDK on the JVM of this machine, under -Xcheck:jni, which must have nothing to say."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.java import jvm
from tests.targets import builds

Record = Callable[[str, object], None]


def test_every_junit_test_passes_without_a_word_of_the_jni_checks(record_property: Record) -> None:
    jvm.need()
    run = jvm.junit_passed(builds.run(jvm.command("org.junit.runner.JUnitCore", *jvm.classes())))
    written = sum(
        len(re.findall(r"^  @Test\b", path.read_text("utf-8"), re.MULTILINE)) for path in jvm.TESTS.glob("*Test.java")
    )
    assert run == written > 30
    record_property("JUnit tests", run)
