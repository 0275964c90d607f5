"""A JVM killed in a fit that saves each step: no step is lost but the unfinished one, and it ends as if never interrupted.

Two hundred deaths: `python -m benchmarks.kill_resume --java --cycles 200`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import kill_resume
from tests.java import jvm

Record = Callable[[str, object], None]


def test_a_jvm_killed_at_random_moments_loses_at_most_the_unfinished_step(
    tmp_path: Path, record_property: Record
) -> None:
    jvm.need()
    report = kill_resume.stress(tmp_path, 10, 2, kill_resume.JAVA)
    assert report.equal, report
    assert report.killed == 10
    assert report.losses_compared > 20
    assert report.losses_of_repeated_steps == 0
    record_property("steps", report.steps)
    record_property("kills in a save", report.killed_in_save)
