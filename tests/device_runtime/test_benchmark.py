"""The benchmarks of a training step run, name who is missing, and write what they printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("safetensors", reason="the benchmark builds its artifact by export, which needs safetensors")

from benchmarks import device_memory, device_step, half_activations


def absent(*_: object) -> None:
    raise ImportError("No module named 'rival'")


def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(device_step.PEERS, "rival", absent)
    path = tmp_path / "result.json"
    code = device_step.main(["--rounds", "2", "--peers", "torch trio", "rival", "--no-layers", "--json", str(path)])
    assert code == 0
    result = json.loads(path.read_text())
    assert set(result["ratio"]) == {"0.2", "0.1", "0.05", "0.036", "0.02"}
    for ratios in result["ratio"].values():
        assert set(ratios) == {"torch trio"}
        assert ratios["torch trio"] > 0
    assert result["missing"]["rival"] == "not installed (No module named 'rival')"
    assert result["missing"]["executorch"] == "not asked for"
    text = capsys.readouterr().out
    assert "not installed (No module named 'rival')" in text
    assert result["device"] in text


def test_the_memory_of_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "memory.json"
    assert device_memory.main(["--peers", "torch eager", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    least = next(row for row in rows if (row["network"], row["optimizer"], row["batch"]) == ("LeNet-300-100", "sgd", 1))
    assert least["native"]["bytes"] <= 64 * 1024, "a microcontroller's LeNet"
    assert least["torch eager"]["bytes"] > 2 * 266_610 * 4, "dense weights and their gradients at the least"
    assert f"{least['native']['bytes']:,}" in capsys.readouterr().out
    deep = next(row for row in rows if (row["network"], row["optimizer"], row["batch"]) == ("ResNet-20", "sgd", 32))
    assert (
        deep["native"]["recomputed_bytes"]
        < 25e6
        < 2 * deep["native"]["recomputed_bytes"]
        < deep["torch eager"]["bytes"]
    )


def test_what_half_floats_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "half.json"
    assert half_activations.main(["--seeds", "1", "--epochs", "1", "--json", str(path)]) == 0
    for row in json.loads(path.read_text())["rows"]:
        assert 0 < row["gradient_error"] < 0.01
        assert row["half"]["arena_bytes"] < row["float32"]["arena_bytes"]
    assert "digits conv net" in capsys.readouterr().out
