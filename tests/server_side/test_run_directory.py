"""One run directory, one way of training: what was decided at its start holds; results.json follows the rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from server_side import summary
from server_side.data import load_data, split
from server_side.errors import UsageError
from server_side.find import Clock, prepare
from server_side.options import Options
from server_side.rounds import Round
from server_side.training import Interrupted
from server_side.training_folder import TrainingFolder
from tests.server_side.searches import Tiny, Watcher, blobs, options, search


def config(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "config.json").read_text()))


def test_what_was_left_to_the_machine_is_decided_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU, or more cores, that the next start finds do not change how a run is trained."""
    left_open: dict[str, Any] = {"engine": "auto", "accelerator": "auto", "threads": 0}
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    search(tmp_path / "device", **left_open)
    search(tmp_path / "stacked", **{**left_open, "engine": "stacked"})
    assert (config(tmp_path / "device")["engine"], config(tmp_path / "device")["accelerator"]) == ("device", "cpu")
    assert "threads" not in config(tmp_path / "device")  # no bit depends on them
    assert config(tmp_path / "stacked")["threads"] == 3
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Options().settled({}, has_cuda=True).engine == "stacked"  # what a new run would take
    resumed = search(tmp_path / "device", **left_open).options
    assert (resumed.engine, resumed.accelerator, resumed.threads) == ("device", "cpu", 64)
    resumed = search(tmp_path / "stacked", **{**left_open, "engine": "stacked"}).options
    assert (resumed.accelerator, resumed.threads) == ("cpu", 3)


def test_another_engine_or_number_of_threads_is_refused(tmp_path: Path) -> None:
    search(tmp_path / "device", engine="device")
    with pytest.raises(UsageError, match="holds a run with engine 'device', not 'stacked'; name another"):
        search(tmp_path / "device", engine="stacked")
    search(tmp_path / "stacked", threads=1)
    with pytest.raises(UsageError, match="holds a run with threads 1, not 2; name another"):
        search(tmp_path / "stacked", threads=2)


@pytest.mark.parametrize("name", ["torch", "numpy", "pocket-ticket"])
def test_other_versions_are_refused(tmp_path: Path, name: str) -> None:
    search(tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    facts["versions"][name] = "0.0.1"
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=f"a run by {name} 0.0.1, not .*; install that version, or name another"):
        search(tmp_path)


def test_another_network_by_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(tmp_path)
    monkeypatch.setattr("tests.server_side.searches.Tiny", lambda: Tiny().apply(halved))
    with pytest.raises(UsageError, match="holds a run of another network, or of other initial weights, by that name"):
        search(tmp_path)


def halved(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight.data /= 2


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"versions": 1}', b""])
def test_damaged_facts_are_named(tmp_path: Path, damage: bytes) -> None:
    search(tmp_path)
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(UsageError, match="holds a damaged run"):
        search(tmp_path)


def untested() -> Any:
    data = blobs()
    return data["x"], data["y"]


def test_the_split_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    def parts(**changes: Any) -> tuple[str, bytes]:
        prepared = prepare(options(tmp_path, data=f"{__name__}:untested", **changes), Watcher())
        return prepared.data.fingerprint, prepared.split.x_validation.tobytes()

    assert parts(seed=0) == parts(seed=7)
    fingerprint, validation = parts(split_seed=1)
    assert fingerprint != parts()[0]
    assert validation != parts()[1]


def test_the_split_seed_moves_the_validation_part_where_the_test_part_is_given() -> None:
    data = load_data("tests.server_side.searches:blobs", 0)
    assert data.fingerprint == load_data("tests.server_side.searches:blobs", 1).fingerprint
    assert (split(data, 0.2, 0).x_validation != split(data, 0.2, 1).x_validation).any()


def results(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "results.json").read_text()))


