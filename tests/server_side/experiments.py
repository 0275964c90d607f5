"""A finished small search to ask questions of, and the experiment command on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server_side import experiments, summary
from server_side.experiment import main
from server_side.lab import Lab, open_lab
from tests.server_side.searches import Watcher, search


def finished(path: Path, **changes: Any) -> Path:
    """The run directory of a search that takes a second."""
    small = search(path, **changes)
    summary.conclude(small, small.run(), seconds=1.0)
    return path


def lab(run: Path, name: str = "trial", options: Any = None, watch: Watcher | None = None) -> Lab:
    return open_lab(run, name, options, watch or Watcher())


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What --json prints, its keys being those of results.json."""
    capsys.readouterr()
    assert main([*arguments, "--json", "--quiet"]) == 0, capsys.readouterr().err
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    name, result = printed["experiment"], printed["result"]
    assert experiments.load(name).explain(result)
    there = Path(printed["report"]).parent / "experiments" / printed["label"] / "results.json"
    assert {**json.loads(there.read_text()), "report": printed["report"]} == printed
    return printed
