"""`python -m export` as a user sees it: files, table, one JSON object, one line an error, exit codes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from export.__main__ import main
from export.compact import compact
from export.formats import FORMATS, Format
from export.ticket import WEIGHTS_NAME
from export.to_native import to_native_bytes, to_packed_bytes
from export.to_onnx import to_onnx_bytes
from tests.export.tickets import dead_unit_ticket, golden_ticket, small_ticket

ROOT = Path(__file__).parents[2]
ONE_LINE = "python -m export: error: "


@pytest.fixture
def ticket_dir(tmp_path: Path) -> Path:
    return golden_ticket("tiny").save(tmp_path / "digits")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command prints; it wrote nothing to stdout."""
    assert main([*arguments, "--no-gate"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(ONE_LINE)
    assert err.count("\n") == 1
    return err.removeprefix(ONE_LINE).strip()


def test_both_formats_land_beside_the_ticket(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ticket_dir), "--no-gate"]) == 0
    native, onnx = ticket_dir.with_name("digits.tkt"), ticket_dir.with_name("digits.onnx")
    assert native.read_bytes() == to_native_bytes(golden_ticket("tiny"))
    assert sorted(path.name for path in ticket_dir.parent.iterdir()) == ["digits", "digits.onnx", "digits.tkt"]
    out, err = capsys.readouterr()
    assert err == ""
    rows = [line.split() for line in out.splitlines()]
    dense = 4 * (24 + 4 + 16 + 12 + 3)
    for kind, path in (("native", native), ("onnx", onnx)):
        size = path.stat().st_size
        assert [kind, f"{size:,}", f"{size / dense:.1%}", "not", "checked", str(path)] in rows
    assert f"next: python -m device_runtime inspect {native}" in out


def test_json_is_one_object_on_stdout(ticket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ticket_dir), "--json", "--quiet", "--output-dir", str(tmp_path / "a" / "b")]) == 0
    out, err = capsys.readouterr()
    report: dict[str, Any] = json.loads(out)
    assert err == ""
    assert set(report) == {"artifacts", "dense_bytes", "density", "ticket_hash", "vanished"}
    assert report["vanished"] == []
    assert [artifact["format"] for artifact in report["artifacts"]] == ["native", "onnx"]
    native, onnx = report["artifacts"]
    assert onnx["gate"] is None  # nothing trains it
    gate = json.loads(Path(f"{native['path']}.gate.json").read_text())
    assert gate == {"artifact_sha256": native["sha256"], **native["gate"]}
    for artifact in report["artifacts"]:
        content = Path(artifact["path"]).read_bytes()
        assert artifact["bytes"] == len(content)
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
        assert Path(artifact["path"]).parent == tmp_path / "a" / "b"
    ticket = golden_ticket("tiny")
    assert (report["dense_bytes"], report["density"], report["ticket_hash"]) == (236, ticket.density, ticket.hash)


