"""The benchmarks of a training step run, name who is missing, and write what they printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("safetensors", reason="the benchmark builds its artifact by export, which needs safetensors")

from benchmarks import artifacts, dense_fallback, device_memory, device_step, half_activations, layers, sparse_rival
from device_runtime import inspect
from export import layout
from export.layout import layouts
from export.to_native import to_native_bytes

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


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


class StandInProbe:
    """For the compiled one."""

    def open(self, content: bytes, layer: layers.Layer, kernels: int) -> Callable[[int], float]:
        return lambda _: float("nan")

    def fma_ns(self, isa: str, *, from_memory: bool) -> float:
        return 1.0


class StandInRival:
    """SparseProp's kernels of linear layers, or wrong ones: (features, batch), rows in compressed form, results added."""

    def __init__(self, *, wrong: float = 0.0) -> None:
        self.wrong = wrong

    def sparse_linear_vectorized_forward(
        self, x: Floats, starts: Ints, columns: Ints, values: Floats, y: Floats
    ) -> None:
        y += dense_weight(len(y), len(x), starts, columns, values) @ x

    def sparse_linear_vectorized_backward(
        self, x: Floats, starts: Ints, columns: Ints, values: Floats, dy: Floats, dx: Floats, dw: Floats
    ) -> None:
        dx += dense_weight(len(dy), len(x), starts, columns, values).T @ dy
        rows = np.repeat(np.arange(len(dy)), np.diff(starts))
        dw += (dy @ x.T)[rows, columns] + np.float32(self.wrong)


def dense_weight(outputs: int, inputs: int, starts: Ints, columns: Ints, values: Floats) -> Floats:
    weight = np.zeros((outputs, inputs), np.float32)
    weight[np.repeat(np.arange(outputs), np.diff(starts)), columns] = values
    return weight


@pytest.fixture
def small_layer(monkeypatch: pytest.MonkeyPatch) -> layers.Layer:
    """In place of all, with a stand-in for the probe."""
    layer = layers.linear(20, 12, 4)
    monkeypatch.setattr(layers, "LAYERS", (layer,))
    monkeypatch.setattr(layers, "Probe", StandInProbe)
    monkeypatch.setattr(layers, "available", lambda: ["avx2"])
    return layer


