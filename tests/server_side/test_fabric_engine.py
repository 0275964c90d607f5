"""One replica at a time, alone or by several workers: the training of the stacked engine, resumable, pruned weights 0."""

from __future__ import annotations

import json
import multiprocessing
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.errors import UsageError
from server_side.find import prepare
from server_side.rounds import Round
from server_side.training import Interrupted
from server_side.workers import Worker
from tests.server_side.searches import Watcher, options, run_worker, search
from tests.server_side.test_training import same_tickets

pytest.importorskip("lightning_fabric")
TRAINING = "tests.server_side.test_training"
CONTEXT = multiprocessing.get_context("forkserver")
SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "weight_decay": 0.01, "learning_rate_schedule": "cosine"},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 0.05, "label_smoothing": 0.1},
    {"model": f"{TRAINING}:normed", "rewind_step": "15it", "optimizer": "sgd", "learning_rate": 0.05},
    {"model": f"{TRAINING}:looking", "data": f"{TRAINING}:pictures", "augment": "flip,crop2"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_trains_as_the_stacked_engine_does(tmp_path: Path, settings: dict[str, Any]) -> None:
    stacked = search(tmp_path / "stacked", rounds=1, **settings).run()
    alone = search(tmp_path / "alone", rounds=1, engine="fabric", **settings).run()
    agree(stacked, alone, 1e-5)


def agree(one: list[Round], other: list[Round], tolerance: float) -> None:
    """All losses, and the weights of what keeps any."""
    for first, second in zip(one, other, strict=True):
        assert first.trainings.keys() == second.trainings.keys()
        for name, training in first.trainings.items():
            again = second.trainings[name]
            np.testing.assert_allclose(training.train_loss, again.train_loss, rtol=tolerance)
            np.testing.assert_allclose(training.validation_loss, again.validation_loss, rtol=tolerance)
            assert training.early_step == again.early_step
            assert training.early_accuracy == pytest.approx(again.early_accuracy, abs=1 / 64)
            for kept, weights in (
                (training.early, again.early),
                (training.final, again.final),
                *((values, again.snapshots[step]) for step, values in training.snapshots.items()),
            ):
                assert kept.keys() == weights.keys()
                for parameter, value in kept.items():
                    np.testing.assert_allclose(value, weights[parameter], rtol=100 * tolerance, atol=10 * tolerance)


def test_pruned_weights_stay_zero_and_live_ones_of_either_sign_move(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05, "weight_decay": 0.01}
    rounds = search(tmp_path, engine="fabric", **settings).run()
    for name, mask in rounds[2].masks[0].items():
        start, final = rounds[2].start[0][name], rounds[2].trainings["seed0-ticket"].final[name]
        assert (final[~mask] == 0).all()
        assert (final[mask & (start < 0)] != start[mask & (start < 0)]).mean() > 0.9
        assert (final[mask & (start > 0)] != start[mask & (start > 0)]).mean() > 0.9


@pytest.mark.parametrize("stop_after", [2, 35, 95])
@pytest.mark.parametrize("model", ["dropping", "normed"])
def test_it_goes_on_to_the_same_bits(tmp_path: Path, stop_after: int, model: str) -> None:
    settings: dict[str, Any] = {"engine": "fabric", "rounds": 1, "model": f"{TRAINING}:{model}", "rewind_step": "15it"}
    with pytest.raises(Interrupted):
        search(tmp_path / "stopped", Watcher(stop_after), **settings).run()
    assert list((tmp_path / "stopped").rglob("*.partial.npz"))
    uninterrupted, again = Watcher(), Watcher()
    same_tickets(search(tmp_path / "whole", uninterrupted, **settings), search(tmp_path / "stopped", again, **settings))
    assert again.replica_steps == uninterrupted.replica_steps
    assert again.calls <= uninterrupted.calls - min(stop_after, 60) + 2  # what was done is told at once


def test_bfloat16_trains_the_same_network_less_exactly(tmp_path: Path) -> None:
    exact = search(tmp_path / "exact", engine="fabric", rounds=1).run()
    mixed = search(tmp_path / "mixed", engine="fabric", rounds=1, precision="bf16-mixed").run()
    one, other = (rounds[1].trainings["seed0-ticket"] for rounds in (exact, mixed))
    assert 0 < np.abs(one.validation_loss - other.validation_loss).max() < 0.02
    assert all(value.dtype == np.float32 for value in other.final.values())


def test_a_control_that_diverges_has_no_figures_and_a_ticket_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the loss of seed0-dense is not finite by step \d+"):
        search(tmp_path, engine="fabric", optimizer="sgd", learning_rate=1e30).run()


def start_two(path: Path, model: str, *more: str) -> list[Any]:
    """Two workers on a search of one seed, whose dense network they train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = ["--data", "tests.server_side.searches:blobs", "--model", model, "--seeds", "1", "--rounds", "2"]
    arguments += ["--reinits", "1", "--shuffles", "1", "--steps", "40it", "--evaluate-every", "10it", "--batch", "16"]
    arguments += ["--validation", "0.2", "--engine", "fabric", "--threads", "1", "--output-dir", str(path), *more]
    workers = []
    for rank in ("0", "1"):
        environment = {**places, "RANK": rank, "LOCAL_RANK": rank}
        workers.append(CONTEXT.Process(target=run_worker, args=(arguments, environment, f"{path}.{rank}")))
        workers[-1].start()
    return workers


def ended(workers: list[Any]) -> list[int | None]:
    for worker in workers:
        worker.join(120)
    return [worker.exitcode for worker in workers]


@pytest.mark.parametrize("model", ["tests.server_side.searches:Tiny", f"{TRAINING}:frozen"])
def test_two_workers_train_a_replica_as_one_does(tmp_path: Path, model: str) -> None:
    """Dense alone is one replica for two workers; the three of a later round are shared."""
    path = tmp_path / "two"
    assert set(ended(start_two(path, model))) <= {0, 3}, Path(f"{path}.0").read_text()
    assert json.loads((path / "config.json").read_text())["replica_workers"] == 2
    there = options(path, model=model, engine="fabric", seeds=1, accuracy_tolerance=None)
    by_two = prepare(there, Watcher(), worker=Worker("launch", 0, 2, 0, 2)).run()
    agree(search(tmp_path / "one", engine="fabric", model=model, seeds=1).run(), by_two, 1e-4)


@pytest.mark.slow
def test_two_workers_stopped_together_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """Batch norm's statistics are the first worker's, before and after."""
    long = ("--steps", "600it", "--rewind-step", "303it", "--rounds", "1", "--optimizer", "sgd")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert set(ended(start_two(whole, f"{TRAINING}:normed", *long))) <= {0, 3}, Path(f"{whole}.0").read_text()
    workers = start_two(stopped, f"{TRAINING}:normed", *long)
    until = time.monotonic() + 60
    while not [claim for claim in stopped.glob("rounds/00/*.claim") if int(claim.read_bytes() or b"0") > 0]:
        assert time.monotonic() < until
        time.sleep(0.01)
    workers[1].terminate()
    assert ended(workers) == [130, 130], Path(f"{stopped}.0").read_text()
    assert list(stopped.rglob("*.partial.npz"))
    assert set(ended(start_two(stopped, f"{TRAINING}:normed", *long))) <= {0, 3}, Path(f"{stopped}.0").read_text()
    for name in ("rounds/00/seed0-dense.npz", "rounds/01/seed0-ticket.npz", "rounds/01/seed0-shuffle0.npz"):
        with np.load(whole / name) as one, np.load(stopped / name) as other:
            assert set(one) == set(other)
            assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_what_the_engine_cannot_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, size: int = 1, **changes: Any) -> None:
        worker = Worker("launch", 0, size, 0, size)
        with pytest.raises(UsageError, match=match):
            prepare(options(tmp_path, **{"engine": "fabric", **changes}), Watcher(), worker=worker)

    refused("precision bf16-mixed with engine device", engine="device", precision="bf16-mixed")
    refused("precision 16-mixed with engine stacked", engine="stacked", precision="16-mixed")
    refused("compile with engine fabric", compile=True)
    refused("precision tf32 on a CPU", precision="tf32")
    refused("replica_workers 2 with engine device: only fabric", engine="device", replica_workers=2)
    refused("precision 16-mixed on a CPU", precision="16-mixed")
    refused("method gradual with engine fabric", method="gradual")
    refused("stack_size 4 with engine fabric", stack_size=4)
    refused("replica_workers 4, but this launch has 2", size=2, replica_workers=4)
    refused("batch 16 for 3 workers together", size=3)
    search(tmp_path / "begun", engine="fabric", seeds=1, replica_workers=1)
    refused("replica_workers 1, not 2", size=2, output_dir=str(tmp_path / "begun"), seeds=1, replica_workers=2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(r"lightning-fabric is missing; pip install '.\[large\]'")
