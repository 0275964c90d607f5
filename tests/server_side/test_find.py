"""The command: exit codes, one JSON object, files that are whole and its own. Bad input is in test_refusals.py."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.ticket import load_ticket
from server_side.find import main
from tests.server_side.searches import SMALL, blobs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def find(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server_side.find", *SMALL, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    path = tmp_path_factory.mktemp("find") / "run"
    return find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.5"), path


def test_json_is_one_documented_object_on_stdout(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["ticket"] == str(path / "ticket")
    for kind in ("dense", "ticket_at_density", "reinit", "shuffle"):
        assert 0 <= result[kind]["accuracy"] <= 1
        assert len(result[kind]["accuracy_by_seed"]) == 3
    assert result["verdict"]["winning"] in (True, False)
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2, 3]
    assert [row["live"] for row in result["rounds"]] == [480, 384, 308, 247]
    assert result["rounds"][3]["density"] == pytest.approx(247 / 480)
    assert "rounds down to" in process.stderr


def test_the_ticket_is_the_one_the_result_speaks_of(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    result, ticket = json.loads(process.stdout), load_ticket(path / "ticket")
    assert ticket.hash == result["ticket_hash"]
    assert ticket.density == pytest.approx(result["density"])
    assert ticket.trained is not None
    assert ticket.card["labels"] == ["0", "1", "2", "3"]
    assert ticket.card["provenance"]["seed"] == result["seed"]


def test_the_report_is_whole_and_asks_for_nothing_from_outside(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    html = (done[1] / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 7
    body = html.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace("http://purl.org", "")
    assert "<script" not in body
    assert "http" not in body.replace("http://creativecommons.org", "")


def test_a_finished_run_is_shown_again_without_training(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    again = find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.5")
    first, second = json.loads(process.stdout), json.loads(again.stdout)
    for result in (first, second):
        del result["seconds"]
        for timed in ("seconds", "energy_kwh", "co2_kg"):
            del result["cost"][timed]
    assert first == second


def test_the_saved_config_reruns_it(done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    process, path = done
    command = [sys.executable, "-m", "server_side.find", "--config", str(path / "config.json"), "--json", "--quiet"]
    rerun = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "r")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert rerun.returncode == 0, rerun.stderr
    assert json.loads(rerun.stdout)["ticket_hash"] == json.loads(process.stdout)["ticket_hash"]
    assert rerun.stderr == ""


def test_no_matching_ticket_exits_3_and_says_what_came_closest(tmp_path: Path) -> None:
    process = find("--output-dir", str(tmp_path / "run"), "--accuracy-tolerance", "0")
    assert process.returncode == 3, process.stderr
    assert "no matching ticket; the closest is" in process.stdout
    assert (tmp_path / "run/report.html").exists()


def test_dry_run_writes_nothing_and_prints_the_plan(
    done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--output-dir", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert (
        "3 rounds down to 51.46% of the weights, 3 seeds, 2 reinit, 1 shuffle of each ticket: 42 training"
        in captured.err
    )
    assert not (tmp_path / "run").exists()
    plan = json.loads(captured.out)
    assert [row["live"] for row in plan["rounds"]] == [480, 384, 308, 247]
    assert [row["trainings"] for row in plan["rounds"]] == [3, 12, 12, 12]
    assert (plan["trainings"], plan["steps"], plan["steps_of_a_training"]) == (42, 42 * 60, 60)
    made = {done[1] / Path(file).relative_to(tmp_path / "run") for file in plan["files"]}
    assert [str(file) for file in made if not file.exists()] == []
    assert set(plan) <= documented()
    assert set(plan["rounds"][0]) <= documented()


def documented() -> set[str]:
    """Every key that the README names for this command."""
    part = README[README.index("**`server_side.find`**") : README.index("**`export`**")]
    return set(re.findall(r"`(\w+)(?:\[\])?`", part))


def nested(part: Any) -> set[str]:
    """The keys of an object and of all objects in it."""
    return {*part}.union(*map(nested, part.values())) if isinstance(part, dict) else set()


def test_the_readme_names_every_key(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    result = json.loads((done[1] / "results.json").read_text())
    figures = {name.removesuffix(end) for name in result["dense"] for end in ("_std", "_interval", "_by_seed")}
    judged = nested(result["verdict"]) | nested(result["cost"])
    figures = {name for name in figures if not name.endswith(("_std", "_interval", "_by_seed"))}
    keys = {*result, *figures, *judged, *result["rounds"][1], *result["run"]}
    assert keys - documented() == set()
    assert result.keys() == json.loads(done[0].stdout).keys()


def test_another_configuration_in_the_same_directory_is_refused(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    process = find("--output-dir", str(done[1]), "--rounds", "4")
    assert process.returncode == 2
    assert "accuracy_tolerance" in process.stderr or "rounds 3, not 4" in process.stderr


@pytest.mark.parametrize("damaged", ["ticket.json", "weights.safetensors"])
def test_a_damaged_ticket_is_named_before_anything_is_trained(
    damaged: str,
    done: tuple[subprocess.CompletedProcess[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done[1], tmp_path / "run")
    (tmp_path / "run/ticket" / damaged).write_bytes(b"{}")
    shutil.rmtree(tmp_path / "run/rounds")
    again = [*SMALL, "--output-dir", str(tmp_path / "run"), "--accuracy-tolerance", "0.5", "--quiet"]
    assert main(again) == 2
    captured = capsys.readouterr()
    assert "or remove it, and the same command writes it again" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run/rounds").exists()
    shutil.rmtree(tmp_path / "run/ticket")
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ticket_hash"] == json.loads(done[0].stdout)["ticket_hash"]


def test_what_killed_runs_left_is_cleared_away(
    done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(done[1], run)
    (run / ".ticket-0123456789abcdef").mkdir()
    left = [run / ".ticket-0123456789abcdef/ticket.json", run / ".results.json-0123456789abcdef"]
    left += [
        run / "rounds/01/.seed0-ticket.npz-0123456789abcdef",
        run / "rounds/01/ticket-stack0.pt",
        run / "rounds/00/dense-stack0.pt",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert main([*SMALL, "--output-dir", str(run), "--accuracy-tolerance", "0.5", "--quiet"]) == 0
    assert [str(path) for path in left if path.exists()] == []
    assert {path.name for path in run.iterdir()} == {path.name for path in done[1].iterdir()}


def endless() -> Any:
    """So much to train between two evaluations that no test waits for it."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(2000, 20)).astype(np.float32), generator.integers(0, 4, 2000)


