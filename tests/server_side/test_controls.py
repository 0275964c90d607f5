"""A shuffle shuffles and keeps every layer's density; a reset resets, bit for bit; seeds fix what they name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side import summary, verdict
from server_side.controls import apply_masks, shuffle_masks
from server_side.search import Search
from server_side.seeds import BatchOrder, derive, generator
from server_side.stacked import StackedEngine
from server_side.training import Job, Training, Watch
from tests.server_side.searches import search


def test_shuffle_moves_the_live_weights_and_keeps_each_layers_count() -> None:
    random = np.random.default_rng(0)
    masks = {"a": random.random((30, 20)) < 0.1, "b": random.random((10, 30)) < 0.5}
    shuffled = shuffle_masks(masks, generator(0, "shuffle"))
    for name, mask in masks.items():
        assert shuffled[name].sum() == mask.sum()  # the density, not the sparsity
        assert (shuffled[name] != mask).any()
    again = shuffle_masks(masks, generator(0, "shuffle"))
    assert all((again[name] == shuffled[name]).all() for name in masks)


def test_applied_masks_keep_live_bits_and_make_pruned_weights_plus_zero() -> None:
    value = np.array([[-1.5, 2.5, -0.0, 1e-40]], np.float32)
    applied = apply_masks({"w": value}, {"w": np.array([[False, True, True, True]])})["w"]
    assert applied.view(np.uint32)[0, 1:].tolist() == value.view(np.uint32)[0, 1:].tolist()
    assert applied.view(np.uint32)[0, 0] == 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Every job that a search really hands to its engine."""
    jobs: list[Job] = []
    train = StackedEngine.train

    def recording(engine: StackedEngine, stack: list[Job], checkpoint: Path, watch: Watch) -> list[Training]:
        jobs.extend(stack)
        return train(engine, stack, checkpoint, watch)

    monkeypatch.setattr(StackedEngine, "train", recording)
    return jobs


@pytest.mark.parametrize("method", ["iterative", "oneshot"])
def test_every_ticket_starts_from_its_own_initial_weights_bit_for_bit(
    tmp_path: Path, trained: list[Job], method: str
) -> None:
    small = search(tmp_path, rounds=3, method=method)
    small.run()
    tickets = [job for job in trained if job.kind == "ticket"]
    assert len(tickets) == 6
    for job in tickets:
        theta = small.theta(job.seed)
        for name, value in job.start.items():
            expected = np.where(job.masks[name], theta[name], np.float32(0)) if name in job.masks else theta[name]
            assert value.tobytes() == expected.tobytes()


def test_every_shuffle_that_is_trained_is_shuffled(tmp_path: Path, trained: list[Job]) -> None:
    search(tmp_path).run()
    tickets, shuffles = ([job for job in trained if job.kind == kind] for kind in ("ticket", "shuffle"))
    for ticket, shuffle in zip(tickets, shuffles, strict=True):
        assert ticket.seed == shuffle.seed
        for name, mask in ticket.masks.items():
            assert shuffle.masks[name].sum() == mask.sum()
            assert (shuffle.masks[name] != mask).any()
            assert ((shuffle.start[name] != 0) == shuffle.masks[name]).all()


@pytest.mark.parametrize(
    ("settings", "first_round"),
    [
        ({}, [256, 102, 26]),
        ({"output_prune_fraction": 0.5}, [256, 102, 16]),
        ({"scope": "global"}, None),
    ],
)
def test_every_scope_removes_exactly_its_quota(
    tmp_path: Path, trained: list[Job], settings: dict[str, Any], first_round: list[int] | None
) -> None:
    small = search(tmp_path, **settings)
    rounds = small.run()
    for number, live in enumerate(small.ladder.live):
        assert all(sum(int(mask.sum()) for mask in rounds[number].masks[seed].values()) == live for seed in small.seeds)
    counts = [int(mask.sum()) for mask in trained[2].masks.values()]  # after two dense ones
    assert first_round is None or counts == first_round


