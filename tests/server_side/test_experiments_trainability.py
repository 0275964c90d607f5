"""Trainability by width: many dense networks of their own weights, a share of which reaches an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.errors import UsageError
from server_side.experiment import main
from server_side.experiments.trainability import Options, jobs, plan, run
from server_side.models import load_model
from server_side.significance import share
from server_side.training import Interrupted
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import Watcher


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("trainability") / "run", rounds=1, reinits=0, shuffles=0, steps="60it")


def test_wider_networks_reach_the_accuracy_more_often(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--widths", "[0.125, 1, 4]", "--networks", "12", "--label", "wide", "--accuracy", "0.6"]
    result = told(capsys, "trainability", str(path), *arguments)["result"]
    assert [row["weights"] for row in result["widths"]] == [20 * 2 + 2 * 1 + 4, 480, 20 * 64 + 64 * 32 + 32 * 4]
    shares = [row["reached"]["mean"] for row in result["widths"]]
    assert shares == sorted(shares)
    assert shares[0] < 0.3
    assert shares[-1] > 0.7
    for row in result["widths"]:
        accuracies = np.array(row["accuracy"]["by_seed"])
        assert row["reached"]["hits"] == (accuracies >= 0.6).sum()
        assert len(set(accuracies)) > 1
    assert result["ticket"]["live"] == 384


def test_the_accuracy_asked_for_is_dense_less_the_tolerance(path: Path) -> None:
    there = lab(path, "default", Options([0.5], 2))
    result = run(there)
    dense = there.rounds[0].measured["dense"].accuracy
    assert result["accuracy"] == pytest.approx(dense.mean() - there.search.tolerance)


def test_killed_it_goes_on_with_the_same_bits(path: Path) -> None:
    options = Options([0.25, 0.5], 5)
    whole = run(lab(path, "whole", options))
    with pytest.raises(Interrupted):
        run(lab(path, "killed", options, Watcher(stop_after=90)))
    assert sorted(there.name for there in (path / "experiments/killed/width-0.25").glob("*.npz")) == [
        f"seed{number}-network0.npz" for number in range(5)
    ]
    watch = Watcher()
    assert run(lab(path, "killed", options, watch)) == whole
    assert watch.replica_steps == 2 * 5 * 60 == sum(steps for _, _, steps in plan(lab(path, "killed", options)))


def test_every_network_has_weights_of_its_own() -> None:
    model = load_model("tests.server_side.searches:Tiny", (20,), 4, 0.5)
    made = jobs(model, 3, 0.5)
    first, second, _ = (job.start["fc1.weight"] for job in made)
    assert first.shape == (8, 20)
    assert (first != second).any()
    assert (jobs(model, 3, 0.5)[1].start["fc1.weight"] == second).all()


def fixed() -> Any:
    return load_model("tests.server_side.searches:Tiny", (20,), 4).factory()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--widths", "[1, 0.5]"], "widths [1.0, 0.5]: give factors that rise"),
        (["--widths", "[-1]"], "width -1.0: must be a factor above 0"),
        (["--networks", "1"], "networks 1: must be at least 2"),
        (["--accuracy", "1.5"], "accuracy 1.5: must be above 0 and at most 1"),
    ],
)
def test_bad_options_are_named(path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trainability", str(path), "--label", "bad", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (path / "experiments/bad").exists()


def test_a_model_of_one_width_is_refused_with_what_to_do() -> None:
    for name, shape in ((f"{__name__}:fixed", (20,)), ("resnet-20", (3, 32, 32))):
        with pytest.raises(UsageError, match=rf"model '{name}': cannot be had in other widths; .* lenet-300-100"):
            load_model(name, shape, 4, 2.0)


@pytest.mark.parametrize(
    ("name", "shape", "hidden"),
    [
        ("lenet-300-100", (28, 28), {"fc1.weight": 150, "fc2.weight": 50, "output.weight": 10}),
        ("conv-2", (3, 32, 32), {"conv1.weight": 32, "conv2.weight": 32, "fc1.weight": 128, "output.weight": 10}),
        ("sensor-1d", (9, 128), {"conv1.weight": 32, "conv3.weight": 64, "fc1.weight": 64, "output.weight": 10}),
    ],
)
def test_presets_in_other_widths(name: str, shape: tuple[int, ...], hidden: dict[str, int]) -> None:
    shapes = load_model(name, shape, 10, 0.5).network.parameter_shapes
    assert {layer: shapes[layer][0] for layer in hidden} == hidden
    whole, given = load_model(name, shape, 10), load_model(name, shape, 10, 1.0)
    first, second = whole.initial_weights(3), given.initial_weights(3)
    assert all((first[layer] == second[layer]).all() for layer in first)


def test_the_interval_of_a_share_is_exact() -> None:
    found = share(7, 10)
    assert (found["low"], found["high"]) == (pytest.approx(0.34754715), pytest.approx(0.93326047))  # tables
    assert (share(0, 10)["low"], share(0, 10)["high"]) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert (share(10, 10)["low"], share(10, 10)["high"]) == (pytest.approx(0.025**0.1), 1.0)
