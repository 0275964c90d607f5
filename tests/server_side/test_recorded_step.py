"""Steps that are recorded and replayed give the bits of steps that are made. There is no GPU here: what is recorded is the list
of torch's operations on the tensors they were given, which like a CUDA graph knows nothing of Python or of the host's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import host_time
from server_side import stacked
from server_side.controls import apply_masks
from server_side.distillation import Distillation
from server_side.recorded_step import RecordedStep, Recorder, Step
from server_side.search import Search
from server_side.stacked import StackedEngine
from server_side.training import Interrupted, Job, Training
from tests.server_side.searches import Watcher, search


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation while it is entered, with its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.entries.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, result in self.entries:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.detach().copy_(new)


def tape(step: Step) -> Step:
    step()
    recorded = Tape()
    with recorded:
        step()
    return recorded.replay


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of stacks are recorded; counts the replays."""
    counted: list[int] = []

    def counting(step: Step) -> Step:
        replay = tape(step)

        def again() -> None:
            counted.append(1)
            replay()

        return again

    monkeypatch.setattr(stacked, "recorder_of", lambda device: counting)
    return counted


def pictures() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(80, 1, 8, 8)).astype(np.float32), "y": np.arange(80) % 3}


def convolutional() -> Any:
    from torch import nn

    head = nn.Flatten(), nn.Linear(4 * 64, 3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *head)


PICTURES: dict[str, Any] = {"data": f"{__name__}:pictures", "model": f"{__name__}:convolutional"}
DROPS: dict[str, Any] = {"learning_rate_schedule": "step", "learning_rate_drops": ["20it"], "warmup": "5it"}
SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3}


def jobs_of(small: Search, **changes: Any) -> list[Job]:
    random = np.random.default_rng(1)
    masks = {name: random.random(mask.shape) < 0.5 for name, mask in small.keeper.all_live().items()}
    return [Job(s, "ticket", 0, apply_masks(small.theta(s), masks), masks, **changes) for s in small.seeds]


def train(small: Search, checkpoint: Path, jobs: list[Job], stop_after: int | None = None) -> list[Training]:
    engine = StackedEngine(small.model, small.split, small.recipe, torch.device("cpu"))
    return engine.train(jobs, checkpoint, Watcher(stop_after))


def assert_same(ours: list[Training], theirs: list[Training]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for kind in ("early", "final"):
            assert all(
                value.tobytes() == getattr(other, kind)[name].tobytes() for name, value in getattr(one, kind).items()
            )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        SGD,
        DROPS,
        {**PICTURES, "augment": "flip,crop2"},
        {**PICTURES, "augment": "resized50"},
        {"optimizer": "adamw"},
    ],
    ids=["adam", "sgd", "drops", "crops", "resized", "adamw"],
)
def test_a_replayed_training_is_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replays: list[int], settings: dict[str, Any]
) -> None:
    small = search(tmp_path, **settings)
    replayed = train(small, tmp_path / "replayed.pt", jobs_of(small))
    assert len(replays) == 39 + 4  # of 40 steps and 5 evaluations: the second is the first replay
    with pytest.raises(Interrupted):
        train(small, tmp_path / "parts.pt", jobs_of(small), stop_after=9)
    parts = train(small, tmp_path / "parts.pt", jobs_of(small))
    monkeypatch.undo()
    made = train(small, tmp_path / "made.pt", jobs_of(small))
    assert_same(replayed, made)
    assert_same(parts, made)


def test_a_replayed_student_learns_from_its_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replays: list[int]
) -> None:
    small = search(tmp_path)
    taught = jobs_of(small, distillation=Distillation(small.theta(5)))
    replayed = train(small, tmp_path / "replayed.pt", taught)
    assert replays
    monkeypatch.undo()
    assert_same(replayed, train(small, tmp_path / "made.pt", taught))


def test_a_whole_search_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replays: list[int]) -> None:
    """Also where masks move and where dropout draws, which are not recorded."""
    one = search(tmp_path / "replayed", method="gates", reinits=1, rounds=1).run()
    assert replays
    monkeypatch.undo()
    other = search(tmp_path / "made", method="gates", reinits=1, rounds=1).run()
    for ours, theirs in zip(one, other, strict=True):
        assert_same(list(ours.trainings.values()), list(theirs.trainings.values()))


def test_the_benchmark_of_the_hosts_time_trains_and_then_replays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []
    step_alike = stacked._Run._step_alike

    def counting(run: stacked._Run) -> None:
        made.append(1)
        step_alike(run)

    monkeypatch.setattr(stacked._Run, "_step_alike", counting)
    monkeypatch.setattr(host_time, "STEPS", {"eager": 7, "replayed": 50})
    monkeypatch.setattr(host_time, "STACKS", (5, 10))
    assert host_time.main(["--rounds", "1", "--json", str(tmp_path / "result.json")]) == 0
    assert len(made) == 2 * 2 * (7 + 3)  # stacks, rounds, steps; of a recorded training two and the judged replay
    rows = json.loads((tmp_path / "result.json").read_text())["microseconds_per_step"]
    assert list(rows) == [f"{way}, {n} replicas" for n in (5, 10) for way in ("eager", "replayed")]
    assert "replayed, 10 replicas" in capsys.readouterr().out


class Counter:
    """A step that adds `by` to a tensor."""

    def __init__(self) -> None:
        self.value, self.by, self.calls = torch.zeros(2), 1.0, 0

    def __call__(self) -> None:
        self.calls += 1
        self.value.add_(self.by)

    def recorded(self, record: Recorder) -> RecordedStep:
        return RecordedStep(self, lambda: [self.value], record)


def test_what_gives_other_bits_is_not_replayed() -> None:
    """Here a number of the host that the recording keeps, as 1 and not as 2."""
    counter = Counter()

    def record(step: Step) -> Callable[[], None]:
        replay = tape(step)
        counter.by = 2.0
        return replay

    def stale(step: Step) -> Step:
        counter.by = 3.0
        replay = tape(step)
        counter.by = 1.0
        return replay

    step = counter.recorded(stale)
    step()
    with pytest.warns(
        RuntimeWarning, match="could not be recorded, so training goes on without, slower: its replay gave other"
    ):
        step()
    step()
    assert counter.value.tolist() == [3, 3]
    counter = Counter()
    step = counter.recorded(record)
    for _ in range(4):
        step()
    assert counter.value.tolist() == [4, 4]  # what tells that a replay does not look at Python


def test_what_cannot_be_recorded_is_made() -> None:
    counter = Counter()

    def refuses(step: Step) -> Step:
        step()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    step = counter.recorded(refuses)
    step()
    with pytest.warns(RuntimeWarning, match="operation not permitted when stream is capturing"):
        step()
    for _ in range(3):
        step()
    assert counter.value.tolist() == [5, 5]
    assert counter.calls == 6


def test_a_diverged_replica_does_not_stop_the_recording() -> None:
    counter = Counter()
    counter.value[1] = float("nan")
    step = counter.recorded(tape)
    for _ in range(3):
        step()
    calls = counter.calls
    step()
    assert counter.calls == calls
    assert counter.value[0] == 4
