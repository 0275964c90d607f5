"""The app without its screens on this machine's JVM, on real digits; and its own views as pictures, to be looked at.

The pictures are in build/targets/android-views. They show what the views draw themselves, with a font of this machine's;
buttons and texts are Android's and not in them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.android import digits, host
from tests.java import arm64, jvm
from tests.targets import builds

Record = Callable[[str, object], None]

HEADLESS = ("-Djava.awt.headless=true", "-Xmx256m")  # not under the checks of JNI, which Java's own fonts do not pass
PNG = b"\x89PNG\r\n\x1a\n"


@functools.cache
def assets() -> Path:
    with builds.locked("android-digits") as folder:
        return digits.write(folder)


def path() -> list[Path]:
    return [host.plain_classes(), jvm.jar(), *jvm.JUNIT]


def test_what_is_drawn_is_learnt(record_property: Record) -> None:
    names = [f"io.pocketticket.draw.{name}" for name in ("PictureFormatTest", "ComparisonTest")]
    output = host.run(path(), host.JUNIT, *names, options=(*jvm.CHECKS, f"-Ddigits={assets()}"))
    record_property("JUnit tests", jvm.junit_passed(output))


@pytest.mark.slow
def test_lessons_with_the_library_of_android_on_an_emulated_arm(record_property: Record) -> None:
    jvm.need()
    words = arm64.command(host.JUNIT, "io.pocketticket.draw.ComparisonTest")
    class_path = ":".join(str(entry) for entry in path())
    at = words.index(host.JUNIT)
    words[at:at] = ["-classpath", class_path, f"-Ddigits={assets()}"]  # the last class path is the one that counts
    record_property("JUnit tests", jvm.junit_passed(builds.run(words)))


def test_the_views_can_be_looked_at() -> None:
    """A text that does not fit fails here."""
    with builds.locked("android-views") as folder:
        folder.mkdir(exist_ok=True)
        host.run(path(), "io.pocketticket.draw.Views", str(folder), options=(*HEADLESS, f"-Ddigits={assets()}"))
        for name in ("pad", "comparison"):
            picture = (folder / f"{name}.png").read_bytes()
            assert picture.startswith(PNG)
            assert len(picture) > 5_000  # more than an empty sheet