def test_the_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    arguments = ["--engine", "device", "--data", f"{__name__}:endless", "--steps", "100000000it"]
    arguments += ["--evaluate-every", "5000000it", "--output-dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "server_side.find", *SMALL, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "run/rounds/00").exists():
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(1)  # into the training
            process.send_signal(signal.SIGINT)
            time.sleep(1)
            assert process.poll() is None  # it saves at its next evaluation
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=5)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "once more to stop at once" in told
    assert f"stopped at once; the same command goes on from {tmp_path / 'run'}" in told


def test_the_hash_of_a_ticket_depends_on_no_path_and_no_thread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for place, threads in (("here", 1), ("there", 2)):
        (tmp_path / place).mkdir()
        np.savez(tmp_path / place / "blobs.npz", **blobs())
        arguments = ["--data", f"npz:{tmp_path / place}/blobs.npz", "--threads", str(threads), "--engine", "device"]
        main([*SMALL, *arguments, "--output-dir", str(tmp_path / place / "run"), "--json", "--quiet"])
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["ticket_hash"] == found[1]["ticket_hash"]
    assert "threads" not in found[0]["card"]["provenance"]["options"]
    assert str(tmp_path) not in json.dumps(found[0]["card"])
    assert [result["run"]["threads"] for result in found] == [1, 2]
