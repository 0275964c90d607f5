"""Tickets carried to other data: exactly the ones found there, trained by the recipe of the place, beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.errors import UsageError
from server_side.experiment import main
from server_side.experiments.transfer import Options, carried, explain, figures, found_at, places, transfer_jobs
from server_side.lab import Lab, Place
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import blobs

HERE = "tests.server_side.test_experiments_transfer"
LENET = {"model": "lenet-300-100", "rounds": 1, "seeds": 2, "steps": "20it", "prune_fraction": 0.7}


def mirrored() -> dict[str, Any]:
    data = blobs()
    return data | {name: -data[name] for name in ("x", "x_test")}


def three_classes() -> dict[str, Any]:
    data = blobs()
    train, test = data["y"] < 3, data["y_test"] < 3
    parts = {
        "x": data["x"][train],
        "y": data["y"][train],
        "x_test": data["x_test"][test],
        "y_test": data["y_test"][test],
    }
    return parts | {"x": -parts["x"], "x_test": -parts["x_test"]}


def narrow() -> dict[str, Any]:
    data = blobs()
    return data | {name: data[name][:, :19] for name in ("x", "x_test")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("transfer") / "run", rewind_step="10it")


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("transfer") / "lenet", **LENET)


def opened(run: Path, *data: str, runs: tuple[Path, ...] = ()) -> Lab:
    return lab(run, "transfer", Options([f"{HERE}:{name}" for name in data], [str(path) for path in runs]))


def all_found(there: Lab) -> list[Place]:
    return [place if place.rounds else found_at(there, place) for place in places(there)]


def test_what_is_carried_are_the_weights_and_masks_found_at_home(run: Path) -> None:
    there = opened(run, "mirrored")
    home, other = all_found(there)
    assert len(other.rounds) == there.chosen.number + 1
    for source, place in ((home, other), (other, home)):
        for seed in there.seeds:
            values, masks = carried(source, place, seed, there.chosen.number)
            dense = source.rounds[0].trainings[f"seed{seed}-dense"].snapshots[10]
            assert all(np.array_equal(values[name], dense[name]) for name in dense)
            found = source.rounds[there.chosen.number].masks[seed]
            assert all(np.array_equal(masks[name], found[name]) for name in found)
        mine, theirs = (p.rounds[there.chosen.number].masks[0]["fc1.weight"] for p in (source, place))
        assert not np.array_equal(mine, theirs)


def test_a_ticket_starts_at_the_rewind_step_and_its_reinit_fresh_at_0(run: Path) -> None:
    there = opened(run, "mirrored")
    home, other = all_found(there)
    jobs = list(transfer_jobs(there, [home, other], other))
    assert [(job.kind, job.index) for job in jobs] == [
        *(("moved", 0), ("reinit", 0)) * 2,
        *(("reinit", 1),) * 2,  # what was found there is trained already
    ]
    for job in jobs:
        assert job.first_step == (10 if job.kind == "moved" else 0)
        masks = [home, other][job.index].rounds[there.chosen.number].masks[job.seed]
        for name, mask in masks.items():
            assert np.array_equal(job.masks[name], mask)
            assert (job.start[name][~mask] == 0).all()
    fresh = {job.start["fc1.bias"].tobytes() for job in jobs if job.kind == "reinit"}
    assert len(fresh) == 4


def test_the_output_layer_stays_behind_where_classes_differ(lenet: Path) -> None:
    there = opened(lenet, "three_classes")
    home, other = all_found(there)
    for source, place, classes in ((home, other, 3), (other, home, 4)):
        values, masks = carried(source, place, 0, 1)
        assert values["output.weight"].shape == masks["output.weight"].shape == (classes, 100)
        assert values["output.bias"].shape == (classes,)
        found = source.rounds[1].masks[0]
        assert masks["output.weight"].mean() == pytest.approx(found["output.weight"].mean(), abs=0.01)
        assert not np.array_equal(
            masks["output.weight"], np.sort(masks["output.weight"].ravel())[::-1].reshape(classes, 100)
        )
        assert np.array_equal(masks["fc2.weight"], found["fc2.weight"])
        assert np.array_equal(values["fc2.weight"], source.rounds[0].start[0]["fc2.weight"])
        again, _ = carried(source, place, 0, 1)
        assert np.array_equal(again["output.weight"], values["output.weight"])


def test_a_carried_ticket_is_trained_on_the_data_of_the_place(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The diagonal is what the searches found; a cell is what the place's own search makes of that start."""
    command = ["transfer", str(run), f"--data+={HERE}:mirrored"]
    first = told(capsys, *command)
    assert told(capsys, *command) == first
    result = first["result"]
    there = opened(run, "mirrored")
    home, other = all_found(there)
    names = [home.name, other.name]
    assert list(result["cells"]) == list(result["dense"]) == names
    own = result["cells"][names[1]][names[1]]
    ticket = other.rounds[there.chosen.number].measured["ticket"].accuracy
    assert own["ticket"]["accuracy_by_seed"] == ticket.tolist()
    assert own["ticket - ticket found there"]["accuracy"]["mean"] == 0
    cell = result["cells"][names[0]][names[1]]
    assert cell["ticket - ticket found there"]["accuracy"]["by_seed"] == (
        (np.array(cell["ticket"]["accuracy_by_seed"]) - ticket).tolist()
    )
    moved = list(transfer_jobs(there, [home, other], other))
    stage = other.search.stage(other.search.directory.round_folder(99))
    again = stage.train(moved)
    by_seed = [again[f"seed{seed}-moved0"].early_accuracy for seed in there.seeds]
    assert cell["ticket"]["accuracy_by_seed"] == by_seed
    assert f"{names[0]} on {names[1]}, ticket - reinit" in "\n".join(explain(result))
    assert figures(result)


def test_finished_searches_are_places_too_and_nothing_is_found_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = finished(tmp_path / "other", data=f"{HERE}:mirrored", rewind_step="10it")
    option = f'--runs=["{other}"]'
    by_run = told(capsys, "transfer", str(run), option, "--label", "by-run")
    by_data = told(capsys, "transfer", str(run), f"--data+={HERE}:mirrored", "--label", "by-data")
    assert not (run / "experiments" / "by-run" / "searches").exists()
    assert by_run["trainings"] == 2 * (2 * 3) < by_data["trainings"]
    assert by_run["result"] == by_data["result"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("narrow", "samples of shape (19,), but the search has (20,)"),
        ("mirrored.mirrored", "is there twice"),
    ],
)
def test_other_samples_and_the_same_data_are_refused(
    lenet: Path, capsys: pytest.CaptureFixture[str], data: str, message: str
) -> None:
    named = [f"--data+={HERE}:{name}" for name in data.split(".")]
    assert main(["transfer", str(lenet), "--quiet", *named]) == 2
    assert message in capsys.readouterr().err
    assert not (lenet / "experiments" / "transfer" / "identity.json").exists()


def test_searches_that_cannot_be_compared_are_refused(
    lenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = LENET | {"data": f"{HERE}:mirrored"}
    for name, change, message in (
        ("seeds", {"seeds": 3}, "seeds [0, 1, 2], but the search has [0, 1]"),
        ("quotas", {"prune_fraction": 0.5}, "has no round 1 with as many live weights"),
    ):
        other = finished(tmp_path / name, **(changes | change))
        assert main(["transfer", str(lenet), "--quiet", f'--runs=["{other}"]']) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match="at least one other data set"):
        Options()
