"""The verbs of Trainer: what they return, what they refuse and how they say it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from device_runtime import BudgetExceeded, InvalidInput, NonFiniteLoss, Progress, Trainer, inspect
from device_runtime import _core as core
from device_runtime.artifact import make_options, memory_plan
from device_runtime.data import Array
from tests.device_runtime import nets, reference
from tests.device_runtime.tkt_writer import ADAM, LINEAR, SGD, Net, Node, Param, Recipe, artifact

NET = nets.small()
ARTIFACT = artifact(NET)
X, Y = nets.task(NET, 50)


def test_training_learns_and_the_report_tells_what_was_done() -> None:
    with Trainer.open(ARTIFACT) as trainer:
        before = trainer.evaluate(X, Y)
        report = trainer.fit(X, Y, epochs=20)
        after = trainer.evaluate(X, Y)
    assert (report.steps, report.epochs, report.cancelled) == (20 * 7, 20, False)
    assert report.progress == Progress(step=140, epoch=20, position=0, loss=float(report.losses[-1]))
    assert report.losses.shape == (140,)
    assert report.losses.dtype == np.float32
    assert after.count == 50
    assert after.accuracy == after.correct / 50 > 0.9 > before.accuracy
    assert after.loss < before.loss


def test_fit_without_a_length_takes_the_epochs_of_the_recipe() -> None:
    with Trainer.open(ARTIFACT) as trainer:
        assert trainer.fit(X, Y).epochs == NET.recipe.epochs == trainer.info.epochs
    without = artifact(nets.small(recipe=Recipe(epochs=0)))
    with Trainer.open(without) as trainer, pytest.raises(InvalidInput, match="the recipe suggests none"):
        trainer.fit(X, Y)


def test_lengths_are_totals_of_the_trainer() -> None:
    with Trainer.open(ARTIFACT) as trainer:
        assert trainer.fit(X, Y, steps=10).steps == 10
        assert trainer.progress == Progress(step=10, epoch=1, position=24)
        assert trainer.fit(X, Y, epochs=2).steps == 4
        assert trainer.fit(X, Y, epochs=2).steps == 0
        with pytest.raises(InvalidInput, match="both given"):
            trainer.fit(X, Y, epochs=2, steps=3)


def test_on_step_cancels_at_a_step_boundary() -> None:
    seen: list[Progress] = []

    def on_step(progress: Progress) -> bool:
        seen.append(progress)
        return progress.step < 4

    with Trainer.open(ARTIFACT) as trainer:
        report = trainer.fit(X, Y, on_step=on_step)
        assert trainer.progress.step == 4
    assert report.cancelled
    assert [progress.step for progress in seen] == [1, 2, 3, 4]
    assert [progress.loss for progress in seen] == report.losses.tolist()


def test_samples_may_be_bytes_or_floats_shaped_or_flat() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (9, 3, 2, 2)).astype(np.uint8)
    wide = np.zeros((9, 3, 2, 4), np.uint8)
    wide[..., ::2] = pixels
    same: list[Array] = [pixels, pixels.astype(np.float32), pixels.astype(np.float64), pixels.astype(np.float16)]
    same += [pixels.reshape(9, 12), wide[..., ::2], np.asfortranarray(pixels), pixels.reshape(9, 3, 1, 2, 2)]
    with Trainer.open(ARTIFACT) as trainer:
        predictions = [trainer.predict(x).tobytes() for x in same]
        assert len(set(predictions)) == 1
        assert trainer.predict(pixels).shape == (9, 4)
        np.testing.assert_allclose(trainer.predict(pixels).sum(axis=1), 1.0, rtol=1e-6)


def test_predict_and_evaluate_equal_the_reference() -> None:
    scores = reference.forward(NET, X)[-1]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = exponentials / exponentials.sum(axis=1, keepdims=True)
    with Trainer.open(ARTIFACT, batch=7) as trainer:
        np.testing.assert_allclose(trainer.predict(X), wanted, rtol=1e-5, atol=1e-7)
        evaluation = trainer.evaluate(X, Y)
    assert evaluation.correct == int((scores.argmax(axis=1) == Y).sum())
    assert evaluation.loss == pytest.approx(-np.log(wanted[np.arange(50), Y]).mean(), rel=1e-5)


BAD_SAMPLES: dict[str, tuple[Any, Any, str]] = {
    "wrong shape": (np.zeros((5, 11), np.float32), Y[:5], r"shape \(5, 11\) but the network takes \(n, 3, 2, 2\)"),
    "same size, other axes": (np.zeros((5, 2, 3, 2), np.float32), Y[:5], "shape"),
    "empty": (np.zeros((0, 12), np.float32), Y[:0], "empty"),
    "a single number": (np.float32(1), Y[:1], "shape"),
    "whole numbers": (np.zeros((5, 12), np.int64), Y[:5], "dtype int64"),
    "text": (np.full((5, 12), "a"), Y[:5], "dtype"),
    "not a number": (np.full((5, 12), np.nan, np.float32), Y[:5], "(?i)nan|finite"),
    "infinite": (np.full((5, 12), np.inf, np.float32), Y[:5], "(?i)inf|finite"),
    "too large for float32": (np.full((5, 12), 1e300), Y[:5], "(?i)inf|finite"),
    "label too large": (X[:5], np.array([0, 1, 4, 0, 0]), r"y\[2\] is 4, but the labels of this network are in 0..3"),
    "label negative": (X[:5], np.array([0, -1, 2, 0, 0]), r"y\[1\] is -1"),
    "label beyond 32 bits": (X[:5], np.array([0, 0, 0, 0, 2**32]), r"y\[4\] is 4294967296"),
    "labels missing": (X[:5], Y[:4], r"y has shape \(4,\) but there are 5 samples"),
    "labels as a column": (X[:5], Y[:5, None], "shape"),
    "labels as floats": (X[:5], Y[:5].astype(float), "astype"),
}


@pytest.mark.parametrize("verb", ["train_step", "fit", "evaluate", "compute_gradients"])
@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_bad_samples_are_named_and_change_nothing(name: str, verb: str) -> None:
    x, y, message = BAD_SAMPLES[name]
    with Trainer.open(ARTIFACT) as trainer:
        before = trainer.values
        with pytest.raises(InvalidInput, match=message):
            getattr(trainer, verb)(x, y)
        assert trainer.values.tobytes() == before.tobytes()
        assert trainer.progress.step == 0


@pytest.mark.parametrize("name", [name for name in BAD_SAMPLES if "label" not in name])
def test_predict_refuses_the_same_samples(name: str) -> None:
    x, _, message = BAD_SAMPLES[name]
    with Trainer.open(ARTIFACT) as trainer, pytest.raises(InvalidInput, match=message):
        trainer.predict(x)


@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
def test_a_bad_sample_is_named_by_its_place_among_all(verb: str) -> None:
    x = X.copy()
    x[37, 1, 0, 1] = np.nan
    with Trainer.open(ARTIFACT) as trainer, pytest.raises(InvalidInput, match=r"x\[37\] holds NaN"):
        getattr(trainer, verb)(*((x,) if verb == "predict" else (x, Y)))


def test_a_step_takes_at_most_a_batch() -> None:
    with Trainer.open(ARTIFACT, batch=8) as trainer, pytest.raises(InvalidInput, match="9"):
        trainer.train_step(X[:9], Y[:9])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch", 0),
        ("batch", -1),
        ("batch", 65537),
        ("batch", 2.5),
        ("batch", "8"),
        ("learning_rate", -0.1),
        ("learning_rate", 1e300),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1.0),
        ("optimizer", "rmsprop"),
        ("kernels", "gpu"),
        ("start", "trained"),
        ("seed", -1),
        ("start", "middle"),
        ("budget_bytes", -1),
        ("seed", 2**64),
        ("learning_rate", "fast"),
    ],
)
def test_bad_options_are_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=option if value != "trained" else "trained"):
        Trainer.open(ARTIFACT, **{option: value})


@pytest.mark.parametrize(("option", "value"), [("beta1", 1.0), ("beta2", -0.5), ("epsilon", 0.0)])
def test_bad_options_of_adam_are_named(option: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=option):
        Trainer.open(ARTIFACT, optimizer="adam", **{option: value})  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_leaves_the_weights() -> None:
    with Trainer.open(ARTIFACT) as trainer:
        before = trainer.save()
        for size in (1.5e38, 3e38):
            with pytest.raises(NonFiniteLoss):
                trainer.train_step(np.full((4, 12), size, np.float32), Y[:4])
        assert trainer.save() == before


@pytest.mark.parametrize("batch", [1, 3, 8, 32, 100])
@pytest.mark.parametrize("recipe", [Recipe(SGD, momentum=0.0), Recipe(SGD, momentum=0.9), Recipe(ADAM)])
def test_the_arena_is_exact(recipe: Recipe, batch: int) -> None:
    """One byte less is refused by tkt_open itself, and by the budget; the stated size trains."""
    content = artifact(nets.small(recipe=recipe))
    options = make_options(content, batch=batch, micro_batch=batch)
    needed = core.arena_bytes(content, options)
    memory, _ = memory_plan(content, options)
    assert sum(size for part, size in memory.items() if part != "total") == memory["total"] == needed
    with pytest.raises(BudgetExceeded, match=str(needed)):
        core.CoreTrainer(content, options, arena_bytes=needed - 1)
    with pytest.raises(BudgetExceeded, match=rf"(?s)(?=.*{needed})(?=.*{needed - 1})"):
        Trainer.open(content, batch=batch, micro_batch=batch, budget_bytes=needed - 1)
    with Trainer.open(content, batch=batch, budget_bytes=needed) as trainer:
        assert trainer.arena_bytes == trainer.memory["total"] == needed
        trainer.fit(X, Y, epochs=1)


def test_state_is_counted_by_live_weights() -> None:
    facts = {name: inspect(ARTIFACT, optimizer="sgd", momentum=m)["memory"] for name, m in (("no", 0.0), ("yes", 0.9))}
    floats = 4 * NET.stored.size
    assert facts["no"]["optimizer"] == 0
    assert floats <= facts["yes"]["optimizer"] < floats + 64 * (len(NET.params) + 1)
    assert (
        floats <= inspect(ARTIFACT, optimizer="adam")["memory"]["optimizer"] / 2 < floats + 64 * (len(NET.params) + 1)
    )


def test_reset_goes_back_to_the_start() -> None:
    with Trainer.open(ARTIFACT, seed=3) as trainer:
        fresh = trainer.save()
        first = trainer.fit(X, Y, epochs=2).losses
        trainer.reset()
        assert trainer.save() == fresh
        assert trainer.fit(X, Y, epochs=2).losses.tobytes() == first.tobytes()


def test_export_carries_the_values_and_keeps_the_ticket() -> None:
    with Trainer.open(ARTIFACT) as trainer:
        trainer.fit(X, Y, epochs=2)
        values, exported = trainer.values, trainer.export()
        predictions, hash_before = trainer.predict(X), trainer.info.ticket_hash
    with Trainer.open(exported, start="trained") as trained, Trainer.open(exported) as anew:
        assert trained.info.has_trained
        assert trained.info.ticket_hash == hash_before
        assert trained.values.tobytes() == values.tobytes()
        assert trained.predict(X).tobytes() == predictions.tobytes()
        assert anew.values.tobytes() == NET.stored.tobytes()
        assert trained.export() == exported
        trained.fit(X, Y, epochs=1)
        trained.reset()
        assert trained.values.tobytes() == values.tobytes()


def test_a_closed_trainer_says_so() -> None:
    trainer = Trainer.open(ARTIFACT)
    trainer.close()
    trainer.close()
    calls = [lambda: trainer.fit(X, Y), lambda: trainer.predict(X), lambda: trainer.values, lambda: trainer.progress]
    calls += [trainer.save, trainer.export, trainer.reset, lambda: trainer.restore("none", missing_ok=True)]
    for call in calls:
        with pytest.raises(InvalidInput, match="closed"):
            call()  # type: ignore[no-untyped-call]


def test_two_threads_cannot_be_in_one_trainer_and_close_waits() -> None:
    content = artifact(nets.lenet(0.05))
    trainer = core.CoreTrainer(content, make_options(content))
    samples, labels = np.zeros((60_000, 784), np.float32), np.zeros(60_000, np.int32)
    results: list[tuple[float, int]] = []
    thread = threading.Thread(target=lambda: results.append(trainer.evaluate(samples, labels)))
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            trainer.progress()
        except InvalidInput as error:
            refused = "another thread" in str(error)
    trainer.close()
    thread.join()
    assert refused
    assert len(results) == 1


def test_the_artifact_and_the_arena_outlive_their_python_names() -> None:
    with Trainer.open(bytes(bytearray(ARTIFACT))) as trainer:
        junk = [bytes(len(ARTIFACT)) for _ in range(100)]
        trainer.fit(X, Y, epochs=1)
        assert trainer.export()[:8] == ARTIFACT[:8]
        del junk


def test_the_binding_takes_float32_rows_only() -> None:
    trainer = core.CoreTrainer(ARTIFACT, make_options(ARTIFACT))
    for x in (X.reshape(50, 12).astype(np.float64), X, np.asfortranarray(X.reshape(50, 12)), X.reshape(50, 12)[:, ::2]):
        with pytest.raises(TypeError):
            trainer.predict(x)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="11 elements each but the network takes 12"):
        trainer.predict(np.zeros((2, 11), np.float32))
    with pytest.raises(InvalidInput, match="2 samples but 3 labels"):
        trainer.evaluate(np.zeros((2, 12), np.float32), np.zeros(3, np.int32))


def test_learning_rates_can_be_set_step_by_step() -> None:
    rows = np.arange(3 * 8).reshape(3, 8)
    rates = np.array([0.1, 0.0, 0.02], np.float32)
    with Trainer.open(ARTIFACT) as trainer:
        together = trainer.train_steps(X, Y, rows, rates)
        values = trainer.values
        trainer.reset()
        one_by_one = []
        for row, rate in zip(rows, rates, strict=True):
            before = trainer.values
            trainer.set_learning_rate(float(rate))
            one_by_one.append(trainer.train_step(X[row], Y[row]))
            assert (trainer.values.tobytes() == before.tobytes()) == (rate == 0)
        assert together.tolist() == one_by_one
        assert trainer.values.tobytes() == values.tobytes()


@pytest.mark.parametrize("rates", [np.full(2, 0.1), np.full(4, 0.1), np.array([0.1, np.nan, 0.1]), np.full(3, -1.0)])
def test_learning_rates_that_are_none_are_refused(rates: Array) -> None:
    with Trainer.open(ARTIFACT) as trainer, pytest.raises(InvalidInput, match="learning_rate"):
        trainer.train_steps(X, Y, np.zeros((3, 8), int), rates)


def test_a_fault_of_the_trainer_is_not_laid_on_the_samples() -> None:
    net = Net(((1,), (2,)), (Node(LINEAR, (0,), (0,)),), (Param(np.ones((2, 1), np.float32)),))
    trainer = Trainer.open(artifact(net))
    trainer.close()
    with pytest.raises(InvalidInput, match="closed"):
        trainer.predict(np.array([1, 2], np.float32))  # samples of one element may come so
