"""Initialising from the survivors: the same values and mean squares, other shapes of distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from server_side.experiment import main
from server_side.experiments import two_peaked
from server_side.experiments.two_peaked import Options, from_survivors, of_equal_square
from tests.server_side.experiments import finished, lab, told


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("two-peaked") / "run", reinits=0, shuffles=0)


def test_only_the_shape_of_the_distribution_differs() -> None:
    draws = np.random.default_rng(0)
    start = {"fc": draws.normal(size=(100, 80)).astype(np.float32)}
    masks = {"fc": np.abs(start["fc"]) > 1}
    fresh = {"fc": (draws.normal(size=(100, 80)) / 9).astype(np.float32), "bias": np.ones(100, np.float32)}
    peaked, equal = from_survivors(fresh, start, masks, draws), of_equal_square(fresh, start, masks)
    survivors = start["fc"][masks["fc"]]
    assert np.isin(peaked["fc"], survivors).all()
    assert np.abs(peaked["fc"]).min() > 1
    assert np.square(equal["fc"]).mean() == pytest.approx(np.square(survivors).mean(), rel=1e-5)
    assert np.square(peaked["fc"]).mean() == pytest.approx(np.square(survivors).mean(), rel=0.05)
    assert (np.abs(equal["fc"]) < 1).mean() > 0.3  # small ones are there
    for values in (peaked, equal):
        assert (values["bias"] == fresh["bias"]).all()
        assert values["fc"].dtype == np.float32
    ratios = equal["fc"] / fresh["fc"]
    assert ratios.max() == pytest.approx(ratios.min(), rel=1e-5)


def test_a_layer_that_begins_at_zero_stays_there() -> None:
    zero = {"fc": np.zeros((2, 3), np.float32)}
    assert not of_equal_square(zero, zero, {"fc": np.ones((2, 3), np.bool_)})["fc"].any()


def test_dense_and_sparse_networks_are_trained_from_both(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = told(capsys, "two-peaked", str(run), "--copies", "2")["result"]
    there = lab(run, "two-peaked", Options(2))
    assert set(result["kinds"]) == {*two_peaked.KINDS, "dense", "ticket"}
    for kinds, prefix in (("dense", ""), ("sparse", "sparse_")):
        one, other = (np.array(result["kinds"][prefix + kind]["accuracy_by_seed"]) for kind in ("peaked", "equal"))
        assert result["differences"][kinds]["accuracy"]["by_seed"] == pytest.approx((one - other).tolist())
        assert len(list((run / "experiments/two-peaked" / kinds).glob("*.npz"))) == 2 * 2 * 2
    assert result["kinds"]["ticket"] == there.found["ticket_at_density"]
    jobs = two_peaked._jobs(there, "sparse_")
    for job in jobs:
        mask = there.chosen.masks[job.seed]["fc1.weight"]
        assert (job.masks["fc1.weight"] == mask).all()
        assert not job.start["fc1.weight"][~mask].any()
        survivors = there.chosen.start[job.seed]["fc1.weight"][mask]
        assert np.isin(job.start["fc1.weight"][mask], survivors).all() == (job.kind == "sparse_peaked")
    assert len({job.start["fc1.weight"].tobytes() for job in jobs}) == len(jobs)
    assert two_peaked.figures(result)


def test_no_copies_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["two-peaked", str(run), "--label", "none", "--copies", "0"]) == 2
    assert "copies 0: must be at least 1" in capsys.readouterr().err
