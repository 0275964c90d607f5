"""`python -m export report`: every figure of it against where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from device_runtime import inspect
from export import targets
from export.__main__ import main
from export.compact import compact
from export.report import page, text
from export.ticket import Ticket, TicketError
from export.to_native import to_native_bytes
from tests.export.tickets import golden_ticket


@pytest.fixture(scope="module")
def ticket_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_ticket("tiny").save(tmp_path_factory.mktemp("report") / "digits")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    targets = [] if "--targets" in arguments else ["--targets", "none"]
    assert main(["report", *arguments, *targets, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_every_figure_is_that_of_the_artifact(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, str(ticket_dir), "--formats", "native,onnx")
    native, onnx = found["formats"]
    artifact = to_native_bytes(compact(golden_ticket("tiny")))
    counted = inspect(artifact)
    assert native["bytes"] == len(artifact)
    assert native["parts"] == counted["sections"]
    assert (native["memory_bytes"], native["memory_is_exact"]) == (counted["arena_bytes"], True)
    assert native["step_ms"] > 0
    assert 0 < native["gate"]["largest_gradient_error"] < 1e-5
    assert onnx["gate"] is None
    assert "memory_bytes" not in onnx
    assert not list(ticket_dir.parent.glob("digits.*"))  # nothing stays


def test_other_runtimes_are_measured(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("executorch")
    (row,) = told(capsys, str(ticket_dir), "--formats", "executorch", "--quiet")["formats"]
    assert not row["memory_is_exact"]
    assert row["memory_bytes"] > 2**16  # the runtime's own
    assert row["step_ms"] > 0


def test_a_format_that_refuses_says_why(
    ticket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(ticket: Ticket, values: str) -> bytes:
        raise TicketError("conv 'a': not here; native trains it")

    monkeypatch.setattr("export.to_onnx.to_onnx_bytes", refuse)
    page_file = str(ticket_dir.parent / "page.html")
    assert main(["report", str(ticket_dir), "--formats", "onnx", "--targets", "none", "--page", page_file]) == 0
    assert "refused: conv 'a': not here; native trains it" in capsys.readouterr().out
    assert "refused: conv &#x27;a&#x27;" in (ticket_dir.parent / "page.html").read_text()


def test_a_page_needs_nothing_else(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = page(told(capsys, str(ticket_dir), "--formats", "native,onnx"))
    assert shown.count("class=bar") == 2
    assert "http" not in shown
    assert "<script" not in shown


def test_without_a_clone_or_a_compiler_it_says_so(
    ticket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find", lambda program: None)
    (row,) = told(capsys, str(ticket_dir), "--formats", "onnx", "--targets", "cortex-m7")["targets"]
    assert row["not_measured"] == "install gcc-arm-none-eabi, qemu-system-arm, cmake, ninja-build"
    monkeypatch.setattr(targets, "RUNTIME", tmp_path)
    found = told(capsys, str(ticket_dir), "--formats", "onnx", "--targets", "cortex-m4f,aarch64-linux")
    why = "needs a clone of the repository, of which only the package is installed"
    assert found["targets"] == [{"target": n, "not_measured": why} for n in ("cortex-m4f", "aarch64-linux")]
    assert f"not measured ({why})" in text(found)
    assert page(found).count(why) == 2


def test_bad_input_is_one_line(ticket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(ticket_dir), "--formats", "coreml"]) == 2
    assert "format 'coreml' is not known; known are native" in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"")
    unwritable = ["--page", str(tmp_path / "file" / "page")]
    assert main(["report", str(ticket_dir), "--formats", "onnx", "--targets", "none", *unwritable]) == 2
    assert "file" in (error := capsys.readouterr().err)
    assert "cannot print" not in error
    assert main(["report", str(ticket_dir), "--targets", "cortex-m4f,avr"]) == 2
    assert (
        "target 'avr' is not known; known are cortex-m4f, cortex-m7, aarch64-linux, or none" in capsys.readouterr().err
    )
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a ticket" in capsys.readouterr().err