def test_results_follow_the_rounds_and_never_go_back(tmp_path: Path) -> None:
    seen: list[tuple[bool, int]] = []
    small = search(tmp_path, Watcher(stop_after=10**9), rounds=3)

    def record(rounds: list[Round]) -> bool:
        summary.record(small, rounds)
        there = results(tmp_path)
        seen.append((there["complete"], len(there["rounds"])))
        if len(rounds) == 3:
            raise Interrupted
        return False

    with pytest.raises(Interrupted):
        small.run(record)
    assert seen == [(False, 1), (False, 2), (False, 3)]
    assert results(tmp_path)["rounds_planned"] == 3
    assert results(tmp_path)["rounds"][2]["ticket"]["accuracy"] > 0
    again = search(tmp_path, rounds=3)
    known: list[int] = []

    def follow(rounds: list[Round]) -> bool:
        enough = summary.record(again, rounds)
        known.append(len(results(tmp_path)["rounds"]))
        return enough

    rounds = again.run(follow)
    assert known == [3, 3, 3, 4]
    whole = summary.conclude(again, rounds, seconds=1.0)
    assert whole["complete"]
    assert results(tmp_path) == json.loads(json.dumps(whole))
    summary.record(again, rounds[:1])
    assert results(tmp_path)["complete"]


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_controls_leave_no_weights_in_memory(tmp_path: Path, engine: str) -> None:
    for _ in ("trained", "loaded"):
        rounds = search(tmp_path, engine=engine).run()
        for name, training in rounds[1].trainings.items():
            assert bool(training.early) == bool(training.final) == ("ticket" in name)
    assert list(rounds[1].trainings) == [
        *("seed0-ticket", "seed1-ticket", "seed0-reinit0", "seed0-shuffle0", "seed1-reinit0", "seed1-shuffle0"),
    ]


def test_a_finished_trainings_checkpoint_is_cleared_away(tmp_path: Path) -> None:
    search(tmp_path, engine="device").run()
    left = tmp_path / "rounds/01/seed0-ticket.partial.npz"
    left.write_bytes(b"half")
    search(tmp_path, engine="device").run()
    assert not left.exists()


def test_an_error_of_one_job_keeps_what_the_others_have_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses one training: the search ends with that error, and does not hang on those that wait."""
    small = search(tmp_path, engine="device", seeds=4, threads=2)
    save = TrainingFolder.save

    def refusing(folder: TrainingFolder, job: Any, training: Any) -> None:
        if job.name == "seed1-dense":
            raise OSError(28, "No space left on device")
        save(folder, job, training)

    monkeypatch.setattr(TrainingFolder, "save", refusing)
    with pytest.raises(OSError, match="No space left"):
        small.run()
    monkeypatch.undo()
    assert not (tmp_path / "rounds/01").exists()
    whole = search(tmp_path / "whole", engine="device", seeds=4).run()
    again = search(tmp_path, engine="device", seeds=4).run()
    for name, value in whole[2].trainings["seed1-ticket"].final.items():
        assert np.array_equal(value, again[2].trainings["seed1-ticket"].final[name])


def test_the_time_of_all_starts_is_kept(tmp_path: Path) -> None:
    small = search(tmp_path, rounds=1)
    assert small.directory.spent() == 0
    for _ in range(2):
        clock = Clock(small.directory, spends=True)
        clock.lap()
        clock.lap()
    first = small.directory.spent()
    assert first > clock.seconds > 0
    rounds = small.run()
    assert summary.conclude(small, rounds, 0.0)["cost"]["seconds"] == first
    (tmp_path / "spent.json").write_text("damaged")
    assert small.directory.spent() == 0


def test_a_worker_that_does_not_keep_the_time_has_a_clock_of_its_own(tmp_path: Path) -> None:
    """The one that ends first writes the result, with the seconds of its start, and adds none to those of the run."""
    small = search(tmp_path, rounds=1)
    clock = Clock(small.directory, spends=False)
    clock.lap()
    assert clock.seconds > 0
    assert small.directory.spent() == 0
