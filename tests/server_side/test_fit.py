"""A ticket for a device's limits: exactly what export and inspect count, the most accurate that fits, and a clear no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from device_runtime import inspect
from export.compact import compact
from export.ticket import load_ticket
from export.to_native import to_native_bytes
from server_side.errors import UsageError
from server_side.find import main
from server_side.fit import Footprint, Limits, parse_bytes
from tests.server_side.searches import search

RUN = [
    *("--data", "tests.server_side.searches:blobs", "--model", "tests.server_side.searches:Tiny", "--seeds", "2"),
    *("--reinits", "1", "--shuffles", "0", "--steps", "40it", "--evaluate-every", "10it", "--batch", "16"),
    *(
        "--validation",
        "0.2",
        "--engine",
        "device",
        "--threads",
        "1",
        "--accuracy-tolerance",
        "0.9",
        "--json",
        "--quiet",
    ),
]


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main([*RUN, *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_a_ticket_fits_as_inspect_counts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = found(capsys, "--fit-arena", "4KB", "--output-dir", str(tmp_path / "run"))
    fits = result["fits"]
    assert (code, fits["holds"]) == (0, True)
    artifact = to_native_bytes(compact(load_ticket(str(result["ticket"]))))
    counted = inspect(artifact)
    assert counted["arena_bytes"] == fits["arena_bytes"] <= 4096
    assert len(artifact) == fits["artifact_bytes"]
    assert counted["batch"] == fits["batch"] < 16  # halved: activations of 16 samples take more
    assert inspect(artifact, batch=2 * fits["batch"])["arena_bytes"] > 4096


def test_pruning_goes_on_until_a_ticket_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit between the bytes of two rounds."""
    _, first = found(capsys, "--rounds", "1", "--fit-bytes", "1GB", "--output-dir", str(tmp_path / "first"))
    limit = first["fits"]["artifact_bytes"] - 400
    code, result = found(capsys, "--fit-bytes", str(limit), "--output-dir", str(tmp_path / "run"))
    assert code == 0
    assert 1 < result["round"] == len(result["rounds"]) - 1
    assert result["fits"]["artifact_bytes"] <= limit


def test_of_those_that_fit_the_most_accurate_on_the_validation_part_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, result = found(capsys, "--rounds", "4", "--fit-bytes", "1GB", "--output-dir", str(tmp_path / "run"))
    by_round = {row["round"]: row["ticket"]["validation_accuracy"] for row in result["rounds"][1:]}
    assert by_round[result["round"]] == max(by_round.values())


def test_what_cannot_fit_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"fit_bytes 100: no ticket of this model fits; with .*% of the weights it takes"
    ):
        search(tmp_path / "run", fit_bytes="100", rounds=None)
    assert not (tmp_path / "run").exists()


def test_with_rounds_of_its_own_a_search_that_finds_none_says_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = found(capsys, "--rounds", "1", "--fit-arena", "1KB", "--output-dir", str(tmp_path / "run"))
    assert code == 3
    assert result["fits"]["holds"] is False


def test_limits_are_all_met() -> None:
    taken = Footprint(batch=1, artifact_bytes=10, arena_bytes=20, step_ms=0.5)
    assert taken.fits(Limits(10, 20, 0.5))
    for limits in (Limits(9), Limits(None, 19), Limits(None, None, 0.4)):
        assert not taken.fits(limits)


def test_a_step_is_timed_where_it_is_limited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, result = found(capsys, "--rounds", "1", "--fit-step-ms", "1000", "--output-dir", str(tmp_path / "run"))
    assert 0 < result["fits"]["step_ms"] < 1000
    _, again = found(capsys, "--rounds", "1", "--fit-step-ms", "1000", "--output-dir", str(tmp_path / "run"))
    assert again["fits"] == result["fits"]  # no second measurement: it might choose another ticket


def test_bytes_are_as_people_write_them() -> None:
    assert [parse_bytes(text, "fit_arena") for text in ("65536", "64KB", "64 kb", "1.5MB")] == [
        65536,
        65536,
        65536,
        1572864,
    ]
    for text in ("", "KB", "-1", "64 apples", "0"):
        with pytest.raises(UsageError, match="expected bytes like 65536, 64KB"):
            parse_bytes(text, "fit_arena")


def test_rounds_do_not_depend_on_a_time_that_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of rounds would be another correction of the verdict, and another ticket by the same command."""
    planned = []
    for number, milliseconds in enumerate((0.001, 5.0, 1000.0)):
        monkeypatch.setattr("server_side.fit._step_ms", lambda *given, ms=milliseconds: ms)
        there = search(tmp_path / str(number), rounds=None, fit_step_ms=1.0, prune_fraction=0.5)
        planned.append(len(there.ladder.rungs))
        both = search(tmp_path / f"both{number}", rounds=None, fit_step_ms=1.0, fit_bytes="6KB", prune_fraction=0.5)
        planned.append(len(both.ladder.rungs))
    assert planned == planned[:2] * 3
