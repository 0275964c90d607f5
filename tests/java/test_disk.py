"""A save on a disk that fails or dies at any change: the newest generation stays, and the one before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.java import jvm
from tests.targets import builds

Record = Callable[[str, object], None]


def test_no_failure_of_the_disk_costs_a_generation(tmp_path: Path, record_property: Record) -> None:
    jvm.need()
    if builds.find("cc") is None:
        pytest.skip("cc (package gcc) is not installed")
    library, folder = tmp_path / "failing_disk.so", tmp_path / "disk"
    folder.mkdir()
    source = Path(__file__).parent / "failing_disk.c"
    builds.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"])
    preload = ["env", f"LD_PRELOAD={library}", f"FAILING_DISK={folder}"]
    text = builds.run([*preload, *jvm.command("io.pocketticket.FailingDisk", str(folder))])
    (failures,) = map(int, re.findall(r"^failures (\d+)\n", text, re.MULTILINE))
    assert text == f"failures {failures}\n", text
    assert failures > 100
    record_property("failures", failures)
