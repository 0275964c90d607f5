"""Every method finds a ticket of the density asked for, by what defines it; all through the same rounds and rewinding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.compact import compact
from server_side import methods, summary
from server_side.errors import UsageError
from server_side.search import Search
from server_side.training import Interrupted
from tests.server_side.searches import Watcher, search

EVERY = ("iterative", "oneshot", "early-bird", *methods.SCORED, *methods.MOVING)


@pytest.mark.parametrize("engine", ["stacked", "device"])
@pytest.mark.parametrize("method", EVERY)
def test_every_method_leaves_its_ladder_and_rewinds_bit_for_bit(tmp_path: Path, method: str, engine: str) -> None:
    small = search(tmp_path, method=method, engine=engine, rounds=2)
    rounds = small.run()
    assert [sum(int(m.sum()) for m in r.masks[1].values()) for r in rounds] == small.ladder.live
    for r in rounds[1:]:
        for name, value in small.theta(1).items():
            assert r.start[1][name].tobytes() == value.tobytes()
        final = r.trainings["seed1-ticket"].final
        assert all((final[name][~mask] == 0).all() for name, mask in r.masks[1].items())
        assert any((r.masks[0][name] != r.masks[1][name]).any() for name in r.masks[0])
    result = summary.conclude(small, rounds, seconds=1.0)
    assert result["card"]["provenance"]["options"]["method"] == method


@pytest.mark.parametrize("retrain", ["learning-rate", "fine-tune"])
@pytest.mark.parametrize("method", [name for name in EVERY if name not in methods.SCORED])
def test_a_ticket_that_is_not_rewound_starts_from_the_weights_that_decided_its_mask(
    tmp_path: Path, method: str, retrain: str
) -> None:
    small = search(tmp_path, method=method, retrain=retrain, rounds=2)
    for r in small.run()[1:]:
        start = r.start[1]
        assert all((start[name] != value).any() for name, value in small.theta(1).items())
        if method not in methods.MOVING:
            again = methods.by_magnitude(small.keeper, start, small.keeper.all_live(), r.number)
            assert all((again[name] == mask).all() for name, mask in r.masks[1].items())


def masks_of(small: Search) -> list[dict[str, np.ndarray]]:
    return [r.masks[0] for r in small.run()]


@pytest.mark.parametrize("method", [*methods.SCORED, *methods.MOVING])
def test_what_does_not_train_the_whole_network_does_not_look_at_its_training(tmp_path: Path, method: str) -> None:
    """The same masks whatever comes of the dense network."""
    one = masks_of(search(tmp_path / "one", method=method, seeds=1, rounds=1))
    other = masks_of(search(tmp_path / "other", method=method, seeds=1, rounds=1, reinits=2))
    assert all((one[1][name] == other[1][name]).all() for name in one[1])


def test_methods_find_different_masks(tmp_path: Path) -> None:
    found = []
    for name in EVERY:
        settings: dict[str, Any] = {"regularisation": 0.1} if name == "l1" else {}
        small = search(tmp_path / name, method=name, scope="global", seeds=1, rounds=1, **settings)
        found.append(np.concatenate([mask.ravel() for mask in masks_of(small)[1].values()]))
    alike = {EVERY.index(name) for name in ("iterative", "oneshot", "early-bird")}  # the same in the first round
    for i, one in enumerate(found):
        for j in range(i):
            assert {i, j} <= alike or (one != found[j]).any(), (EVERY[i], EVERY[j])


def test_synflow_leaves_every_layer_alive_where_magnitude_at_init_does_not(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "model": f"{__name__}:narrow",
        "rounds": None,
        "target_density": 0.02,
        "prune_fraction": 0.97,
    }
    for mask in masks_of(search(tmp_path / "synflow", method="synflow", seeds=1, **settings))[-1].values():
        assert mask.any()
    collapsed = search(tmp_path / "magnitude", method="magnitude", scope="global", seeds=1, **settings)
    with pytest.raises(Exception, match="would lose its last live weight"):
        collapsed.run()


def saturating() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(20, 8), nn.Softmax(1), nn.Linear(8, 4))


def gated() -> Any:
    """A batch norm whose scale starts at 0, as those of residual branches may."""
    from torch import nn

    norm = nn.BatchNorm1d(8)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Linear(20, 8), norm, nn.ReLU(), nn.Linear(8, 4))


def test_synflow_is_refused_before_training_where_nothing_flows(tmp_path: Path) -> None:
    for model, step in (("saturating", "0it"), ("saturating", "10it"), ("gated", "0it")):
        with pytest.raises(UsageError, match=r"criterion synflow: no flow through '0\.weight'"):
            search(tmp_path / "run", method="synflow", model=f"{__name__}:{model}", rewind_step=step)
    assert not (tmp_path / "run").exists()
    for step in ("10it", "auto"):  # by then its scale will have moved
        assert search(tmp_path / step, method="synflow", model=f"{__name__}:gated", rewind_step=step).seeds


def test_synflow_scores_mobilenet_whose_activations_are_relu6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "SYNFLOW_ITERATIONS", 2)
    steps: dict[str, Any] = {"steps": "10ep", "evaluate_every": "1ep", "rewind_step": "0it"}
    data = f"{__name__}:pictures"
    small = search(tmp_path, method="synflow", model="mobilenet", data=data, rounds=1, **steps)
    batches = methods.score_batches(small.split, 0, 16)
    masks = methods.by_score("synflow", small.keeper, small.model.factory(), batches, small.theta(0), 0, 1)
    assert sum(int(mask.sum()) for mask in masks.values()) == sum(small.ladder.rungs[1].values())


def pictures() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(60, 3, 8, 8)).astype(np.float32), "y": np.arange(60) % 3}


def narrow() -> Any:
    """One wide layer whose weights are small, and narrow ones: by magnitude alone the wide one goes whole."""
    import torch
    from torch import nn

    wide = nn.Linear(300, 4)
    with torch.no_grad():
        wide.weight.mul_(0.001)
    return nn.Sequential(nn.Linear(20, 300), nn.ReLU(), wide, nn.ReLU(), nn.Linear(4, 4))


def test_rigl_keeps_the_density_of_every_layer_and_moves_its_mask(tmp_path: Path) -> None:
    small = search(tmp_path, method="rigl", rounds=1, prune_fraction=0.7, steps="200it")
    job = methods.moving_job("rigl", small.keeper, small.theta(0), 0, 1, 0.0)
    masks = small.run()[1].masks[0]
    for name, mask in masks.items():
        assert mask.sum() == job.masks[name].sum()
    assert any((masks[name] != job.masks[name]).any() for name in masks)


def test_an_early_bird_stops_early(tmp_path: Path) -> None:
    small = search(tmp_path, method="early-bird", rounds=1, steps="400it")
    rounds = small.run()
    dense = rounds[0].trainings["seed0-dense"]
    bird = methods.early_bird(small.keeper, dense, 1)
    assert bird.stopped
    assert bird.step is not None
    assert bird.step < 200
    assert bird.mask is not None
    assert all((bird.mask[name] == mask).all() for name, mask in rounds[1].masks[0].items())
    drawn = methods.by_magnitude(small.keeper, dense.snapshots[bird.step], small.keeper.all_live(), 1)
    assert all((bird.mask[name] == mask).all() for name, mask in drawn.items())


def test_l1_drives_weights_to_0_and_keeps_the_largest(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "l1", "optimizer": "sgd", "learning_rate": 0.1, "rounds": 1, "seeds": 1}
    zeros = {}
    for strength in (0.0, 0.02):
        small = search(tmp_path / str(strength), steps="200it", regularisation=strength, **settings)
        job = methods.moving_job("l1", small.keeper, small.theta(0), 0, 1, strength)
        final = small.train_round(1, [job])[job.name].final
        zeros[strength] = sum(int((final[name] == 0).sum()) for name in small.ladder.shapes)
    assert zeros[0.0] == 0
    assert zeros[0.02] > 150  # of 480


def test_gates_close_where_the_penalty_is_high(tmp_path: Path) -> None:
    closed = {}
    for strength in (0.01, 20.0):
        small = search(
            tmp_path / str(strength),
            method="gates",
            regularisation=strength,
            steps="200it",
            rounds=1,
            seeds=1,
            learning_rate=0.01,
        )
        job = methods.moving_job("gates", small.keeper, small.theta(0), 0, 1, strength)
        final = small.train_round(1, [job])[job.name].final
        closed[strength] = sum(int((final[name] == 0).sum()) for name in small.ladder.shapes)
    assert closed[20.0] > 2 * closed[0.01] + 50


@pytest.mark.parametrize("method", methods.MOVING)
@pytest.mark.parametrize("stop_after", [30, 130])
def test_a_stopped_mask_training_goes_on_to_the_same_bits(tmp_path: Path, method: str, stop_after: int) -> None:
    settings: dict[str, Any] = {"method": method, "rounds": 1, "steps": "100it", "evaluate_every": "20it"}
    with pytest.raises(Interrupted):
        search(tmp_path / "stopped", Watcher(stop_after), **settings).run()
    whole, again = (search(tmp_path / run, **settings).run()[1] for run in ("whole", "stopped"))
    for seed, masks in whole.masks.items():
        assert all((again.masks[seed][name] == mask).all() for name, mask in masks.items())
    one, other = whole.trainings["seed1-ticket"], again.trainings["seed1-ticket"]
    assert one.validation_loss.tobytes() == other.validation_loss.tobytes()


@pytest.mark.parametrize("method", ["iterative", "snip"])
def test_blocks_are_pruned_as_a_whole(tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {"rounds": 2, "prune_fraction": 0.4, "exclude": ["out"]}
    small = search(tmp_path, method=method, structure="blocks-of-4", **settings)
    rounds = small.run()
    for r, live in zip(rounds, small.ladder.live, strict=True):
        for mask in r.masks[0].values():
            assert (mask.reshape(-1, 4, mask.shape[1]).sum(axis=1) % 4 == 0).all()
        assert live <= 32 + sum(int(mask.sum()) for mask in r.masks[0].values()) < live + 2 * 4  # 32 of out
    assert rounds[2].density < 0.5


def units(masks: dict[str, np.ndarray]) -> tuple[int, int]:
    """How many are left in the two hidden layers; nothing reads the others, and what is left is dense."""
    alive = [np.ones(20, np.bool_), *(masks[f"{name}.weight"].any(axis=1) for name in ("fc1", "fc2", "out"))]
    for name, columns, rows in zip(("fc1", "fc2", "out"), alive, alive[1:], strict=False):
        assert (masks[f"{name}.weight"] == np.outer(rows, columns)).all()
    counts = [int(np.sum(rows)) for rows in alive[1:]]
    assert counts[2] == 4  # the classes
    return counts[0], counts[1]


@pytest.mark.parametrize("method", ["iterative", "oneshot", "snip", "synflow", "early-bird"])
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_units_are_pruned_with_what_reads_them(tmp_path: Path, method: str, scope: str) -> None:
    """So that the exporter has a small dense network to write."""
    small = search(tmp_path, method=method, scope=scope, structure="rows", rounds=2, prune_fraction=0.4)
    rounds = small.run()
    left = [[units(r.masks[seed]) for r in rounds] for seed in small.seeds]
    for of_seed in left:
        assert of_seed[0] == (16, 8)
        assert (np.diff(of_seed, axis=0) <= 0).all()
        if scope == "layerwise":
            assert of_seed[1:] == [(10, 5), (6, 3)]  # 192 and 115 of 320, 77 and 46 of 128: rows that leave no fewer
    r = rounds[2]
    first, second = left[0][2]
    assert r.density == (20 * first + first * second + 4 * second) / 480
    card = summary.conclude(small, rounds, seconds=1.0)["card"]
    compacted = compact(small.ticket(r, card)).ticket
    assert compacted.density == 1.0
    assert compacted.network.parameter_shapes["fc2.weight"] == left[small.best_seed(r)][2][::-1]


def test_a_card_tells_the_density_of_its_own_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows of several lengths share a quota, the seeds of a round have different ones."""
    small = search(tmp_path, structure="rows", scope="global", seeds=3, rounds=1, prune_fraction=0.4, exclude=["out"])
    r = small.run()[1]
    told = []
    for seed in small.seeds:
        monkeypatch.setattr(Search, "best_seed", lambda self, chosen, seed=seed: seed)
        told.append(summary._card(small, r, 16)["density"])
    assert told == [(32 + sum(int(mask.sum()) for mask in r.masks[seed].values())) / 480 for seed in small.seeds]
    assert len(set(told)) > 1


