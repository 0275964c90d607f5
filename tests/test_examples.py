"""The examples run to their end, from a folder of their own, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_digits_finds_exports_and_trains(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/digits.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for told in (
        " ticket, ",
        "dense  ",
        "native artifact",
        "onnx artifact",
        "device 2: held-out",
        "deaths",
        "report: ",
    ):
        assert told in done.stdout
    for made in ("run/report.html", "run/ticket.tkt", "run/ticket.onnx"):
        assert (tmp_path / "demo" / made).exists()
