"""What all runtimes of apps share, by one made of numpy: the order of samples, schedules, losses, checkpoints."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import CheckpointWarning, CorruptCheckpoint, InvalidInput, NonFiniteLoss, Trainer
from device_runtime import checkpoint as files
from device_runtime.artifact import ArtifactInfo, Source
from device_runtime.backends import open_engine, runtime_of
from device_runtime.backends.description import Description, Parameter
from device_runtime.backends.engine import (
    DIGEST_BYTES,
    MAGIC,
    BackendEngine,
    check_floats,
    losses,
    probabilities,
    scheduled,
)
from device_runtime.backends.order import SampleOrder
from device_runtime.backends.settings import settings_of
from device_runtime.backends.silence import silent
from device_runtime.engine import Floats, Targets
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import Recipe, artifact

NET = nets.small()
X, Y = nets.task(NET, 50)
SETTINGS: dict[str, Any] = {
    "batch": 8,
    "seed": 3,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "constant",
    "warmup_steps": 0,
    "schedule_steps": 0,
    "schedule_factor": 1.0,
}


class Regression(BackendEngine):
    """Softmax regression with momentum 0.9."""

    name, takes = "numpy", frozenset({"momentum"})

    @classmethod
    def open(cls, source: Source, given: Mapping[str, Any]) -> Regression:
        raise NotImplementedError

    def __init__(self, **changes: Any) -> None:
        info = ArtifactInfo(
            *((3, 2, 2), 12, 4, "cross_entropy", ("linear",), 1, False, 0, 1.0, 48, 48, 2, "ab" * 32, 0, {}, {})
        )
        super().__init__(Description(info, (Parameter("w", (4, 12), None, False),), {}), {**SETTINGS, **changes})
        self.w = np.zeros((4, 12), np.float32)
        self.velocity, self.gradient = np.zeros((4, 12)), np.zeros((4, 12))
        self.released = 0

    def _backward(self, samples: Floats, targets: Targets) -> float:
        p = probabilities(self._scores(samples), "cross_entropy")
        self.gradient = (p - np.eye(4)[targets.astype(int)]).T @ samples / len(samples)
        return losses(self._scores(samples), targets, "cross_entropy")[0] / len(samples)

    def _apply(self, learning_rate: float) -> None:
        self.velocity = 0.9 * self.velocity + self.gradient
        self.w = (self.w - learning_rate * self.velocity).astype(np.float32)  # what a checkpoint holds

    def _gradients_are_finite(self) -> bool:
        return bool(np.isfinite(self.gradient).all())

    def _scores(self, samples: Floats) -> Floats:
        return (samples @ self.w.T).astype(np.float32)

    def _named_gradients(self) -> dict[str, Floats]:
        return {"w": self.gradient.astype(np.float32).ravel()}

    def _named_values(self) -> dict[str, Floats]:
        return {"w": self.w.astype(np.float32).ravel()}

    def _load_values(self, values: Mapping[str, Floats]) -> None:
        self.w = values["w"].reshape(4, 12).copy()

    def _optimizer_state(self) -> dict[str, Any]:
        return {"velocity": self.velocity}

    def _load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        if state:
            check_floats("velocity", state["velocity"], self.velocity)
        self.velocity = state["velocity"].copy() if state else np.zeros((4, 12))

    def _start(self) -> dict[str, Floats]:
        return {"w": np.zeros(48, np.float32)}

    def _release(self) -> None:
        self.released += 1


def trainer(**changes: Any) -> Trainer:
    engine = Regression(**changes)
    return Trainer(engine, engine.description.info, engine.settings["batch"])


@pytest.mark.parametrize("count", [1, 2, 21, 64, 65, 1000])
def test_samples_come_in_the_order_of_the_core(count: int) -> None:
    for seed in (0, 7, 2**64 - 1):
        with Trainer.open(artifact(NET), batch=8, seed=seed) as native:
            order = SampleOrder(seed)
            for _ in range(3 * count // 8 + 3):
                assert order.next_batch(8, count).tolist() == native._engine.next_batch(count).tolist()
            assert (order.epoch, order.position) == (native.progress.epoch, native.progress.position)


def test_losses_and_probabilities_are_those_of_the_core() -> None:
    for loss in ("cross_entropy", "mse", "bce"):
        net = nets.small(recipe=Recipe(batch=8), loss={"cross_entropy": 1, "mse": 2, "bce": 3}[loss])
        y: Any = Y if loss == "cross_entropy" else np.random.default_rng(0).random((50, 4)).round().astype(np.float32)
        with Trainer.open(artifact(net)) as native:
            told, predicted = native.evaluate(X, y), native.predict(X)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = {"cross_entropy": np.log(predicted), "bce": np.log(predicted) - np.log1p(-predicted)}
        scores = np.asarray(predicted if loss == "mse" else logits[loss], np.float32)
        total, correct = losses(scores, y, loss)
        assert total / 50 == pytest.approx(told.loss, rel=1e-5)
        assert correct == told.correct
        assert probabilities(scores, loss) == pytest.approx(predicted, abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "linear"])
def test_rates_are_those_of_the_core(schedule: str) -> None:
    """Plain SGD moves a weight by rate times gradient, so a step with momentum 0 tells the rate."""
    given: dict[str, Any] = {"schedule": schedule, "warmup_steps": 3, "learning_rate": 0.25}
    given |= {} if schedule == "constant" else {"schedule_steps": 4, "schedule_factor": 0.5}
    settings = {**SETTINGS, **given}
    with Trainer.open(
        artifact(nets.small(recipe=Recipe(batch=8))), momentum=0.0, store_gradients=True, **given
    ) as native:
        for step in range(14):
            native.compute_gradients(X[:8], Y[:8])
            gradient, before = native.gradients, native.values
            native.train_step(X[:8], Y[:8])
            largest = int(np.abs(gradient).argmax())
            moved = (before - native.values)[largest] / gradient[largest]
            assert scheduled(settings, step) == pytest.approx(moved, rel=1e-4), step


def test_the_verbs_are_those_of_a_trainer(tmp_path: Path) -> None:
    with trainer() as one:
        before = one.evaluate(X, Y)
        report = one.fit(X, Y, checkpoint=tmp_path / "c", checkpoint_every=4)
        assert (report.steps, report.epochs) == (14, 2)  # the description's epochs
        assert one.evaluate(X, Y).loss < before.loss
        assert one.predict(X).sum(axis=1) == pytest.approx(1)
        assert one.values.shape == one.gradients.shape == (48,)
        with trainer() as other:
            assert other.restore(tmp_path / "c")
            assert other.progress == one.progress
            assert other.predict(X).tobytes() == one.predict(X).tobytes()
        one.reset()
        assert one.evaluate(X, Y) == before
        again = one.fit(X, Y)
        assert again.losses.tobytes() == report.losses.tobytes()


def test_going_on_gives_the_losses_of_a_run_that_was_never_interrupted() -> None:
    with trainer() as whole, trainer() as first, trainer() as second:
        wanted = whole.fit(X, Y, steps=12).losses
        begun = first.fit(X, Y, steps=5).losses
        second.restore(first.save())
        assert np.concatenate([begun, second.fit(X, Y, steps=12).losses]).tobytes() == wanted.tobytes()


def test_a_damaged_checkpoint_is_refused_wherever_the_bit_is() -> None:
    with trainer() as one:
        one.fit(X, Y, steps=3)
        content, values = one.save(), one.values.tobytes()
        for at in [*range(40), *range(40, len(content), 53)]:
            damaged = bytearray(content)
            damaged[at] ^= 1 << (at % 8)
            with pytest.raises(CorruptCheckpoint):
                one.restore(bytes(damaged))
        with pytest.raises(CorruptCheckpoint, match="cut short"):
            one.restore(content[:-1])
        assert one.values.tobytes() == values


def test_a_checkpoint_of_another_ticket_or_optimizer_is_refused() -> None:
    with trainer() as one, trainer(optimizer="adamw") as other:
        content = one.save()
        with pytest.raises(InvalidInput, match="is of optimizer sgd, not adamw; open the trainer with"):
            other.restore(content)


Told = dict[str, Any]


def remade(content: bytes, change: Callable[[Told, Told], None]) -> bytes:
    """A checkpoint with another content under a checksum that fits."""
    start = len(MAGIC) + DIGEST_BYTES
    with np.load(io.BytesIO(content[start:])) as archive:
        arrays = {name: archive[name] for name in archive.files}
    told = json.loads(arrays.pop("told").tobytes())
    change(told, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)
    return MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def told_as(**told: Any) -> Callable[[Told, Told], None]:
    return lambda known, arrays: known.update(told)


def array_as(name: str, change: Callable[[Any], Any]) -> Callable[[Told, Told], None]:
    return lambda told, arrays: arrays.update({name: change(arrays[name])})


IMPOSSIBLE: dict[str, tuple[Callable[[Told, Told], None], str]] = {
    "NaN": (array_as("values/w", lambda w: w * np.float32("nan")), "parameter 'w' is not finite"),
    "one value for all": (array_as("values/w", lambda w: w[:1]), r"'w' is float32 of shape \(1,\), not"),
    "float64": (array_as("values/w", lambda w: w.astype(float)), "'w' is float64"),
    "no parameter": (lambda told, arrays: arrays.pop("values/w"), "other parameters"),
    "another parameter": (lambda told, arrays: arrays.update({"values/b": np.zeros(4)}), "other parameters"),
    "velocity infinite": (array_as("optimizer/velocity", lambda v: v + np.inf), "velocity is not finite"),
    "velocity short": (array_as("optimizer/velocity", lambda v: v[0]), "velocity is float64 of shape"),
    "no velocity": (lambda told, arrays: arrays.pop("optimizer/velocity"), "another optimizer's state"),
    "position": (told_as(position=-5), "position '-5' cannot be"),
    "position at its end": (told_as(position=2**32 - 1), "position '4294967295' cannot be"),
    "step": (told_as(step="x"), "step 'x' cannot be"),
    "a step that is none": (told_as(step=True), "step 'True' cannot be"),
    "epoch": (told_as(epoch=2**64), "epoch '18446744073709551616' cannot be"),
    "no seed": (lambda told, arrays: told.pop("seed"), "seed 'None' cannot be"),
    "no optimizer": (lambda told, arrays: told.pop("optimizer"), "does not say its optimizer"),
    "ticket": (told_as(ticket_hash="cd" * 32), "is of ticket_hash cdcd"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_training_leaves_is_refused_and_changes_nothing(name: str, tmp_path: Path) -> None:
    """So that the generation before it is taken."""
    change, message = IMPOSSIBLE[name]
    with trainer() as one:
        one.fit(X, Y, steps=2)
        good = one.save()
        files.save_generation(tmp_path / "c", good)
        one.fit(X, Y, steps=3)
        newest = one.save()
        one.restore(remade(newest, lambda told, arrays: None))
        bad = remade(newest, change)
        files.save_generation(tmp_path / "c", bad)
        with pytest.raises(CorruptCheckpoint, match=message):
            one.restore(bad)
        assert one.save() == newest
        with pytest.warns(CheckpointWarning):
            one.restore(tmp_path / "c")
        assert one.save() == good


def test_a_step_whose_gradient_is_not_finite_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with trainer() as one:
        before = one.save()
        monkeypatch.setattr(one._engine, "_backward", lambda samples, targets: 1.0)
        monkeypatch.setattr(one._engine, "gradient", np.full((4, 12), np.inf))
        with pytest.raises(NonFiniteLoss, match="a gradient of step 0 is not finite; nothing was changed"):
            one.train_step(X[:8], Y[:8])
        assert one.save() == before


def test_values_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """They would push the good generations out."""
    for attribute in ("w", "velocity"):
        with trainer() as one:
            good = one.save(tmp_path / attribute)
            setattr(one._engine, attribute, np.full((4, 12), np.inf, np.float32))
            with pytest.raises(NonFiniteLoss, match="training has diverged"):
                one.save(tmp_path / attribute)
            assert (tmp_path / attribute).read_bytes() == good


@pytest.mark.parametrize(
    "option", [{"threads": 64}, {"threads": 65}, {"learning_rate": 3.4028e38}, {"learning_rate": 3.41e38}]
)
def test_options_have_the_ranges_of_the_core(option: dict[str, Any]) -> None:
    def refused(open_: Callable[[], Any]) -> bool:
        try:
            open_()
        except InvalidInput:
            return True
        return False

    wanted = refused(lambda: Trainer.open(artifact(NET), **option).close())
    assert refused(lambda: settings_of(SETTINGS, option)) is wanted
    if "learning_rate" in option:
        assert refused(lambda: trainer().set_learning_rate(option["learning_rate"])) is wanted


def test_a_loss_of_nan_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with trainer() as one:
        one.train_step(X[:8], Y[:8])
        before = one.values.tobytes()
        monkeypatch.setattr(one._engine, "_backward", lambda samples, targets: float("nan"))
        with pytest.raises(NonFiniteLoss, match="of step 1 is nan; nothing was changed; lower the learning rate"):
            one.train_step(X[:8], Y[:8])
        assert (one.values.tobytes(), one.progress.step) == (before, 1)


def test_bad_samples_are_named_and_cost_nothing() -> None:
    with trainer() as one:
        spoilt = X[:8].copy()
        spoilt[5] = np.nan
        with pytest.raises(InvalidInput, match=r"x\[5\] holds NaN"):
            one.evaluate(spoilt, Y[:8])
        with pytest.raises(InvalidInput, match="9 samples in a step of at most 8"):
            one.train_step(X[:9], Y[:9])
        assert one.progress.step == 0


def test_one_thread_at_a_time_and_a_close_that_waits() -> None:
    one = trainer()
    engine: Any = one._engine
    entered, leave = threading.Event(), threading.Event()

    def scores(samples: Floats) -> Floats:
        entered.set()
        leave.wait(10)
        return np.zeros((len(samples), 4), np.float32)

    engine._scores = scores
    thread = threading.Thread(target=lambda: one.predict(X[:8]))
    thread.start()
    entered.wait(10)
    with pytest.raises(InvalidInput, match="busy in another thread"):
        one.predict(X[:8])
    closing = threading.Thread(target=one.close)
    closing.start()
    assert engine.released == 0
    leave.set()
    thread.join()
    closing.join()
    one.close()
    assert engine.released == 1
    with pytest.raises(InvalidInput, match="is closed"):
        one.predict(X[:8])


def test_what_only_native_artifacts_have_is_refused_by_name(tmp_path: Path) -> None:
    with trainer() as one:
        for name in ("arena_bytes", "memory", "kernels", "micro_batch", "recomputed_nodes"):
            with pytest.raises(InvalidInput, match=f"{name} is known of native artifacts alone"):
                getattr(one, name)
        with pytest.raises(InvalidInput, match="only the native trainer writes artifacts"):
            one.export()


def test_artifacts_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "native").write_bytes(artifact(NET))
    (tmp_path / "program").write_bytes(b"\x20\0\0\0ET12" + bytes(32))
    told = [runtime_of(source) for source in (artifact(NET), tmp_path / "native", tmp_path / "program", tmp_path)]
    assert told == ["native", "native", "executorch", "onnxruntime"]


def test_options_that_a_runtime_cannot_follow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_runtime.backends.ENGINES", {"executorch": (__name__, "Regression")})
    with pytest.raises(InvalidInput, match="recompute True by executorch: it cannot follow that"):
        open_engine("executorch", b"", {"recompute": True})
    monkeypatch.setattr("device_runtime.backends.ENGINES", {"executorch": ("no_such_runtime", "Engine")})
    with pytest.raises(InvalidInput, match=r"no_such_runtime is missing.*pip install 'pocket-ticket\[executorch\]'"):
        open_engine("executorch", b"", {})


def test_silence_in_two_threads_ends() -> None:
    """The second one must not take the silence of the first for what was there before."""

    def where() -> tuple[int, int]:
        return os.fstat(1).st_ino, os.fstat(2).st_ino

    before, inside, leave = where(), threading.Event(), threading.Event()

    def first() -> None:
        with silent():
            inside.set()
            leave.wait(10)

    def second() -> None:
        inside.wait(10)
        with silent(), silent():
            threads[0].join(10)  # the first one leaves first

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    threads[1].join(0.1)  # by then without a lock it had looked
    leave.set()
    for thread in threads:
        thread.join()
    assert where() == before
    with silent():
        assert where() != before
