"""A ticket trained by ONNX Runtime against the same one trained by the core and by float64: gradients, losses, checkpoints, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from device_runtime import (
    CheckpointWarning,
    CorruptArtifact,
    CorruptCheckpoint,
    InvalidInput,
    NonFiniteLoss,
    Trainer,
)
from device_runtime import checkpoint as files
from device_runtime.__main__ import main
from device_runtime.folder import Folder
from export import reference as interpret
from export.__main__ import main as export
from export.atomic import write_directory
from export.gate import without_dropout
from export.network import Network
from export.ticket import Floats, Ticket
from export.to_native import to_native_bytes
from export.to_ort import to_ort
from tests.device_runtime.runtime_cases import CASES, MLP, by_parameter, data_of, dense, every, then, ticket_of, worst
from tests.device_runtime.test_backends import array_as, remade
from tests.export.tickets import Builder, networks

pytest.importorskip("onnxruntime.training.api", reason="needs the `ort` extra")

from device_runtime.backends.onnxruntime import CHECKPOINT

GRADIENT_TOLERANCE = 1e-5  # of the network's largest gradient; the worst measured is 2.2e-6
LOSS_TOLERANCE = 1e-5  # relative, over 50 steps; the worst measured is 1.1e-6


def folder_of(ticket: Ticket, tmp_path: Path) -> Path:
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}.ort"
    write_directory(folder, to_ort(ticket))
    return folder


def gradients_of(ticket: Ticket, trainer: Trainer, *, native: bool) -> dict[str, Floats]:
    return by_parameter(ticket, trainer.gradients, native=native)


@pytest.mark.parametrize("name", [*CASES, "every operator"])
def test_gradients_and_outputs_of_each_operator_are_those_of_the_core(name: str, tmp_path: Path) -> None:
    ticket = every() if name == "every operator" else ticket_of(CASES[name])
    x, y = data_of(ticket.network, 6)
    with (
        Trainer.open(folder_of(ticket, tmp_path), batch=6) as ort,
        Trainer.open(to_native_bytes(ticket), batch=6, store_gradients=True) as native,
    ):
        for count in (6, 3):  # a smaller batch, and gradients that do not add up
            assert ort.compute_gradients(x[:count], y[:count]) == pytest.approx(
                native.compute_gradients(x[:count], y[:count]), rel=1e-6
            )
            error = worst(gradients_of(ticket, ort, native=False), gradients_of(ticket, native, native=True))
            assert error < GRADIENT_TOLERANCE
        assert ort.predict(x) == pytest.approx(native.predict(x), rel=1e-5, abs=1e-6)
        told, expected = ort.evaluate(x, y), native.evaluate(x, y)
        assert told.loss == pytest.approx(expected.loss, rel=1e-5)
        assert told.correct == expected.correct


@settings(deadline=None, max_examples=25)
@given(networks(), st.integers(0, 2**32 - 1))
def test_gradients_of_any_network_are_those_of_the_core(network: Network, seed: int) -> None:
    ticket = without_dropout(ticket_of(network, seed=seed))
    x, y = data_of(network, 4)
    with (
        tempfile.TemporaryDirectory() as folder,
        Trainer.open(folder_of(ticket, Path(folder)), batch=4) as ort,
        Trainer.open(to_native_bytes(ticket), batch=4, store_gradients=True) as native,
    ):
        assert ort.compute_gradients(x, y) == pytest.approx(native.compute_gradients(x, y), rel=1e-5)
        if np.abs(native.gradients).max() > 1e-4:  # else all of it may be rounding
            error = worst(gradients_of(ticket, ort, native=False), gradients_of(ticket, native, native=True))
            assert error < 10 * GRADIENT_TOLERANCE  # norms of nearly equal values among them


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_gradients_are_right_where_scores_are_zero(loss: str, tmp_path: Path) -> None:
    """As they are at the first step of a network whose last layer starts at 0: log(1 + exp(-|z|)) has its kink there."""
    ticket = ticket_of(then(dense(Builder((5,)), 8), "tanh", loss=loss))
    ticket = dataclasses.replace(ticket, init={name: np.zeros_like(array) for name, array in ticket.init.items()})
    x, y = data_of(ticket.network, 6)
    with (
        Trainer.open(folder_of(ticket, tmp_path)) as ort,
        Trainer.open(to_native_bytes(ticket), store_gradients=True) as native,
    ):
        ort.compute_gradients(x, y)
        native.compute_gradients(x, y)
        assert np.abs(native.gradients).max() > 0.01
        assert worst(gradients_of(ticket, ort, native=False), gradients_of(ticket, native, native=True)) < 1e-6


def loss_in_float64(ticket: Ticket, values: Mapping[str, Any], x: Floats, y: Any) -> torch.Tensor:
    document = json.loads(json.dumps(ticket.network.to_json()))
    for node in document["nodes"]:
        node["attrs"].pop("probability", None)
    recipe, normal = ticket.card["recipe"], ticket.card["input"]
    samples = torch.from_numpy((x.astype(np.float64) - normal["mean"][0]) * normal["inverse_std"][0])
    started = {name: value.clone() for name, value in values.items()}  # statistics move
    scores = interpret.run(document, started, samples, training=True)
    weights = torch.tensor(recipe["class_weights"], dtype=torch.float64) if "class_weights" in recipe else None
    return F.cross_entropy(scores, torch.from_numpy(y), weights, label_smoothing=recipe.get("label_smoothing", 0.0))


@pytest.mark.parametrize("name", ["linear", "max_pool", "batch_norm of images", "every operator"])
def test_gradients_are_those_of_finite_differences(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret, "OPERATORS", {**interpret.OPERATORS, "dropout": lambda x, p, a, t: x[0]})
    ticket = every() if name == "every operator" else ticket_of(CASES[name])
    x, y = data_of(ticket.network, 5)
    values = {n: torch.from_numpy(a.astype(np.float64)) for n, a in ticket.init.items()}
    with Trainer.open(folder_of(ticket, tmp_path), batch=5) as ort:
        loss = ort.compute_gradients(x, y)
        gradients = gradients_of(ticket, ort, native=False)
    assert loss == pytest.approx(float(loss_in_float64(ticket, values, x, y)), rel=1e-6)
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    random, step = np.random.default_rng(2), 1e-6
    for parameter, gradient in gradients.items():
        places = np.flatnonzero(ticket.masks.get(parameter, np.ones(ticket.init[parameter].shape, np.bool_)))
        for at in random.choice(len(places), min(2, len(places)), replace=False):
            losses = []
            for sign in (1, -1):
                moved = values[parameter].clone()
                moved.view(-1)[places[at]] += sign * step
                losses.append(float(loss_in_float64(ticket, {**values, parameter: moved}, x, y)))
            difference = (losses[0] - losses[1]) / (2 * step)
            assert gradient[at] == pytest.approx(difference, abs=1e-5 * largest), (parameter, at)


SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05}
MOMENTUM: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9}
ADAM: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.003}
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": SGD,
    "sgd with decay": {**SGD, "weight_decay": 0.05},
    "momentum": MOMENTUM,
    "momentum with decay": {**MOMENTUM, "weight_decay": 0.05},
    "adam": ADAM,
    "adam with decay": {**ADAM, "weight_decay": 0.1},
    "adamw": {**ADAM, "optimizer": "adamw", "weight_decay": 0.1},
    "adamw with betas": {**ADAM, "optimizer": "adamw", "weight_decay": 0.1, "epsilon": 0.1, "beta1": 0.5, "beta2": 0.7},
    "clipping": {**SGD, "clip_norm": 0.3},
    "clipping and decay": {**MOMENTUM, "clip_norm": 0.3, "weight_decay": 0.1},
    "clipping in adamw": {**ADAM, "optimizer": "adamw", "weight_decay": 0.1, "epsilon": 0.1, "clip_norm": 0.3},
    "smoothing": {**SGD, "label_smoothing": 0.2},
    "class weights": {**SGD, "class_weights": [1.0, 2.0, 0.5, 0.0]},
    "both, and a schedule": {
        **SGD,
        "class_weights": [1.0, 2.0, 0.5, 0.1],
        "label_smoothing": 0.3,
        "schedule": "cosine",
        "schedule_steps": 40,
        "warmup_steps": 5,
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["linear", "batch_norm of images"])
def test_fifty_steps_of_fit_give_the_losses_of_the_core(name: str, recipe: str, tmp_path: Path) -> None:
    ticket = ticket_of(CASES[name], **RECIPES[recipe])
    same_losses(ticket, tmp_path, batch=8, count=21)  # the last batch of an epoch has 5 samples


def same_losses(ticket: Ticket, tmp_path: Path, *, batch: int, count: int) -> None:
    """Evaluation reads the statistics. A bias before a batch norm has a gradient of rounding errors alone, which Adam makes as
    large as any: it changes no loss in training, but evaluation until the statistics have followed."""
    x, y = data_of(ticket.network, count)
    with (
        Trainer.open(folder_of(ticket, tmp_path), batch=batch, seed=5) as ort,
        Trainer.open(to_native_bytes(ticket), batch=batch, seed=5) as native,
    ):
        got, expected = ort.fit(x, y, steps=50), native.fit(x, y, steps=50)
        assert got.losses == pytest.approx(expected.losses, rel=LOSS_TOLERANCE)
        assert (got.progress.step, got.progress.epoch) == (expected.progress.step, expected.progress.epoch)
        if ticket.card["recipe"]["optimizer"] == "sgd" or ticket.network is MLP:
            assert ort.evaluate(x, y).loss == pytest.approx(native.evaluate(x, y).loss, rel=1e-5)


def test_every_operator_together_trains_as_in_the_core(tmp_path: Path) -> None:
    same_losses(every(), tmp_path, batch=7, count=23)


def test_a_batch_of_one_takes_the_running_statistics_and_leaves_them(tmp_path: Path) -> None:
    ticket = ticket_of(CASES["batch_norm of vectors"], **SGD)
    same_losses(ticket, tmp_path, batch=8, count=17)
    x, y = data_of(ticket.network, 1)
    with Trainer.open(folder_of(ticket, tmp_path)) as ort:
        ort.train_step(x, y)
        values = by_parameter(ticket, ort.values, native=False, state=True)
    for name in (p.name for p in ticket.network.parameters if p.state):
        assert values[name].tobytes() == ticket.init[name].tobytes()


def test_a_gradient_is_without_decay_and_clipping(tmp_path: Path) -> None:
    x, y = data_of(MLP, 4)
    gradients = []
    for recipe in (SGD, {**SGD, "weight_decay": 0.5, "clip_norm": 0.1}):
        ticket = ticket_of(MLP, **recipe)
        with Trainer.open(folder_of(ticket, tmp_path), batch=4) as ort:
            ort.compute_gradients(x, y)
            gradients.append(gradients_of(ticket, ort, native=False))
    assert worst(*gradients) < 1e-6


@pytest.mark.parametrize("recipe", ["sgd", "momentum", "adam", "clipping", "clipping in adamw"])
def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(recipe: str, tmp_path: Path) -> None:
    ticket = ticket_of(CASES["batch_norm of vectors"], **RECIPES[recipe])
    folder = folder_of(ticket, tmp_path)
    x, y = data_of(ticket.network, 21)
    with Trainer.open(folder, batch=8, seed=1) as whole:
        losses = whole.fit(x, y, steps=30).losses
        for cut in (0, 1, 13):
            with Trainer.open(folder, batch=8) as first, Trainer.open(folder, batch=8) as second:
                begun = first.fit(x, y, steps=0).losses
                first.restore(_checkpoint_at(folder, cut, x, y))
                second.restore(first.save())
                ended = second.fit(x, y, steps=30)
                assert np.concatenate([begun, losses[:cut], ended.losses]).tobytes() == losses.tobytes()
                assert second.values.tobytes() == whole.values.tobytes()
                assert second.save() == whole.save()


def _checkpoint_at(folder: Path, step: int, x: Floats, y: Any) -> bytes:
    with Trainer.open(folder, batch=8, seed=1) as trainer:
        if step:
            trainer.fit(x, y, steps=step)
        return trainer.save()


@pytest.mark.parametrize("recipe", ["sgd", "momentum", "adam"])
def test_reset_goes_back_to_the_start(recipe: str, tmp_path: Path) -> None:
    ticket = ticket_of(CASES["batch_norm of vectors"], **RECIPES[recipe])
    x, y = data_of(ticket.network, 21)
    with Trainer.open(folder_of(ticket, tmp_path), batch=8) as ort:
        start, losses = ort.values.tobytes(), ort.fit(x, y, steps=20).losses
        assert ort.values.tobytes() != start
        ort.reset()
        assert ort.values.tobytes() == start
        assert ort.fit(x, y, steps=20).losses.tobytes() == losses.tobytes()


def test_values_are_the_live_weights_in_the_order_of_the_ticket(tmp_path: Path) -> None:
    ticket = every()
    with Trainer.open(folder_of(ticket, tmp_path)) as ort:
        kept = [
            ticket.init[p.name][ticket.masks[p.name]] if p.name in ticket.masks else ticket.init[p.name].ravel()
            for p in ticket.network.parameters
        ]
        assert ort.values.tobytes() == np.concatenate(kept).tobytes()
        assert not ort.gradients.any()
        assert ort.info.value_count == ort.values.size
        assert ort.info.nnz == ticket.live
        assert ort.info.artifact_bytes == sum(ort.info.sections.values())


def test_a_step_whose_loss_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    ticket = ticket_of(CASES["batch_norm of vectors"], **{**SGD, "learning_rate": 1e38})
    x, y = data_of(ticket.network, 8)
    with Trainer.open(folder_of(ticket, tmp_path), batch=8) as ort:
        ort.train_step(x, y)
        before = ort.values.tobytes()
        with pytest.raises(NonFiniteLoss, match="of step 1"):
            ort.train_step(x, y)
        assert ort.values.tobytes() == before


FILES = ("checkpoint", "description.json", "eval_model.onnx", "optimizer_model.onnx", "training_model.onnx")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_the_folder_is_refused_wherever_the_bit_is(name: str, tmp_path: Path) -> None:
    folder = folder_of(ticket_of(MLP), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    content = (folder / name).read_bytes()
    for at in range(0, len(content), 1 + len(content) // 150):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        (folder / name).write_bytes(damaged)
        with pytest.raises(CorruptArtifact, match=f"{name}.*damaged"):
            Trainer.open(folder)
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(CorruptArtifact, match="damaged"):
        Trainer.open(folder)
    (folder / name).unlink()
    with pytest.raises(CorruptArtifact, match=name):
        Trainer.open(folder)
    (folder / name).write_bytes(content)
    Trainer.open(folder).close()


def test_what_was_opened_is_what_is_loaded_again(tmp_path: Path) -> None:
    """Whatever becomes of the folder: it was checked, its signature too, when it was opened."""
    folder = folder_of(ticket_of(MLP, **ADAM), tmp_path)
    x, y = data_of(MLP, 8)
    with Trainer.open(folder) as ort:
        start = ort.values.tobytes()
        losses = ort.fit(x, y, steps=2).losses
        content = ort.save()
        ort.train_step(x, y)
        shutil.rmtree(folder)
        ort.restore(content)
        assert ort.save() == content
        ort.reset()
        assert ort.values.tobytes() == start
        assert ort.fit(x, y, steps=2).losses.tobytes() == losses.tobytes()


def test_a_folder_that_was_read_to_be_checked_is_read_no_second_time(tmp_path: Path) -> None:
    folder = folder_of(ticket_of(MLP, **ADAM), tmp_path)
    other = folder_of(ticket_of(MLP, seed=9, **ADAM), tmp_path)
    read = Folder.read(folder)
    with Trainer.open(folder) as ort:
        wanted = ort.values.tobytes()
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    with Trainer.open(read) as ort:
        assert ort.values.tobytes() == wanted


def test_a_gradient_that_overflows_changes_nothing(tmp_path: Path) -> None:
    """The loss of such samples is finite still; a value that is not would be saved over a good one."""
    for recipe, size in ((SGD, 3e37), ({**SGD, "clip_norm": 1.0}, 3e37), (MOMENTUM, 3e37), (ADAM, 3e18)):
        ticket = ticket_of(dense(Builder((5,)), 3).network("mse"), **recipe)
        ticket = dataclasses.replace(ticket, init={name: np.zeros_like(array) for name, array in ticket.init.items()})
        x, y = np.zeros((4, 5), np.float32), np.full((4, 3), 900, np.float32)
        x[:, 0] = size
        with Trainer.open(folder_of(ticket, tmp_path), batch=4) as ort:
            assert np.isfinite(ort.evaluate(x, y).loss)
            before = ort.values.tobytes()
            with pytest.raises(NonFiniteLoss, match="a gradient of step 0 is not finite"):
                ort.train_step(x, y)
            assert (ort.values.tobytes(), ort.progress.step) == (before, 0)
            ort.save()


def test_damaged_moments_are_refused_and_change_nothing(tmp_path: Path) -> None:
    """So that the generation before them is taken."""
    ticket = ticket_of(MLP, **ADAM)
    x, y = data_of(MLP, 8)
    with Trainer.open(folder_of(ticket, tmp_path)) as ort:
        ort.train_step(x, y)
        older = ort.save(tmp_path / "c")
        ort.train_step(x, y)
        newest = ort.save()
        key = f"optimizer/{CHECKPOINT}"
        for change in (lambda held: held[:-40], lambda held: held[:0], lambda held: np.zeros(8)):
            bad = remade(newest, array_as(key, change))
            with pytest.raises(CorruptCheckpoint, match="optimizer state is damaged"):
                ort.restore(bad)
            assert ort.save() == newest
        files.save_generation(tmp_path / "c", bad)
        with pytest.warns(CheckpointWarning):
            ort.restore(tmp_path / "c")
        assert ort.save() == older
        ort.train_step(x, y)


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=r"has no description\.json; give a folder that `python -m export"):
        Trainer.open(tmp_path)


def test_a_checkpoint_of_another_ticket_is_refused(tmp_path: Path) -> None:
    one, other = (folder_of(ticket_of(MLP, **recipe), tmp_path) for recipe in (SGD, ADAM))
    with Trainer.open(one) as a, Trainer.open(other) as b, pytest.raises(CorruptCheckpoint, match="is of ticket_hash"):
        b.restore(a.save())


OPTIONS: dict[str, Any] = {
    "optimizer": "adamw",
    "momentum": 0.5,
    "weight_decay": 0.1,
    "beta1": 0.5,
    "epsilon": 1e-3,
    "nesterov": True,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "micro_batch": 2,
    "recompute": True,
    "half_activations": True,
    "store_gradients": True,
    "budget_bytes": 1000,
    "kernels": "scalar",
    "start": "trained",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_it_cannot_follow_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{name} {OPTIONS[name]!r} by onnxruntime: it cannot follow that"):
        Trainer.open(folder_of(ticket_of(MLP), tmp_path), **{name: OPTIONS[name]})


@pytest.mark.parametrize(
    "given",
    [
        {"batch": 0},
        {"batch": 65537},
        {"threads": 0},
        {"seed": -1},
        {"learning_rate": -0.1},
        {"learning_rate": float("nan")},
        {"schedule": "spiral", "schedule_steps": 3},
        {"schedule": "cosine"},
        {"schedule_steps": 3},
        {"schedule": "linear", "schedule_steps": 3, "schedule_factor": 1.5},
    ],
)
def test_an_option_out_of_range_is_refused_by_name(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=next(iter(given))):
        Trainer.open(folder_of(ticket_of(MLP), tmp_path), **given)


def test_options_of_a_step_are_followed(tmp_path: Path) -> None:
    ticket = ticket_of(MLP, **SGD)
    x, y = data_of(MLP, 21)
    given: dict[str, Any] = {"batch": 5, "learning_rate": 0.2, "schedule": "linear", "schedule_steps": 9, "seed": 3}
    with (
        Trainer.open(folder_of(ticket, tmp_path), threads=2, schedule_factor=0.1, **given) as ort,
        Trainer.open(to_native_bytes(ticket), schedule_factor=0.1, **given) as native,
    ):
        assert ort.fit(x, y, steps=15).losses == pytest.approx(native.fit(x, y, steps=15).losses, rel=LOSS_TOLERANCE)
        for trainer in (ort, native):
            trainer.set_learning_rate(0.01)
        assert ort.fit(x, y, steps=20).losses == pytest.approx(native.fit(x, y, steps=20).losses, rel=LOSS_TOLERANCE)


def test_the_commands_export_and_train_it_without_a_word_of_the_runtime(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ticket = ticket_of(CASES["batch_norm of images"], **ADAM)
    ticket.save("t")
    x, y = data_of(ticket.network, 30)
    np.savez("d.npz", allow_pickle=False, x=x, y=y, user=np.zeros(30, np.int64))

    def run(command: Callable[[list[str]], int], *arguments: str) -> Any:
        capfd.readouterr()
        assert command([*arguments, "--json", "--quiet"]) == 0
        out, err = capfd.readouterr()
        assert err == ""  # by file descriptor: ONNX Runtime does not ask Python
        return json.loads(out)

    for _ in range(2):  # the same again is left as it is
        (artifact,) = run(export, "t", "--formats", "ort")["artifacts"]
    assert artifact["bytes"] == sum(path.stat().st_size for path in Path("t.ort").iterdir())
    data = ("t.ort", "--data", "npz:d.npz", "--checkpoint", "c")
    trained = run(main, "train", *data, "--epochs", "3")
    assert trained["last_loss"] < trained["first_loss"]
    assert run(main, "evaluate", *data)["loss"] == trained["train"]["loss"]
    assert len(run(main, "predict", *data)["predictions"]) == 30
    simulated = run(main, "simulate", *data[:3], "--epochs", "2", "--interruptions", "1")
    assert simulated["users"][0]["arena_bytes"] is simulated["summary"]["arena_bytes"] is None
    assert main(["simulate", *data[:3], "--epochs", "2"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[-2] == "-"


def test_the_commands_refuse_what_only_native_artifacts_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(ticket_of(MLP), tmp_path)
    x, y = data_of(MLP, 5)
    np.savez(tmp_path / "d.npz", allow_pickle=False, x=x, y=y)
    data = ["--data", f"npz:{tmp_path / 'd.npz'}"]
    for arguments, text in (
        (["inspect", str(folder)], "inspect takes a native artifact alone"),
        (["train", str(folder), *data, "--output", "f"], "output 'f': only native artifacts are written"),
    ):
        assert main(arguments) == 2
        assert text in capsys.readouterr().err


def test_a_folder_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket_of(MLP).save(tmp_path / "t")
    assert export([str(tmp_path / "t"), "--formats", "ort"]) == 0
    (tmp_path / "t.ort" / "checkpoint").write_bytes(b"what an app saved")
    capsys.readouterr()
    assert export([str(tmp_path / "t"), "--formats", "ort"]) == 2
    assert "t.ort' exists and holds something else; remove it or give --output-dir" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "t.ort")
    assert export([str(tmp_path / "t"), "--formats", "ort"]) == 0