def test_rewinding_to_a_step_starts_from_the_dense_weights_there(tmp_path: Path) -> None:
    small = search(tmp_path, rewind_step="20it", rounds=1)
    rounds = small.run()
    snapshot = rounds[0].trainings["seed0-dense"].snapshots[20]
    assert any((snapshot[name] != value).any() for name, value in small.theta(0).items())
    ticket = small.ticket(rounds[1], {})
    seed = small.best_seed(rounds[1])
    snapshot = rounds[0].trainings[f"seed{seed}-dense"].snapshots[20]
    for name, mask in ticket.masks.items():
        assert ticket.init[name][mask].tobytes() == snapshot[name][mask].tobytes()
    assert rounds[1].trainings["seed0-ticket"].steps[0] == 20  # the schedule restarts there too


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_with_a_late_rewind_every_training_has_the_dense_networks_budget(tmp_path: Path, engine: str) -> None:
    """A ticket and a shuffle have the steps before the rewind in their weights; a reinit must train them."""
    small = search(tmp_path, rewind_step="20it", rounds=1, engine=engine)
    trainings = small.run()[1].trainings
    first = {name: int(training.steps[0]) for name, training in trainings.items() if name.startswith("seed0")}
    assert first == {"seed0-ticket": 20, "seed0-reinit0": 0, "seed0-shuffle0": 20}
    assert {int(training.steps[-1]) for training in trainings.values()} == {40}
    assert small.step_count(1) == 2 * (20 + 40 + 20)


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_a_control_that_diverges_has_failed_and_stops_nothing(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(tmp_path / "whole", engine=engine, seeds=3, rounds=1).run()
    jobs = Search._jobs

    def exploding(*arguments: Any) -> Any:
        for job in jobs(*arguments):
            huge = {name: value * np.float32(1e20) for name, value in job.start.items()}
            yield replace(job, start=huge) if job.name in ("seed0-reinit0", "seed1-shuffle0") else job

    monkeypatch.setattr(Search, "_jobs", exploding)
    for _ in ("trained", "loaded"):
        small = search(tmp_path / "failed", engine=engine, seeds=3, rounds=1)
        rounds = small.run()
        assert rounds[1].trainings["seed0-reinit0"].diverged_step is not None
        for name, training in rounds[1].trainings.items():
            if name not in ("seed0-reinit0", "seed1-shuffle0"):
                other = whole[1].trainings[name]
                assert training.validation_loss.tobytes() == other.validation_loss.tobytes()
                assert training.early_accuracy == other.early_accuracy
        reinit, expected = rounds[1].measured["reinit"], whole[1].measured["reinit"]
        assert (reinit.diverged, rounds[1].measured["ticket"].diverged) == (1, 0)
        assert np.isnan(reinit.accuracy).tolist() == [True, False, False]
        assert reinit.accuracy[1:].tolist() == expected.accuracy[1:].tolist()
        result = summary.conclude(small, rounds, seconds=1.0)
    assert result["reinit"]["accuracy_by_seed"][0] is None
    assert result["reinit"]["accuracy"] == pytest.approx(expected.accuracy[1:].mean())
    json.dumps(result, allow_nan=False)
    assert "reinit: 1 diverged and left out of the means" in summary.as_text(result)
    assert "Round 1, reinit: 1 diverged and left out of the means." in (tmp_path / "failed/report.html").read_text()


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_where_all_copies_of_a_control_diverge_nothing_is_won(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Search._jobs

    def exploding(*arguments: Any) -> Any:
        for job in jobs(*arguments):
            huge = {name: value * np.float32(1e20) for name, value in job.start.items()}
            yield replace(job, start=huge) if job.kind == "reinit" else job

    monkeypatch.setattr(Search, "_jobs", exploding)
    small = search(tmp_path, engine=engine, rounds=1)
    result = summary.conclude(small, small.run(), seconds=1.0)
    assert result["reinit"]["accuracy"] is None
    nothing = dict.fromkeys(("difference", "low", "high", "p_value", "p_adjusted"))
    assert result["verdict"]["controls"]["reinit"] == {**nothing, "holds": False}
    assert not result["verdict"]["winning"]
    assert "better than reinit: accuracy unknown, as all" in "".join(verdict.explain(result["verdict"]))
    assert " diverged " in summary.as_text(result)


def test_reinit_has_the_tickets_mask_and_other_weights(tmp_path: Path) -> None:
    small = search(tmp_path, reinits=2)
    masks = small.run()[1].masks
    jobs = list(small._jobs({s: small.theta(s) for s in small.seeds}, masks, 1))
    ticket = next(job for job in jobs if job.kind == "ticket" and job.seed == 0)
    reinits = [job for job in jobs if job.kind == "reinit" and job.seed == 0]
    assert len(reinits) == 2
    values = [job.start["fc1.weight"] for job in (ticket, *reinits)]
    for first in range(3):
        assert (values[first][~masks[0]["fc1.weight"]] == 0).all()
        assert all((values[first] != values[second]).any() for second in range(first))


def test_initial_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    small = search(tmp_path)
    first, again, other = (small.theta(seed)["fc1.weight"] for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert derive(0, "init") != derive(0, "reinit") != derive(1, "reinit")


def test_batches_are_a_function_of_seed_and_step_and_cover_an_epoch() -> None:
    order, jumped = BatchOrder(3, 100, 16), BatchOrder(3, 100, 16)
    epoch = [order.indices(step) for step in range(6)]
    assert len(np.unique(np.concatenate(epoch))) == 96
    later = [order.indices(step) for step in range(6, 20)]
    assert (jumped.indices(19) == later[-1]).all()
    assert (BatchOrder(4, 100, 16).indices(0) != epoch[0]).any()


@pytest.mark.parametrize("retrain", ["learning-rate", "fine-tune"])
def test_a_shuffle_of_trained_weights_has_the_tickets_weights_and_no_pruned_ones(
    tmp_path: Path, trained: list[Job], retrain: str
) -> None:
    """From round 2 on what was pruned before is 0 in the weights that a ticket goes on with."""
    search(tmp_path, retrain=retrain, rounds=3, prune_fraction=0.4).run()
    starts = {(job.seed, job.kind, int(sum(m.sum() for m in job.masks.values()))): job for job in trained}
    shuffles = [(key, job) for key, job in starts.items() if key[1] == "shuffle"]
    assert len(shuffles) == 6
    for (seed, _, live), job in shuffles:
        ticket = starts[seed, "ticket", live]
        for name, mask in job.masks.items():
            ours, theirs = job.start[name][mask], ticket.start[name][ticket.masks[name]]
            assert np.array_equal(np.sort(ours), np.sort(theirs))
            assert (job.start[name][~mask] == 0).all()
            assert not np.array_equal(mask, ticket.masks[name])