def test_what_vanishes_is_said_and_can_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = dead_unit_ticket()
    place, native, onnx = ticket.save(tmp_path / "t"), tmp_path / "t.tkt", tmp_path / "t.onnx"
    assert main([str(place), "--no-gate"]) == 0
    assert "\n1 of 3 units of a vanish\n" in capsys.readouterr().out
    assert (native.read_bytes(), onnx.read_bytes()) == (
        to_native_bytes(compact(ticket)),
        to_onnx_bytes(compact(ticket)),
    )
    assert main([str(place), "--json", "--no-gate"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["vanished"] == [{"layer": "a", "unit": "units", "count": 1, "of": 3}]
    assert (report["density"], report["dense_bytes"]) == (ticket.density, 4 * (12 + 3 + 6))
    assert main([str(place), "--no-compact", "--no-gate"]) == 0
    assert "units of a vanish" not in capsys.readouterr().out
    assert (native.read_bytes(), onnx.read_bytes()) == (to_native_bytes(ticket), to_onnx_bytes(ticket))


def test_quiet_prints_nothing(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ticket_dir), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_what_does_not_pass_the_gate_is_not_written(
    ticket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the artifact holds another learning rate than the ticket."""
    recipe = {**golden_ticket("tiny").card["recipe"], "learning_rate": 0.5}
    other = replace(golden_ticket("tiny"), card={**golden_ticket("tiny").card, "recipe": recipe})
    wrong = replace(FORMATS["native"], write=lambda source, wanted: to_native_bytes(other))
    monkeypatch.setitem(cast("dict[str, Format]", FORMATS), "native", wrong)
    assert main([str(ticket_dir), "--formats", "native,onnx"]) == 2
    assert "native: the loss of step" in capsys.readouterr().err
    assert sorted(path.name for path in ticket_dir.parent.iterdir()) == ["digits"]
    assert main([str(ticket_dir), "--formats", "native", "--no-gate"]) == 0


def test_a_verdict_on_another_artifact_does_not_stay(ticket_dir: Path) -> None:
    told = ticket_dir.with_name("digits.tkt.gate.json")
    assert main([str(ticket_dir), "--formats", "native", "--quiet"]) == 0
    assert told.exists()
    assert main([str(ticket_dir), "--formats", "native", "--no-gate", "--quiet"]) == 0
    assert not told.exists()


def test_formats_choose_the_files(ticket_dir: Path) -> None:
    assert main([str(ticket_dir), "--formats", "native,native", "--no-gate"]) == 0
    assert sorted(path.name for path in ticket_dir.parent.iterdir()) == ["digits", "digits.tkt"]


def test_packed_is_a_file_of_its_own(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, ticket = ticket_dir.with_name("digits.packed.tkt"), golden_ticket("tiny")
    assert main([str(ticket_dir), "--formats", "native,packed", "--no-gate"]) == 0
    assert ticket_dir.with_name("digits.tkt").exists()
    assert packed.read_bytes() == to_packed_bytes(ticket)
    assert f"next: python -m device_runtime inspect {packed}" in capsys.readouterr().out
    assert main([str(ticket_dir), "--formats", "packed", "--packed-values", "float16", "--values", "trained"]) == 0
    assert packed.read_bytes() == to_packed_bytes(ticket, "float16", trained=True)
    capsys.readouterr()
    assert main([str(ticket_dir), "--formats", "packed", "--json"]) == 0
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (artifact["format"], artifact["bytes"]) == ("packed", packed.stat().st_size)


def test_packed_values_are_for_packed_alone(ticket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, str(ticket_dir), "--packed-values", "float16")
    assert error == "--packed-values is for the format packed; add it to --formats, or leave the option out"


def test_values_choose_what_onnx_holds(ticket_dir: Path) -> None:
    onnx = ticket_dir.with_name("digits.onnx")
    assert main([str(ticket_dir), "--no-gate"]) == 0
    before = onnx.read_bytes()
    assert main([str(ticket_dir), "--values", "trained", "--no-gate"]) == 0
    assert onnx.read_bytes() != before


def test_bad_input_is_one_line(
    ticket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not a ticket" in fails(capsys, str(tmp_path))
    assert "is not a ticket" in fails(capsys, str(tmp_path / "missing"))
    assert "format 'coreml' is not known; known are native, packed, onnx, ort, executorch" in fails(
        capsys, str(ticket_dir), "--formats", "native,coreml"
    )
    assert "format '' is not known" in fails(capsys, str(ticket_dir), "--formats", "")
    bare = small_ticket().save(tmp_path / "bare")
    assert "holds no trained values" in fails(capsys, str(bare), "--values", "trained")
    no_recipe = small_ticket(card={}).save(tmp_path / "no-recipe")
    assert "card recipe: None" in fails(capsys, str(no_recipe))
    (ticket_dir / WEIGHTS_NAME).write_bytes(b"\n")
    assert "is damaged or of another ticket" in fails(capsys, str(ticket_dir))
    assert not list(tmp_path.glob("*.tkt")) + list(tmp_path.glob("*.onnx"))


def test_a_bad_option_exits_2(ticket_dir: Path) -> None:
    for arguments in (["--form", "native"], ["--values", "best"], []):
        with pytest.raises(SystemExit) as caught:
            main([str(ticket_dir), *arguments] if arguments else [])
        assert caught.value.code == 2


def test_an_unwritable_place_is_named(ticket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    line = fails(capsys, str(ticket_dir), "--output-dir", str(tmp_path / "file"))
    assert line.startswith(f"cannot write '{tmp_path / 'file' / 'digits.tkt'}': ")
    assert line.endswith("free the disk or give --output-dir")


def test_a_full_disk_leaves_the_old_file(
    ticket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    native = ticket_dir.with_name("digits.tkt")
    native.write_bytes(b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    assert "No space left on device" in fails(capsys, str(ticket_dir))
    assert native.read_bytes() == b"old"
    assert sorted(path.name for path in ticket_dir.parent.iterdir()) == ["digits", "digits.tkt"]


@pytest.mark.parametrize(("package", "extra"), [("onnx", "onnx"), ("safetensors", "export")])
def test_a_missing_package_names_its_extra(
    ticket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    for module in [name for name in sys.modules if name.startswith((f"{package}.", "export."))]:
        monkeypatch.delitem(sys.modules, module)
        if module.startswith("export."):  # else later tests would patch another module than the one in use
            monkeypatch.delattr(sys.modules["export"], module.removeprefix("export."))
    monkeypatch.setitem(sys.modules, package, None)
    line = fails(capsys, str(ticket_dir))
    assert line == f"package '{package}' is not installed; run: pip install 'pocket-ticket[{extra}]'"
    assert not ticket_dir.with_name("digits.tkt").exists()


def test_interruption_exits_130(
    ticket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    assert main([str(ticket_dir), "--no-gate"]) == 130
    assert capsys.readouterr().err == "python -m export: interrupted; every file there is whole\n"
    assert sorted(path.name for path in ticket_dir.parent.iterdir()) == ["digits"]


def command(*arguments: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "export", *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(line, cwd=ROOT, env=buffered, stdout=stdout, stderr=subprocess.PIPE, check=False, text=True)


def test_as_a_process(ticket_dir: Path) -> None:
    done = command(str(ticket_dir), "--json", "--quiet", "--formats", "native")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["artifacts"][0]["bytes"] == ticket_dir.with_name("digits.tkt").stat().st_size


def test_help_needs_no_optional_package() -> None:
    code = "import sys; sys.modules['safetensors'] = sys.modules['onnx'] = sys.modules['torch'] = None\n"
    code += "from export.__main__ import main; main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TICKET_DIR" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stdout_that_cannot_be_written_is_one_line(ticket_dir: Path) -> None:
    with open("/dev/full", "w") as full:
        done = command(str(ticket_dir), "--formats", "native", "--no-gate", stdout=full)
    assert done.returncode == 2
    assert done.stderr == f"{ONE_LINE}cannot print: No space left on device; the files are written\n"
