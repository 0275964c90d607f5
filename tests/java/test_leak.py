"""Ten thousand trainers opened, used and closed leave nothing behind, nor do those whose budget is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.java import jvm
from tests.targets import builds

CYCLES, WARM_UP = 10_000, 2_000
HEAP = ("-Xcheck:jni", "-Xms48m", "-Xmx48m", "-XX:+AlwaysPreTouch", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

Record = Callable[[str, object], None]


def test_memory_stays_flat(record_property: Record) -> None:
    jvm.need()
    text = builds.run(jvm.command("io.pocketticket.Leak", str(CYCLES), str(WARM_UP), options=HEAP))
    assert "WARNING" not in text, text
    (mapped,) = map(int, re.findall(r"^mapped (\d+)$", text, re.MULTILINE))
    rows = re.findall(r"^cycle (\d+) resident (\d+) mappings (\d+)$", text, re.MULTILINE)
    (first, before, maps_before), (last, after, maps_after) = [tuple(map(int, row)) for row in rows]
    assert (first, last) == (WARM_UP, CYCLES)
    growth = after - before
    record_property("mapped bytes a trainer", mapped)
    record_property("resident bytes", f"{before} after {first} cycles, {after} after {last}")
    assert growth < mapped * (last - first) / 50, text
    assert maps_after - maps_before < 50, text
