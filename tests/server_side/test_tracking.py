"""What a search logs in experiment trackers: every figure once, whatever interrupts it, and never at the cost of the search."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side import tracking
from server_side.errors import UsageError
from server_side.find import carry_out
from server_side.progress import Progress
from server_side.search import Search
from server_side.tracking import Curves, Tracking, curves
from server_side.training import Interrupted
from tests.server_side.searches import Watcher, search

TRAININGS = [f"seed{seed}-{kind}" for seed in (0, 1) for kind in ("ticket", "reinit0", "shuffle0")]


class Recorder:
    """A trackers.Tracker that keeps what it is told, and fails at call `fails_at`."""

    place = "recorder"

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails_at = fails_at

    def _told(self, *call: Any) -> None:
        self.calls.append(call)
        if len(self.calls) == self.fails_at:
            raise ConnectionError("the server\nis gone")

    def begin(self, run: str | None, options: Mapping[str, str]) -> str:
        self._told("begin", run)
        return "the run"

    def drop_round(self, number: int) -> None:
        self._told("drop", number)

    def log_training(self, number: int, name: str, curves: Curves) -> None:
        assert all(steps and np.isfinite(values).all() for steps, values in curves.values())
        self._told("training", number, name)

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        self._told("round", number)

    def log_result(self, figures: Mapping[str, float], files: list[Path]) -> None:
        self._told("result", figures, files)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Those that are opened, one after the other; put one in to have it opened first."""
    waiting: list[Recorder] = []
    monkeypatch.setattr(tracking, "check", lambda name: None)
    monkeypatch.setattr("server_side.trackers.open_tracker", lambda name, folder: waiting.pop(0))
    return waiting


def tracked(path: Path, watch: Watcher | None = None, tracker: str = "mlflow") -> Search:
    return search(path, watch, tracker=tracker)


def test_a_run_that_goes_on_logs_what_is_missing_and_nothing_twice(tmp_path: Path, recorders: list[Recorder]) -> None:
    first, second, third = Recorder(), Recorder(), Recorder()
    recorders += [first, second, third]
    stopped = tracked(tmp_path, Watcher(stop_after=60))  # in round 1
    with pytest.raises(Interrupted):
        stopped.run(Tracking(stopped).after_round)
    assert first.calls[:2] == [("begin", None), ("drop", 0)]
    assert first.calls[-1] == ("round", 0)
    result = carry_out(tracked(tmp_path), Progress(quiet=True))
    assert second.calls[0] == ("begin", "the run")
    assert [call for call in second.calls if call[0] == "round"] == [("round", 1), ("round", 2)]
    logged = [call[1:] for call in first.calls + second.calls if call[0] == "training"]
    assert sorted(logged) == sorted(
        [(0, f"seed{s}-dense") for s in (0, 1)] + [(n, t) for n in (1, 2) for t in TRAININGS]
    )
    name, figures, files = second.calls[-1]
    assert name == "result"
    assert figures["result/round"] in (1, 2)
    assert figures["result/matching"] in (0, 1)
    assert {path.name for path in files} == {"report.html", "ticket"}
    assert all(path.exists() for path in files)
    finished = tracked(tmp_path)
    again = Tracking(finished)
    finished.run(again.after_round)
    again.finish(result)
    assert third.calls == [("begin", "the run")]


@pytest.mark.parametrize("fails_at", [1, 4, 12])
def test_one_that_fails_is_told_of_once_and_costs_nothing(
    tmp_path: Path, recorders: list[Recorder], capsys: pytest.CaptureFixture[str], fails_at: int
) -> None:
    recorders += [Recorder(fails_at), Recorder()]
    failing, whole = recorders
    begun = tracked(tmp_path)
    tracking_ = Tracking(begun)
    rounds = begun.run(tracking_.after_round)
    tracking_.finish({})
    assert len(rounds) == 3
    assert len(failing.calls) == fails_at
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "find: warning: tracker mlflow: ConnectionError: the server is gone; the search goes on without it"
    Tracking(begun).after_round(rounds)  # later the whole of what it was not told
    assert [call for call in whole.calls if call[0] == "round"][-1] == ("round", 2)


def test_a_tracker_is_no_part_of_a_search_s_identity(tmp_path: Path) -> None:
    assert "tracker" not in search(tmp_path).options.identity()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match=rf"tracker {name}: {name}.* not installed; pip install {name}"):
        search(tmp_path, tracker=name)
    assert not any(tmp_path.iterdir())


def test_tensorboard_shows_every_curve_and_round(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(run: str) -> Any:
        return EventAccumulator(str(tmp_path / "tensorboard" / run)).Reload()

    done = tracked(tmp_path, tracker="tensorboard")
    followed = Tracking(done)
    rounds = done.run(followed.after_round)
    (tmp_path / "tracking.json").unlink()  # as if it had been killed before it wrote what is logged
    Tracking(done).after_round(rounds)
    for r in rounds:
        for name, training in r.trainings.items():
            events = read(f"round-{r.number:02d}/{name}")
            for curve, (steps, values) in curves(training).items():
                logged = events.Scalars(curve)
                assert [event.step for event in logged] == steps
                np.testing.assert_allclose([event.value for event in logged], values, rtol=1e-6)
    accuracy = read("rounds").Scalars("accuracy/ticket")
    assert [event.step for event in accuracy] == [1, 2]
    expected = [r.measured["ticket"].accuracy.mean() for r in rounds[1:]]
    np.testing.assert_allclose([event.value for event in accuracy], expected, rtol=1e-6)


@pytest.mark.filterwarnings("default")  # of its own packages
def test_mlflow_has_a_run_with_its_children_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in tracking.PACKAGES["mlflow"]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    from mlflow import MlflowClient

    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    carry_out(tracked(tmp_path / "run"), Progress(quiet=True))
    states = tmp_path / "run/tracking.json"
    state = json.loads(states.read_text())
    (first,) = state.values()
    states.write_text(json.dumps({place: {**known, "rounds": 2} for place, known in state.items()}))
    killed = tracked(tmp_path / "run")  # in the midst of logging round 2
    killed.run(Tracking(killed).after_round)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "pocket-ticket")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop(first["run"])
    names = sorted(run.info.run_name for run in runs.values())
    expected = [f"round-00 seed{s}-dense" for s in (0, 1)] + [f"round-{n:02d} {t}" for n in (1, 2) for t in TRAININGS]
    assert names == sorted(expected)
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert parent.data.params["seeds"] == "2"
    assert {0.0, 1.0} >= {parent.data.metrics["result/winning"], parent.data.metrics["result/matching"]}
    some = next(iter(runs))
    assert [m.step for m in client.get_metric_history(some, "validation_loss")] == [0, 10, 20, 30, 40]
    assert {file.path for file in client.list_artifacts(first["run"])} == {"report.html", "ticket"}
