"""Pruned weights never move, live ones of either sign do; a stopped or killed search goes on to the same bits."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from server_side.find import _recipe
from server_side.search import Search
from server_side.stacked import StackedEngine
from server_side.training import Interrupted, Job, Training
from tests.server_side.searches import Tiny, Watcher, search

ROOT = Path(__file__).parents[2]


def half_masked(small: Search, seed: int = 0) -> Job:
    masks = {
        name: np.random.default_rng(1).random(value.shape) < 0.5
        for name, value in small.theta(seed).items()
        if name.endswith("weight")
    }
    start = {n: np.where(masks[n], v, np.float32(0)) if n in masks else v for n, v in small.theta(seed).items()}
    return Job(seed, "ticket", 0, start, masks)


def trained(small: Search, jobs: list[Job], path: Path) -> list[Training]:
    engine = StackedEngine(small.model, small.split, small.recipe, torch.device("cpu"))
    return engine.train(jobs, path / "stack.pt", Watcher())


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05}]
)
def test_pruned_weights_stay_zero_under_momentum_and_weight_decay(tmp_path: Path, changes: dict[str, Any]) -> None:
    small = search(tmp_path, weight_decay=0.01, **changes)
    job = half_masked(small)
    (training,) = trained(small, [job], tmp_path)
    for name, mask in job.masks.items():
        assert (training.final[name][~mask] == 0).all()
        moved = training.final[name] != job.start[name]
        assert moved[mask & (job.start[name] < 0)].mean() > 0.9  # a gradient mask without abs() freezes these
        assert moved[mask & (job.start[name] > 0)].mean() > 0.9


def test_a_stack_trains_as_plain_pytorch_does(tmp_path: Path) -> None:
    """Two replicas in one program against a loop over one module, same batches; float32 rounding apart."""
    small = search(tmp_path, seeds=2)
    jobs = [half_masked(small, 0), half_masked(small, 1)]
    for job, training in zip(jobs, trained(small, jobs, tmp_path), strict=True):
        expected = plain(small, job)
        for name, value in training.final.items():
            np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-5)


def plain(small: Search, job: Job) -> dict[str, np.ndarray]:
    from server_side.seeds import BatchOrder

    module = Tiny()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in job.start.items()})
    optimizer = torch.optim.Adam(module.parameters(), lr=small.recipe.learning_rate)
    order = BatchOrder(job.seed, len(small.split.x_train), small.recipe.batch)
    for step in range(small.recipe.steps):
        index = order.indices(step)
        loss = F.cross_entropy(
            module(torch.from_numpy(small.split.x_train[index])), torch.from_numpy(small.split.y_train[index])
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for name, parameter in module.named_parameters():
            if name in job.masks and parameter.grad is not None:
                parameter.grad *= torch.from_numpy(job.masks[name])
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def test_early_stop_is_the_lowest_validation_loss_and_its_weights_are_kept(tmp_path: Path) -> None:
    small = search(tmp_path, learning_rate=0.05, steps="200it")
    (training,) = trained(small, [half_masked(small)], tmp_path)
    assert training.validation_loss[training.early_index] == training.validation_loss.min()
    assert 0 < training.early_step < 200  # it overfits: the end is not the best
    assert training.steps.tolist() == list(range(0, 201, 10))
    parts = small.split.x_validation, small.split.y_validation
    module = Tiny()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in training.early.items()})
    loss = F.cross_entropy(module(torch.from_numpy(parts[0])), torch.from_numpy(parts[1])).item()
    assert loss == pytest.approx(training.validation_loss.min(), rel=1e-5)


def same_tickets(first: Search, second: Search) -> None:
    for r1, r2 in zip(first.run(), second.run(), strict=True):
        assert r1.trainings.keys() == r2.trainings.keys()
        for name, training in r1.trainings.items():
            assert training.validation_loss.tobytes() == r2.trainings[name].validation_loss.tobytes()
            assert training.early_accuracy == r2.trainings[name].early_accuracy
            for weights, again in (
                (training.early, r2.trainings[name].early),
                (training.final, r2.trainings[name].final),
            ):
                assert all(weights[parameter].tobytes() == value.tobytes() for parameter, value in again.items())
        assert r1.measured["dense"].accuracy.tolist() == r2.measured["dense"].accuracy.tolist()


@pytest.mark.parametrize(
    "stop_after", [1, 17, 60, 95, 190]
)  # 190: near the end of the dense stack, past its early stop
def test_a_stopped_search_goes_on_to_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    overfitting: dict[str, Any] = {"learning_rate": 0.05, "steps": "200it", "rounds": 1}
    stopped = search(tmp_path / "stopped", Watcher(stop_after), **overfitting)
    with pytest.raises(Interrupted):
        stopped.run()
    same_tickets(search(tmp_path / "whole", **overfitting), search(tmp_path / "stopped", **overfitting))


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_a_search_killed_at_any_moment_finds_the_same_ticket(tmp_path: Path, engine: str) -> None:
    arguments = [sys.executable, "-m", "server_side.find", "--data", "tests.server_side.searches:blobs"]
    arguments += ["--model", "tests.server_side.searches:Tiny", "--seeds", "2", "--rounds", "4", "--reinits", "1"]
    arguments += ["--steps", "300it", "--evaluate-every", "20it", "--batch", "16", "--threads", "1", "--quiet"]
    arguments += ["--engine", engine, "--validation", "0.2"]
    whole = subprocess.run(
        [*arguments, "--output-dir", str(tmp_path / "whole")], cwd=ROOT, capture_output=True, check=False
    )
    assert whole.returncode in (0, 3), whole.stderr
    killed = [*arguments, "--output-dir", str(tmp_path / "killed")]
    kills = 0
    for wanted in (1, 2):  # once in the first rounds, once later
        process = subprocess.Popen(killed, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "killed/rounds" / f"{wanted:02d}").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2
    resumed = subprocess.run(killed, cwd=ROOT, capture_output=True, check=False)
    assert resumed.returncode == whole.returncode, resumed.stderr
    tickets = [(tmp_path / run / "ticket/ticket.json").read_bytes() for run in ("whole", "killed")]
    assert tickets[0] == tickets[1]


def test_a_damaged_training_file_is_trained_again(tmp_path: Path) -> None:
    whole = search(tmp_path).run()
    (tmp_path / "rounds/01/seed0-ticket.npz").write_bytes(b"PK\x03\x04 cut short")
    flipped = tmp_path / "rounds/01/seed1-ticket.npz"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 0x55
    flipped.write_bytes(content)
    (tmp_path / "rounds/01/ticket-stack0.pt").write_bytes(b"damaged")
    again = search(tmp_path).run()
    expected = whole[1].trainings["seed0-ticket"].validation_loss
    assert again[1].trainings["seed0-ticket"].validation_loss.tobytes() == expected.tobytes()


def test_the_recipe_counts_epochs_in_steps(tmp_path: Path) -> None:
    small = search(tmp_path, steps="3ep", evaluate_every="1ep")
    recipe, rewind_step = _recipe(small.options, 256, (20,))
    assert (recipe.steps, recipe.evaluate_every, rewind_step) == (48, 16, 0)


def normed() -> torch.nn.Module:
    """Batch norm, whose statistics run, before and after a layer that is pruned."""
    first, last = torch.nn.Linear(20, 16), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(torch.nn.BatchNorm1d(20), first, torch.nn.BatchNorm1d(16), torch.nn.ReLU(), last)


def frozen() -> torch.nn.Module:
    """A batch norm that does not follow its batches."""
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(20), torch.nn.Linear(20, 16), torch.nn.Linear(16, 4))
    module[0].eval()
    return module


def dropping() -> torch.nn.Module:
    layers = torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Dropout(0.4), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(*layers)


def test_replicas_with_batch_norm_train_alone_and_as_on_the_device(tmp_path: Path) -> None:
    """Running statistics of each replica are its own, and those of the device's runtime."""
    settings: dict[str, Any] = {"model": f"{__name__}:normed", "rounds": 1, "optimizer": "sgd", "learning_rate": 0.05}
    stacked = search(tmp_path / "stacked", **settings).run()
    alone = search(tmp_path / "alone", seeds=1, **settings).run()
    device = search(tmp_path / "device", engine="device", **settings).run()
    for number, name in ((0, "seed0-dense"), (1, "seed0-ticket")):
        one, other, third = (rounds[number].trainings[name] for rounds in (stacked, alone, device))
        assert "0.running_var" in one.final
        assert (one.final["2.running_mean"] != 0).all()
        for parameter, value in one.final.items():
            np.testing.assert_allclose(other.final[parameter], value, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(third.final[parameter], value, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(third.validation_loss, one.validation_loss, rtol=1e-4)


def test_a_frozen_batch_norm_stays_as_it_is(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": f"{__name__}:frozen", "rounds": 1}
    for engine in ("stacked", "device"):
        final = search(tmp_path / engine, engine=engine, **settings).run()[0].trainings["seed0-dense"].final
        assert (final["0.running_mean"] == 0).all()
        assert (final["0.weight"] != 1).all()


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_dropout_is_drawn_anew_for_every_step_and_seed_and_a_resumed_run_draws_the_same(
    tmp_path: Path, engine: str
) -> None:
    settings: dict[str, Any] = {"model": f"{__name__}:dropping", "rounds": 1, "engine": engine, "evaluate_every": "5it"}
    with pytest.raises(Interrupted):
        search(tmp_path / "stopped", Watcher(13), **settings).run()
    same_tickets(search(tmp_path / "whole", **settings), search(tmp_path / "stopped", **settings))


def test_replicates_do_not_share_their_dropout(tmp_path: Path) -> None:
    """From the same weights and batches, only what is dropped differs between two orders of one seed."""
    small = search(tmp_path, model=f"{__name__}:dropping", engine="device", batch=256, steps="10it")
    from server_side.device_engine import DeviceEngine

    start = small.theta(0)
    losses: dict[int, float] = {}
    jobs = [Job(0, "ticket", index, start, {}, order=index) for index in (0, 1)]
    for job in jobs:
        engine = DeviceEngine(small.model.network, small.split, small.recipe, 1)
        path = {job.name: tmp_path / f"{job.order}.npz"}
        engine.train(
            [job],
            path,
            lambda job: contextlib.nullcontext(Watcher()),
            lambda job, training: losses.update({job.order: training.train_loss[-1]}),
        )
    assert losses[0] != losses[1]


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_a_schedule_is_trained_by(tmp_path: Path, engine: str) -> None:
    """A rate of 0 from the first drop on: nothing moves any more; a warm-up moves less than the rate itself."""
    settings: dict[str, Any] = {"engine": engine, "rounds": 1, "optimizer": "sgd", "learning_rate": 0.1}
    step: dict[str, Any] = {
        "learning_rate_schedule": "step",
        "learning_rate_drops": ["20it"],
        "learning_rate_factor": 0.0,
    }
    dropped = search(tmp_path / "dropped", **settings, **step).run()[0].trainings["seed0-dense"]
    assert len(set(dropped.validation_loss[:3].tolist())) == 3
    assert len(set(dropped.validation_loss[2:].tolist())) == 1  # evaluated at 20, 30, 40
    plain_rate = search(tmp_path / "plain", **settings).run()[0].trainings["seed0-dense"]
    warmed = search(tmp_path / "warmed", **settings, warmup="39it").run()[0].trainings["seed0-dense"]
    assert plain_rate.validation_loss[1] < warmed.validation_loss[1] < warmed.validation_loss[0]


DROPPED: dict[str, Any] = {
    "learning_rate_schedule": "step",
    "learning_rate_drops": ["30it"],
    "learning_rate_factor": 1e-5,
}


@pytest.mark.parametrize("engine", ["stacked", "device"])
@pytest.mark.parametrize("retrain", ["learning-rate", "fine-tune"])
def test_tickets_may_start_from_trained_weights(tmp_path: Path, engine: str, retrain: str) -> None:
    """Renda et al. 2020: learning-rate rewinding and fine-tuning keep the weights that decided the mask."""
    small = search(tmp_path, engine=engine, retrain=retrain, rounds=2, **DROPPED)
    rounds = small.run()
    for number, before in ((1, "seed1-dense"), (2, "seed1-ticket")):
        trained_before = rounds[number - 1].trainings[before].final
        ticket = rounds[number].trainings["seed1-ticket"]
        for name, mask in rounds[number].masks[1].items():
            assert rounds[number].start[1][name].tobytes() == trained_before[name].tobytes()
            assert (ticket.final[name][~mask] == 0).all()
    moved = np.abs(rounds[1].trainings["seed1-ticket"].final["fc2.bias"] - rounds[1].start[1]["fc2.bias"]).max()
    assert (moved > 1e-3) == (retrain == "learning-rate")  # the last rate is next to nothing


def pictures() -> dict[str, Any]:
    """Grey pictures of 6 x 6 without a channel, bright above or below the middle."""
    generator = np.random.default_rng(3)
    y = np.arange(320) % 2
    x = (
        generator.normal(size=(320, 6, 6))
        + np.where(np.arange(6)[None, :, None] < 3, 1, -1) * (2 * y - 1)[:, None, None]
    )
    return {"x": x.astype(np.float32), "y": y}


def looking() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_both_engines_train_on_the_same_augmented_pictures_and_go_on_with_them(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": f"{__name__}:pictures",
        "model": f"{__name__}:looking",
        "rounds": 1,
        "evaluate_every": "20it",
        "optimizer": "sgd",
        "learning_rate": 0.05,
    }
    runs = {
        engine: search(tmp_path / engine, engine=engine, augment="flip,crop2", **settings).run()
        for engine in ("stacked", "device")
    }
    for number, name in ((0, "seed1-dense"), (1, "seed1-shuffle0")):
        one, other = (runs[engine][number].trainings[name] for engine in ("stacked", "device"))
        np.testing.assert_allclose(one.train_loss[1:], other.train_loss[1:], rtol=1e-4)
        np.testing.assert_allclose(one.validation_loss, other.validation_loss, rtol=1e-4)
    plain_pictures = search(tmp_path / "plain", **settings).run()[0].trainings["seed1-dense"]
    assert abs(plain_pictures.train_loss[1] - runs["stacked"][0].trainings["seed1-dense"].train_loss[1]) > 1e-3
    with pytest.raises(Interrupted):
        search(tmp_path / "stopped", Watcher(1), engine="device", augment="flip,crop2", **settings).run()
    resumed = search(tmp_path / "stopped", engine="device", augment="flip,crop2", **settings)
    same_tickets(search(tmp_path / "device", engine="device", augment="flip,crop2", **settings), resumed)
