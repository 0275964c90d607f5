"""The memory of a stack, told beforehand, against what training it makes alive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from server_side.errors import UsageError
from server_side.stack_memory import LiveBytes, StackMemory, stack_memory
from server_side.stacked import StackedEngine
from server_side.training import Job
from tests.server_side.searches import Watcher, search


@pytest.mark.parametrize("model", ["lenet-300-100-digits", "tests.server_side.searches:normed"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_is_told_is_what_a_training_takes(tmp_path: Path, model: str, optimizer: str) -> None:
    data = "digits" if model.endswith("digits") else "tests.server_side.searches:blobs"
    small = search(tmp_path, data=data, model=model, optimizer=optimizer, steps="3it", evaluate_every="3it")
    random = np.random.default_rng(0)
    masks = {name: random.random(mask.shape) < 0.5 for name, mask in small.keeper.all_live().items()}
    for replicas in (1, 6):
        starts = [small.theta(seed) for seed in range(replicas)]
        starts = [{n: v * masks[n] if n in masks else v for n, v in start.items()} for start in starts]
        jobs = [Job(seed, "ticket", 0, start, masks) for seed, start in enumerate(starts)]
        with LiveBytes() as live:
            engine = StackedEngine(small.model, small.split, small.recipe, torch.device("cpu"))
            for tensor in (*engine.train_part, *engine.validation, *engine.test):
                tensor.flatten()  # made of an array, which nothing has told of
            engine.train(jobs, tmp_path / f"{replicas}.pt", Watcher())
        del engine
        made, recorded = (
            stack_memory(small.model, small.split, small.recipe, replicas, "32-true", recorded=known).total_bytes
            for known in (False, True)
        )
        assert made == pytest.approx(live.peak, rel=0.1)
        assert made < recorded < 2.5 * made


def test_a_plan_tells_it_where_replicas_are_stacked(tmp_path: Path) -> None:
    stacked = search(tmp_path / "stacked", stack_size=3, reinits=2).stack_memory
    assert stacked is not None
    assert stacked.replicas == 3
    assert search(tmp_path / "device", engine="device").stack_memory is None


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 16), nn.Dropout(0.4), nn.Linear(16, 4))


@pytest.mark.parametrize(
    ("model", "counts"), [(f"{__name__}:dropping", False), ("tests.server_side.searches:normed", True)]
)
def test_recordings_count_where_there_are_some(
    model: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that draw dropout are not recorded."""
    plain = search(tmp_path / "plain", model=model).stack_memory
    monkeypatch.setattr("server_side.search.recorder_of", lambda device: lambda step: step)
    known = search(tmp_path / "known", model=model).stack_memory
    assert plain is not None
    assert known is not None
    assert (known.total_bytes > plain.total_bytes) is counts


def test_too_little_memory_is_told_with_the_size_that_fits() -> None:
    memory = StackMemory(60, 100 << 20, 50 << 20)
    memory.check(memory.total_bytes)
    with pytest.raises(UsageError, match=r"stack_size 60: .* 3\.0 GB .* 1\.0 GB are free; take --stack-size 18"):
        memory.check(1 << 30)
    with pytest.raises(UsageError, match="smaller --batch"):
        memory.check(120 << 20)


def scaled() -> nn.Module:
    """A factory that looks at its own numbers."""
    module = nn.Linear(20, 4)
    with torch.no_grad():
        module.weight *= 0.1 / float(module.weight.std())
        module.bias.copy_(torch.from_numpy(np.asarray(torch.randn(4))))
    return module


def test_factories_may_look_at_their_weights(tmp_path: Path) -> None:
    assert search(tmp_path, model=f"{__name__}:scaled").stack_memory is not None
