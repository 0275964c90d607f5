"""The experiments that train nothing: what a ticket is worth before training, and which weights survive."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from server_side.controls import apply_masks
from server_side.experiments import supermask, survivors
from tests.server_side.experiments import finished, lab, told

SIZES = {"fc1": 320, "fc2": 128, "out": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("untrained") / "run", reinits=0)


def test_supermask_is_the_accuracy_of_the_untrained_tickets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = told(capsys, "supermask", str(run))["result"]
    there = lab(run)
    assert [row["round"] for row in result["rounds"]] == [1, 2]
    assert result["chance"] == 0.25
    for r, row in zip(there.rounds[1:], result["rounds"], strict=True):
        starts = [apply_masks(r.start[seed], r.masks[seed]) for seed in there.seeds]
        assert row["ticket"]["by_seed"] == there.accuracies(starts).tolist()
        assert set(supermask.KINDS) < set(row)
        for kind in ("shuffle", "reinit"):
            gains = np.array(row["ticket"]["by_seed"]) - np.array(row[kind]["by_seed"])
            assert row["gains"][kind]["by_seed"] == pytest.approx(gains.tolist())
    dense = there.accuracies([there.rounds[0].start[seed] for seed in there.seeds])
    assert result["dense"]["by_seed"] == dense.tolist()
    assert "Before any training" in supermask.figures(result)
    assert result["at_step"] == 0
    assert supermask.explain(result)[0].startswith("test accuracy before any training, in %")


def test_what_a_ticket_is_compared_with_differs_in_one_thing(run: Path) -> None:
    there = lab(run)
    seed, r = there.seeds[1], there.rounds[2]
    networks = supermask._networks(there, r, seed)
    name = "fc1.weight"
    mask, ticket = r.masks[seed][name], networks["ticket"][name]
    assert not ticket[~mask].any()
    assert not networks["reinit"][name][~mask].any()
    assert (networks["reinit"][name][mask] != ticket[mask]).all()
    assert (networks["shuffle"][name] != 0).sum() == mask.sum()
    assert ((networks["shuffle"][name] != 0) != mask).any()
    moved = networks["shuffle"][name] != 0
    assert (networks["shuffle"][name][moved] == r.start[seed][name][moved]).all()
    constant = networks["signed constant"][name]
    assert np.unique(np.abs(constant[mask])).size == 1
    assert (np.sign(constant[mask]) == np.sign(ticket[mask])).all()
    assert np.abs(constant[mask][0]) == pytest.approx(r.start[seed][name].std())
    assert (networks["signed constant"]["fc1.bias"] == r.start[seed]["fc1.bias"]).all()
    shuffled = supermask._networks(there, r, seed)["shuffle"][name]
    assert (shuffled == networks["shuffle"][name]).all()  # the same again


def test_a_shuffle_has_the_structure_of_the_run(tmp_path: Path) -> None:
    """Rows stay whole: other places alone are what it differs by."""
    there = lab(finished(tmp_path, structure="rows", exclude=["out"], seeds=1, rounds=1, reinits=0, shuffles=0))
    r = there.rounds[1]
    rows = (supermask._networks(there, r, 0)["shuffle"]["fc1.weight"] != 0).mean(axis=1)
    assert set(rows) == {0.0, 1.0}
    assert rows.sum() == r.masks[0]["fc1.weight"].any(axis=1).sum()


def test_survivors_by_tenth() -> None:
    weights = np.array([-0.1, 0.9, -0.8, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, -1.0] * 2, np.float32)
    mask = np.abs(weights) > 0.75
    assert survivors.surviving_by_tenth(weights, mask).tolist() == [0.0] * 7 + [1.0] * 3
    assert survivors.surviving_by_tenth(weights, np.abs(weights) < 0.15).tolist() == [1.0] + [0.0] * 9
    few = survivors.surviving_by_tenth(np.array([0.1, -0.2], np.float32), np.array([False, True]))
    assert few[:2].tolist() == [0.0, 1.0]
    assert np.isnan(few[2:]).all()


def test_pruning_by_initial_magnitude_leaves_the_largest_tenths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the masks are those of the initial magnitudes, each tenth survives whole or not at all, but for the one cut."""
    path = finished(tmp_path / "run", method="magnitude", scope="layerwise", reinits=0, shuffles=0)
    result = told(capsys, "survivors", str(path))["result"]
    for row in result["rounds"]:
        for name, layer in row["layers"].items():
            sizes = [len(part) for part in np.array_split(np.arange(SIZES[name]), 10)]
            shares = [tenth["mean"] for tenth in layer["surviving"]]
            assert shares == sorted(shares)
            assert sum(0 < share < 1 for share in shares) <= 1
            assert np.average(shares, weights=sizes) == pytest.approx(layer["density"]["mean"])


def test_sign_changes_are_counted_among_the_live_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = told(capsys, "survivors", str(run))["result"]
    there = lab(run)
    for r, row in zip(there.rounds[1:], result["rounds"], strict=True):
        for position, seed in enumerate(there.seeds):
            start = apply_masks(r.start[seed], r.masks[seed])["fc2.weight"]
            final = r.trainings[f"seed{seed}-ticket"].final["fc2.weight"]
            changed = (start * final < 0).sum() / r.masks[seed]["fc2.weight"].sum()
            assert row["layers"]["fc2"]["sign_changes"]["by_seed"][position] == pytest.approx(changed)
    assert list(survivors.figures(result)) == ["Survivors by initial magnitude", "Sign changes"]


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def test_a_late_rewind_is_told_by_its_step_also_with_batch_norm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished(tmp_path / "run", model=f"{__name__}:Normed", rewind_step="10it", rounds=1, shuffles=0, reinits=0)
    result = told(capsys, "survivors", str(path))["result"]
    assert result["at_step"] == 10
    before = told(capsys, "supermask", str(path))["result"]
    there = lab(path)
    snapshots = [there.rounds[0].trainings[f"seed{seed}-dense"].snapshots[10] for seed in there.seeds]
    assert before["dense"]["by_seed"] == there.accuracies(snapshots).tolist()
    assert before["at_step"] == 10
    assert supermask.explain(before)[0].startswith("test accuracy at step 10, fresh weights at 0, in %")
    assert list(supermask.figures(before)) == ["At step 10, fresh weights at 0"]
    shutil.rmtree(path)