@pytest.mark.parametrize("with_rival", [True, False])
def test_single_layers(
    with_rival: bool,
    tmp_path: Path,
    small_layer: layers.Layer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure_here(isa: str, rounds: int, checkout: Path | None) -> list[dict[str, Any]]:
        assert checkout == (Path("their folder") if with_rival else None)
        return layers.measure(isa, rounds, StandInRival() if checkout else None)

    monkeypatch.setattr(layers, "measure_apart", measure_here)
    monkeypatch.setattr(sparse_rival, "build", lambda checkout: checkout)
    path = tmp_path / "result.json"
    option = ["--sparseprop", "their folder"] if with_rival else []
    assert device_step.main(["--rounds", "1", "--peers", "torch trio", "--json", str(path), *option]) == 0
    rows = json.loads(path.read_text())["layers"]
    unstructured = [("unstructured", density) for density in (0.2, 0.1, 0.05, 0.036, 0.02)]
    blocks = [("blocks of 4", 0.2), ("blocks of 4", 0.05)]
    assert [(row["pattern"], row["density"]) for row in rows] == [("dense", 1.0), *unstructured, *blocks]
    text = capsys.readouterr().out
    assert "20.0% in blocks of 4 " in text
    assert ("SparseProp ms" in text) == with_rival
    for row in rows:
        assert ("sparseprop_ms" in row) == (with_rival and row["pattern"] != "dense")
        if "sparseprop_ms" in row:
            assert row["sparseprop_over_native"] == row["sparseprop_ms"] / row["native_ms"]
            assert f"{row['sparseprop_ms']:.3f} {row['sparseprop_over_native']:>19.1f}\n" in text


def test_a_pattern_is_stored_as_its_name_says() -> None:
    for layer in layers.LAYERS:
        for pattern in layers.patterns(layer):
            made = layers.ticket(layer, pattern)
            assert to_native_bytes(made)
            layout = layouts(made.network, made.masks)["layer"]
            assert layout.block == pattern.block
            if pattern.kind == "dense":
                assert layout.mask is None
            else:
                assert layout.mask is not None
                assert layout.mask.sum() == pytest.approx(pattern.density * layout.mask.size, abs=pattern.block / 2)


def test_both_forms_of_a_pattern_are_timed(
    small_layer: layers.Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dense_fallback, "LAYERS", (small_layer,))
    monkeypatch.setattr(dense_fallback, "SMALL_BATCHES", ())
    monkeypatch.setattr(dense_fallback, "Probe", StandInProbe)
    monkeypatch.setattr(dense_fallback, "available", lambda: ["avx2"])
    chosen = dict(layout.MASKED_DENSITY)
    path = tmp_path / "result.json"
    assert dense_fallback.main(["--rounds", "1", "--json", str(path)]) == 0
    assert [row["density"] for row in json.loads(path.read_text())["layers"]][-1] == 0.95
    assert small_layer.name in capsys.readouterr().out
    csr, masked = (dense_fallback.artifact(small_layer, 0.9, form) for form in ("csr", "masked"))
    assert inspect(csr)["nnz"] == inspect(masked)["nnz"]
    assert inspect(csr)["value_count"] < inspect(masked)["value_count"]
    assert dict(layout.MASKED_DENSITY) == chosen


def test_a_rival_that_computes_something_else_is_not_timed(small_layer: layers.Layer) -> None:
    with pytest.raises(sparse_rival.RivalError, match=r"dw is off by 0\.01 from dense PyTorch's; nothing was timed"):
        layers.measure("avx2", 1, StandInRival(wrong=0.01))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "is no checkout of SparseProp: it has no sparseprop/backend.cpp"),
        ("#error out of order\n", "does not build: .*out of order"),
    ],
)
def test_a_checkout_that_cannot_be_used(
    source: str | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_rival, "BUILD", tmp_path / "build")
    checkout, result = tmp_path / "theirs", tmp_path / "result.json"
    (checkout / "sparseprop").mkdir(parents=True)
    if source is not None:
        (checkout / "sparseprop/backend.cpp").write_text(source)
    assert device_step.main(["--sparseprop", str(checkout), "--json", str(result)]) == 2
    assert layers.main(["--isa", "avx2", "--sparseprop", str(checkout)]) == 2
    out, errors = capsys.readouterr()
    assert not out
    assert not result.exists()
    lines = errors.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.search(f"error: --sparseprop: '{re.escape(str(checkout))}' {reason}", line)


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


def test_the_artifacts_of_a_small_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime.training.api", reason="needs the `ort` extra")
    monkeypatch.setattr(artifacts, "NETWORKS", {"digits": ("lenet-300-100-digits", 0.05, False)})
    monkeypatch.setattr(artifacts, "ARTIFACTS", {n: a for n, a in artifacts.ARTIFACTS.items() if n != "executorch"})
    monkeypatch.setattr(artifacts, "DENSE", ("onnx", "ort"))
    path = tmp_path / "result.json"
    assert artifacts.main(["--networks", "digits", "--mnist", str(tmp_path / "nowhere"), "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["networks"]
    found = row["artifacts"]
    assert row["live"] == pytest.approx(0.05 * row["parameters"], rel=0.02)
    assert found["packed, float16"]["bytes"] < found["packed, float32"]["bytes"] < found["native"]["bytes"]
    assert found["onnx"]["bytes"] < found["native"]["bytes"] < 0.2 * min(row["dense_bytes"].values())
    for name in ("native", "ort"):
        assert 0 < found[name]["gate"]["largest_gradient_error"] < found[name]["gate"]["allowed_there"]
    assert found["onnx"]["largest_probability_difference"] < 1e-6
    assert "no seed" in found["packed, a seed"]["refused"]
    out, err = capsys.readouterr()
    assert f"digits, packed, a seed: {found['packed, a seed']['refused']}" in out
    assert "nothing is trained on it" in err
