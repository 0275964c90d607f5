"""Experiments on a finished search: the command, the lab, what is kept; each experiment has tests of its own."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side import experiments, find_ticket, summary
from server_side.errors import UsageError
from server_side.experiment import main
from server_side.lab import Lab
from server_side.training import Interrupted, Job, Training
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import Tiny, Watcher, blobs, search


@dataclass(frozen=True)
class Choice:
    share: float = 0.5


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("experiment") / "run")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def jobs(there: Lab, kind: str = "repeat", **changes: Any) -> list[Job]:
    return [Job(seed, kind, 0, there.ticket_start(seed), there.chosen.masks[seed], **changes) for seed in there.seeds]


def same(first: Training, second: Training) -> bool:
    curves = np.array_equal(first.validation_loss, second.validation_loss)
    return curves and all(np.array_equal(value, second.final[name]) for name, value in first.final.items())


def test_the_overview_lists_every_experiment_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, about in experiments.names().items():
        assert any(line.split() == [name, *about.split()] for line in lines)
    assert main([]) == 2
    assert "supermask" in capsys.readouterr().err


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_is_whole_and_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = experiments.load(name)
    assert all(callable(getattr(module, verb)) for verb in ("plan", "run", "explain"))
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "--dry_run" in capsys.readouterr().out


def test_the_rounds_are_those_of_the_search_and_nothing_is_trained(run: Path) -> None:
    watch = Watcher()
    there = lab(run, watch=watch)
    whole = search(run).run()
    assert watch.calls == 0
    for ours, theirs in zip(there.rounds, whole, strict=True):
        assert ours.density == theirs.density
        assert same(ours.trainings[next(iter(ours.trainings))], theirs.trainings[next(iter(ours.trainings))])
    result = json.loads((run / "results.json").read_text())
    assert there.chosen.density == result["density"]
    assert there.found == {**result, "ticket": str(run / "ticket"), "report": str(run / "report.html")}


def test_a_ticket_trained_again_gives_the_bits_of_the_search(run: Path) -> None:
    there = lab(run)
    first = there.chosen.trainings
    again = there.train("again", jobs(there, keeps_weights=True))
    for seed in there.seeds:
        assert same(first[f"seed{seed}-ticket"], again[f"seed{seed}-repeat0"])
    assert not there.train("figures", jobs(there, "figure"))["seed0-figure0"].final


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_an_interrupted_stage_goes_on_with_the_same_bits(tmp_path: Path, engine: str) -> None:
    run = finished(tmp_path / "run", engine=engine, seeds=2)
    shutil.copytree(run, tmp_path / "other")
    whole = lab(tmp_path / "other").train("again", jobs(lab(run)))
    with pytest.raises(Interrupted):
        lab(run, watch=Watcher(stop_after=6)).train("again", jobs(lab(run)))
    watch, written = Watcher(), []
    for _ in ("gone on with", "taken from the folder"):
        there = lab(run, watch=watch)
        again = there.train("again", jobs(there))
        assert list(again) == list(whole)
        assert all(same(whole[name], again[name]) for name in whole)
        written.append({file.name: file.stat().st_mtime_ns for file in (there.path / "again").iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {f"{name}.npz" for name in whole}
    assert watch.replica_steps == 2 * 2 * there.search.recipe.steps


def test_accuracies_are_those_of_the_trained_networks(run: Path) -> None:
    there = lab(run)
    trainings = [there.chosen.trainings[f"seed{seed}-ticket"] for seed in there.seeds]
    found = there.accuracies([training.final for training in trainings] * 40)
    assert found.tolist() == [training.final_accuracy for training in trainings] * 40


def test_other_options_other_experiments_and_other_searches_are_refused(run: Path, tmp_path: Path) -> None:
    lab(run, options=Choice()).begin("trial")
    lab(run, options=Choice()).begin("trial")
    with pytest.raises(
        UsageError, match=r"holds an experiment with share 0\.5, not 0\.2; give it a --label of its own"
    ):
        lab(run, options=Choice(0.2)).begin("trial")
    with pytest.raises(UsageError, match="holds experiment trial, not other; give it a --label"):
        lab(run, options=Choice()).begin("other")
    lab(run, "another", options=Choice(0.2)).begin("trial")
    other = finished(tmp_path / "other", seed=5)
    shutil.copytree(run / "experiments", other / "experiments")
    with pytest.raises(UsageError, match="on another search"):
        lab(other, options=Choice()).begin("trial")


def test_a_search_that_is_not_finished_is_refused_with_what_to_do(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = search(tmp_path / "begun")
    small.run(functools.partial(summary.record, small))
    (run / "rounds/02/seed1-ticket.npz").unlink()
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "begun", "is not finished; let python -m server_side.find --config"),
        (run, "is not finished"),
        (tmp_path / "empty", "holds no search"),
        (tmp_path / "missing", "holds no search"),
    ):
        assert main(["supermask", str(path)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense", "RUN"], "experiment 'nonsense': expected one of"),
        (["supermask", "RUN", "--label", "a/b"], "label 'a/b'"),
        (["supermask", "RUN", "--label", ".."], "label '..'"),
        (["supermask", "RUN", "--round", "0"], "has the rounds 1 to 2"),
        (["supermask", "RUN", "--round", "3"], "has the rounds 1 to 2"),
    ],
)
def test_bad_usage_is_one_line(run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run) if argument == "RUN" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_finished_experiment_is_in_the_report_and_find_keeps_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = search(run)
    summary.conclude(small, small.run(), seconds=1.0)
    before = (run / "report.html").read_text()
    printed = told(capsys, "supermask", str(run), "--label", "before-training")
    page = (run / "report.html").read_text()
    assert "<h2>Experiment: before-training</h2>" in page
    assert printed["report"] == str(run / "report.html")
    assert experiments.load("supermask").explain(printed["result"])[0] in page
    assert page.count("<svg") == before.count("<svg") + 1
    summary.conclude(small, small.run(), seconds=1.0)  # find again
    assert (run / "report.html").read_text() == page
    shutil.rmtree(run / "experiments")
    told(capsys, "supermask", str(run), "--label", "other")
    text = (run / "report.html").read_text()
    assert "before-training" not in text
    shutil.rmtree(run / "experiments")
    for label, damaged in (
        ("half", b'{"experiment": "supermask"'),
        ("older", b'{"experiment": "supermask", "result": {}, "options": {}}'),
        ("unknown", b'{"experiment": "later", "result": {}, "options": {}}'),
    ):
        (run / "experiments" / label).mkdir(parents=True)
        (run / "experiments" / label / "results.json").write_bytes(damaged)
    summary.conclude(small, small.run(), seconds=1.0)
    assert (run / "report.html").read_text() == before


def test_dry_run_tells_the_plan_and_writes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["supermask", str(run), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "stages": [],
        "trainings": 0,
        "steps": 0,
        "directory": str(run / "experiments/supermask"),
    }
    assert "nothing is trained" in captured.err
    assert not (run / "experiments").exists()


def test_another_round_is_asked_about_and_the_report_keeps_its_ticket(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = json.loads((run / "results.json").read_text())["round"]
    other = 3 - chosen
    printed = told(capsys, "two-peaked", str(run), "--round", str(other), "--label", "other-round")
    results = json.loads((run / "results.json").read_text())
    assert printed["round"] == other
    assert printed["result"]["density"] == results["rounds"][other]["density"] != results["density"]
    assert main(["two-peaked", str(run), "--label", "other-round", "--quiet"]) == 2
    assert f"an experiment on round {other}, not {chosen}" in capsys.readouterr().err


def test_a_run_of_what_has_no_name_is_refused_with_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unnamed() -> Tiny:
        return Tiny()

    settings: dict[str, Any] = {"seeds": 1, "rounds": 1, "reinits": 0, "shuffles": 0, "stability": False}
    settings |= {"steps": "10it", "evaluate_every": "10it", "batch": 16, "validation": 0.2, "engine": "stacked"}
    arrays = blobs()["x"], blobs()["y"]
    for name, model, data, said in (
        ("arrays", Tiny, arrays, ["its data were given as arrays, so"]),
        (
            "function",
            unnamed,
            "tests.server_side.searches:blobs",
            ["its model 'unnamed-", "' cannot be imported"],
        ),
        ("both", unnamed, arrays, ["its data were given as arrays and its model 'unnamed-"]),
    ):
        find_ticket(model, data, output_dir=tmp_path / name, **settings)
        assert main(["supermask", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert all(part in error for part in said)
        assert "data by a source, e.g. npz:FILE" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("retrain", ["learning-rate", "fine-tune"])
def test_tickets_of_trained_weights_are_not_compared_with_rewound_ones(
    tmp_path: Path, retrain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = finished(tmp_path / "run", retrain=retrain, rounds=1)
    data = "--data+=tests.server_side.test_experiments_transfer:mirrored"
    for command in (["supermask"], ["necessity"], ["sufficiency"], ["two-peaked"], ["transfer", data]):
        assert main([command[0], str(trained), *command[1:], "--quiet"]) == 2
        error = capsys.readouterr().err
        assert f"was searched with retrain {retrain}: its tickets start from trained weights" in error
        assert error.count("\n") == 1
    assert not (trained / "experiments").exists()
    assert told(capsys, "survivors", str(trained))["result"]["at_step"] == 0


def test_a_place_whose_tickets_start_from_trained_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirrored = "tests.server_side.test_experiments_transfer:mirrored"
    other = finished(tmp_path / "other", data=mirrored, retrain="learning-rate")
    assert main(["transfer", str(run), f'--runs=["{other}"]', "--quiet"]) == 2
    assert f"'{other}' was searched with retrain learning-rate" in capsys.readouterr().err