@pytest.mark.parametrize("method", ["iterative", "magnitude"])
def test_n_of_m_keeps_at_most_so_many_of_each_few_inputs(tmp_path: Path, method: str) -> None:
    small = search(tmp_path, method=method, structure="2:4", rounds=None, seeds=1)
    rounds = small.run()
    assert small.ladder.live == [480, 360, 240]
    for kept, r in zip((4, 3, 2), rounds, strict=True):
        assert all((mask.reshape(len(mask), -1, 4).sum(axis=2) == kept).all() for mask in r.masks[0].values())


@pytest.mark.parametrize("structure", ["blocks-of-4", "rows", "2:4"])
def test_shuffled_tickets_keep_their_structure(tmp_path: Path, structure: str) -> None:
    settings: dict[str, Any] = {"rounds": None} if structure == "2:4" else {"prune_fraction": 0.4}
    if structure == "blocks-of-4":
        settings["exclude"] = ["out"]
    small = search(tmp_path, structure=structure, **settings)
    rounds = small.run()
    shuffles = [job for job in small._jobs(rounds[2].start, rounds[2].masks, 2) if job.kind == "shuffle"]
    for job in shuffles:
        for name, mask in job.masks.items():
            ticket = rounds[2].masks[job.seed][name]
            assert mask.sum() == ticket.sum()
            assert (mask != ticket).any()
            if structure == "rows":
                assert units(job.masks) == units(rounds[2].masks[job.seed])
            elif structure == "2:4":
                assert (mask.reshape(len(mask), -1, 4).sum(axis=2) == 2).all()
            else:
                assert (mask.reshape(-1, 4, mask.shape[1]).sum(axis=1) % 4 == 0).all()


@pytest.mark.parametrize("steps", [3, 12, 13, 14, 40])
def test_gradual_pruning_ends_with_the_weights_that_were_asked_for(tmp_path: Path, steps: int) -> None:
    """Also where a training is too short for its cubes of time."""
    there = search(tmp_path, method="gradual", steps=f"{steps}it", evaluate_every="3it", prune_fraction=0.4)
    rounds = there.run()
    for number, live in enumerate(there.ladder.live):
        assert all(sum(int(m.sum()) for m in masks.values()) == live for masks in rounds[number].masks.values())
