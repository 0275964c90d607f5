"""ExecuTorch behind Trainer: what it computes against the core and PyTorch, and what its own operators get wrong."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from device_runtime import (
    CorruptArtifact,
    CorruptCheckpoint,
    IncompatibleArtifact,
    InvalidInput,
    NonFiniteLoss,
    Trainer,
)
from device_runtime.backends.silence import silent
from device_runtime.trainer import Array, Floats
from export.compact import compact
from export.layout import whole_values
from export.lower import lower
from export.network import Network
from export.ticket import Ticket
from export.to_native import to_native_bytes
from tests.device_runtime.test_backends import array_as, remade
from tests.export.test_torch_modules import Eager, samples_of, targets_of
from tests.export.tickets import CARD, RECIPE, dead_unit_ticket, golden_ticket, small_ticket

pytest.importorskip("executorch", reason="executorch is not installed")
from export.to_executorch import MAGIC, to_executorch_bytes

BATCH = 7  # as the golden one's
SETTINGS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-3},
    "nesterov": {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9, "nesterov": True, "clip_norm": 0.5},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.05, "nesterov": False},
}


def pruned(module: nn.Module, input_shape: tuple[int, ...], loss: str = "cross_entropy", **recipe: Any) -> Ticket:
    torch.manual_seed(0)
    network = Network.from_json(lower(module, input_shape).to_json() | {"loss": loss})
    random, values = np.random.default_rng(0), {name: v.numpy() for name, v in module.state_dict().items()}
    masks = {name: random.random(network.parameter_shapes[name]) < 0.4 for name in network.prunable}
    init = {p.name: values[p.name] * masks.get(p.name, np.float32(1)) for p in network.parameters}
    return Ticket(network, init, masks, card=CARD | {"recipe": RECIPE | {"batch": BATCH, **recipe}})


def mlp(loss: str = "cross_entropy", **recipe: Any) -> Ticket:
    torch.manual_seed(1)
    return pruned(nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)), (12,), loss, **recipe)


@functools.cache
def ticket_of(name: str) -> Ticket:
    if name == "conv":  # what ExecuTorch's own operators get wrong
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4)]
        return pruned(nn.Sequential(*layers), (2, 6, 6))
    if name == "signal":
        torch.manual_seed(1)
        layers = [
            nn.Conv1d(3, 4, 3, 2),
            nn.BatchNorm1d(4),
            nn.Tanh(),
            nn.MaxPool1d(3, 2),
            nn.Flatten(),
            nn.Linear(12, 4),
        ]
        return pruned(nn.Sequential(*layers), (3, 16))
    if name == "smoothed":
        return mlp(label_smoothing=0.2, class_weights=[1.0, 0.5, 2.0, 0.25])
    return golden_ticket("every") if name == "every" else mlp(name)


# Of a gradient's norm, or a hundredth of the whole one's. In "every" a bias before a batch norm has no gradient but rounding,
# and as both trainers make their own steps, what that moves adds up.
TOLERANCE = {"every": 1e-3}
TICKETS = ("cross_entropy", "mse", "bce", "smoothed", "conv", "signal", "every")


@functools.cache
def artifact_of(name: str) -> bytes:
    return to_executorch_bytes(ticket_of(name))


def data(name: str, count: int) -> tuple[Floats, Array]:
    ticket = ticket_of(name)
    return samples_of(ticket, count).numpy(), targets_of(ticket.network, count).numpy()


def opened(name: str, **settings: Any) -> Trainer:
    return Trainer.open(artifact_of(name), **settings)


def by_name(ticket: Ticket, stored: Floats) -> dict[str, Floats]:
    """Gradients of the core by parameter, live weights row-major."""
    state = sum(p.size for p in ticket.network.parameters if p.state)
    whole = whole_values(ticket.network, ticket.masks, np.concatenate([stored, np.zeros(state, np.float32)]))
    return {p.name: live(ticket, p.name, whole[p.name]) for p in ticket.network.parameters if not p.state}


def live(ticket: Ticket, name: str, whole: Array) -> Array:
    return whole[ticket.masks[name]] if name in ticket.masks else whole.ravel()


def split(ticket: Ticket, flat: Floats) -> Iterator[tuple[str, Floats]]:
    start = 0
    for p in ticket.network.parameters:
        if not p.state:
            size = live(ticket, p.name, ticket.init[p.name]).size
            yield p.name, flat[start : start + size]
            start += size
    assert start == flat.size


@pytest.mark.parametrize("name", TICKETS)
def test_gradients_are_those_of_the_core_whatever_ran_before(name: str) -> None:
    """One program, batches of many sizes and steps between them."""
    ticket = ticket_of(name)
    plain: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.0, "nesterov": False}
    x, y = data(name, 40)
    largest = 0.0
    with (
        opened(name, **plain) as trainer,
        Trainer.open(to_native_bytes(ticket), store_gradients=True, **plain) as core,
    ):
        for start, count in enumerate([BATCH, 3, BATCH, 1, 5, BATCH]):
            rows = slice(6 * start, 6 * start + count)
            assert trainer.compute_gradients(x[rows], y[rows]) == pytest.approx(
                core.compute_gradients(x[rows], y[rows]), rel=1e-5
            )
            wanted = by_name(ticket, core.gradients)
            whole = float(np.linalg.norm(core.gradients))
            for parameter, gradient in split(ticket, trainer.gradients):
                scale = max(float(np.linalg.norm(wanted[parameter])), 1e-2 * whole)
                error = float(np.linalg.norm(gradient - wanted[parameter])) / scale
                largest = max(largest, error)
                assert error < TOLERANCE.get(name, 1e-5), (start, parameter)
            assert trainer.train_step(x[rows], y[rows]) == pytest.approx(core.train_step(x[rows], y[rows]), rel=1e-5)
    print(f"{name}: largest gradient error {largest:.1e}")


@pytest.mark.parametrize("count", [BATCH, 2])
@pytest.mark.parametrize("name", ["mse", "bce", "smoothed", "conv", "signal"])
def test_gradients_are_those_of_pytorch(name: str, count: int) -> None:
    ticket, (x, y) = ticket_of(name), data(name, count)
    eager = Eager(ticket)
    loss = eager.loss(torch.tensor(x), torch.tensor(y))
    wanted = {n: live(ticket, n, g.numpy()) for n, g in eager.gradients(loss).items()}
    with opened(name) as trainer:
        assert trainer.compute_gradients(x, y) == pytest.approx(loss.item(), rel=1e-5)
        whole = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
        for parameter, gradient in split(ticket, trainer.gradients):
            scale = max(float(np.linalg.norm(wanted[parameter])), 1e-2 * whole)
            assert np.linalg.norm(gradient - wanted[parameter]) < 1e-5 * scale, parameter


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["cross_entropy", "conv", "signal", "every"])
def test_losses_are_those_of_the_core(name: str, settings: str) -> None:
    """Over epochs of five whole batches and a partial one: order of samples, schedule, dropout and statistics too."""
    x, y = data(name, 5 * BATCH + 2)
    given = SETTINGS[settings] | {"seed": 11, "schedule": "cosine", "schedule_steps": 40, "schedule_factor": 0.1}
    with opened(name, **given) as trainer, Trainer.open(to_native_bytes(ticket_of(name)), **given) as core:
        found, wanted = trainer.fit(x, y, steps=50), core.fit(x, y, steps=50)
        np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-3)
        assert (found.epochs, found.progress.position) == (wanted.epochs, wanted.progress.position)
        told, known = trainer.evaluate(x, y), core.evaluate(x, y)
        assert told.loss == pytest.approx(known.loss, rel=1e-3)
        np.testing.assert_allclose(trainer.predict(x), core.predict(x), atol=1e-3)
        assert wanted.losses[-5:].mean() < wanted.losses[:5].mean()  # or nothing was compared


@pytest.mark.parametrize("settings", SETTINGS)
def test_going_on_gives_the_bits_of_a_run_that_was_never_interrupted(settings: str, tmp_path: Path) -> None:
    name = "every"  # dropout and running statistics
    x, y = data(name, 30)
    with opened(name, **SETTINGS[settings]) as whole, opened(name, **SETTINGS[settings]) as first:
        wanted = whole.fit(x, y, steps=12).losses
        begun = first.fit(x, y, steps=5, checkpoint=tmp_path / "c").losses
    with opened(name, **SETTINGS[settings]) as second:
        second.fit(x, y, steps=3)  # which must leave no trace
        second.restore(tmp_path / "c")
        assert np.concatenate([begun, second.fit(x, y, steps=12).losses]).tobytes() == wanted.tobytes()
        second.reset()
        assert second.values.tobytes() == opened(name).values.tobytes()
        assert second.fit(x, y, steps=12).losses.tobytes() == wanted.tobytes()


def test_what_is_opened_are_the_tickets_own_values_and_facts() -> None:
    for ticket in (ticket_of("every"), dead_unit_ticket()):
        source = compact(ticket)
        content = artifact_of("every") if ticket is ticket_of("every") else to_executorch_bytes(source)
        small = ticket if ticket is ticket_of("every") else source.ticket
        with Trainer.open(content) as trainer, Trainer.open(to_native_bytes(source)) as core:
            values = [live(small, p.name, small.init[p.name]) for p in small.network.parameters]
            assert trainer.values.tobytes() == np.concatenate(values).tobytes()
            assert trainer.info.ticket_hash == ticket.hash
            assert (trainer.info.nnz, trainer.info.density) == (core.info.nnz, core.info.density)
            assert trainer.info.artifact_bytes == len(content)


def test_trained_values_are_exported_where_asked_for() -> None:
    parts = ticket_of("cross_entropy")
    trained = {name: value * np.float32(2) for name, value in parts.init.items()}
    ticket = Ticket(parts.network, parts.init, parts.masks, trained, parts.card)
    with Trainer.open(to_executorch_bytes(ticket, "trained")) as trainer:
        assert trainer.values.tobytes() == np.concatenate([live(ticket, n, v) for n, v in trained.items()]).tobytes()
    with pytest.raises(ValueError, match="holds no trained values"):
        to_executorch_bytes(parts, "trained")


def test_damage_is_refused_before_executorch_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = artifact_of("cross_entropy")
    monkeypatch.setattr("device_runtime.backends.executorch.portable_lib._load_program_from_buffer", None)
    for at in [*range(4), *range(8, len(content), 131), *range(len(content) - 48, len(content))]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        with pytest.raises(CorruptArtifact, match="cut short or damaged"):
            Trainer.open(bytes(damaged))
    for length in [*range(8, 100), len(content) // 2, len(content) - 40, len(content) - 1]:
        with pytest.raises(CorruptArtifact):
            Trainer.open(content[:length])
    with pytest.raises(CorruptArtifact):
        Trainer.open(content + b"\0")


def test_a_program_that_executorch_does_not_know_is_refused() -> None:
    """Its checksum is right: of another version, not damaged."""
    program = b"\x20\0\0\0ET12" + bytes(64)
    with pytest.raises(IncompatibleArtifact, match=r"ExecuTorch cannot load it .*export the ticket again"):
        Trainer.open(program + MAGIC + hashlib.sha256(program).digest())


def test_the_program_is_one_that_any_executorch_reads() -> None:
    """With what comes after it; the description is a method."""
    with silent():  # a first import that warns, an error here, would fail every later one in this process too
        from executorch.extension.pybindings import portable_lib

    module = portable_lib._load_for_executorch_from_buffer(artifact_of("signal"))
    assert {"train", "predict", "description", "statistics"} <= set(module.method_names())
    (text,) = module.run_method("description", ())
    told = json.loads(text)
    assert told["ticket_hash"] == ticket_of("signal").hash
    assert told["program"] == {
        "batch": BATCH,
        "moving": ["1.running_mean", "1.running_var"],
        "dropouts": [],
        "entries": 0,
    }


def test_parameters_are_as_small_as_the_ticket() -> None:
    ticket = ticket_of("cross_entropy")
    with opened("cross_entropy") as trainer:
        assert trainer.values.size == trainer.gradients.size == ticket.live + 16 + 4


def test_equal_tickets_give_equal_bytes() -> None:
    assert to_executorch_bytes(ticket_of("cross_entropy")) == artifact_of("cross_entropy")


def test_threads_change_no_bit() -> None:
    x, y = data("conv", 20)
    losses = []
    for threads in (1, 2):
        with opened("conv", threads=threads) as trainer:
            losses.append(trainer.fit(x, y, steps=8).losses.tobytes())
    assert losses[0] == losses[1]


def test_samples_behind_the_end_of_a_batch_do_not_count() -> None:
    x, y = data("signal", 3)
    with opened("signal") as trainer:
        first = trainer.compute_gradients(x, y), trainer.gradients.tobytes()
        trainer.compute_gradients(*data("signal", BATCH))
        assert (trainer.compute_gradients(x, y), trainer.gradients.tobytes()) == first
        alone = np.concatenate([trainer.predict(x[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(alone, trainer.predict(x), atol=1e-6)


def test_options_are_checked() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch": 8}, "batch 8 of a program that was made for 7"),
        ({"optimizer": "lion"}, "optimizer 'lion' is not known"),
        ({"momentum": 1.0}, "momentum 1.0 must be at least 0 and below 1"),
        ({"epsilon": 0.0}, "epsilon 0.0 must be finite and above 0"),
        ({"nesterov": True, "momentum": 0.0, "optimizer": "sgd"}, "nesterov True"),
        ({"weight_decay": float("nan")}, "weight_decay nan"),
        ({"threads": 0}, "threads 0"),
        ({"label_smoothing": 0.1}, "label_smoothing 0.1 by executorch: it cannot follow that"),
        ({"budget_bytes": 10}, "budget_bytes 10 by executorch"),
    ]
    for given, message in cases:
        with pytest.raises(InvalidInput, match=message):
            opened("cross_entropy", **given)


def test_an_embedding_takes_whole_numbers_alone() -> None:
    x, y = data("every", 3)
    with opened("every") as trainer:
        x[1, 2] = 0.5
        with pytest.raises(
            InvalidInput, match=r"samples\[1\] has 0.5 at element 2, but an embedding takes whole numbers"
        ):
            trainer.compute_gradients(x, y)
        x[1, 2] = -1
        with pytest.raises(InvalidInput, match="whole numbers"):
            trainer.predict(x)


def test_a_step_that_diverges_changes_nothing() -> None:
    x, y = data("mse", BATCH)
    with opened("mse") as trainer:
        before = trainer.values.tobytes()
        with pytest.raises(NonFiniteLoss):
            trainer.train_step(x * np.float32(1e30), y)
        assert (trainer.values.tobytes(), trainer.progress.step) == (before, 0)


def test_a_checkpoint_of_other_moments_is_refused() -> None:
    x, y = data("cross_entropy", BATCH)
    plain: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}
    with opened("cross_entropy", **plain) as one, opened("cross_entropy", **plain | {"momentum": 0.9}) as other:
        one.train_step(x, y)
        before = other.values.tobytes()
        with pytest.raises(InvalidInput, match="is of moments 0, not 1"):
            other.restore(one.save())
        assert other.values.tobytes() == before


SPOILT: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "one value for all": (
        "values/0.weight",
        lambda w: np.array([np.inf], np.float32),
        "'0.weight' is float32 of shape",
    ),
    "a value that is not finite": ("values/2.bias", lambda b: b * np.float32("inf"), "'2.bias' is not finite"),
    "a moment that is not finite": (
        "optimizer/first/0.bias",
        lambda m: m + np.float32("nan"),
        "first/0.bias' is not finite",
    ),
    "a second moment below 0": ("optimizer/second/0.bias", lambda m: m - np.float32(1), "second/0.bias' cannot be"),
    "a power above 1": ("optimizer/powers", lambda powers: powers + 1, "powers' cannot be"),
    "one power": ("optimizer/powers", lambda powers: powers[:1], "powers' is float64 of shape"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_that_no_training_leaves_is_refused(name: str) -> None:
    key, change, message = SPOILT[name]
    x, y = data("cross_entropy", BATCH)
    with opened("cross_entropy", **SETTINGS["adamw"]) as trainer:
        trainer.train_step(x, y)
        content = trainer.save()
        with pytest.raises(CorruptCheckpoint, match=message):
            trainer.restore(remade(content, array_as(key, change)))
        assert trainer.save() == content


def test_a_second_moment_that_overflows_is_never_saved() -> None:
    x, y = data("mse", BATCH)
    with opened("mse", **SETTINGS["adamw"]) as trainer:
        trainer.train_step(x * np.float32(1e10), y)
        with pytest.raises(NonFiniteLoss, match="training has diverged"):
            trainer.save()


def test_a_closed_trainer_says_so() -> None:
    x, y = data("cross_entropy", BATCH)
    trainer = opened("cross_entropy")
    trainer.train_step(x, y)
    trainer.close()
    trainer.close()
    with pytest.raises(InvalidInput, match="closed"):
        trainer.train_step(x, y)
    assert np.isfinite(opened("cross_entropy").values).all()


def test_the_command_writes_what_a_trainer_opens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And neither of them lets that runtime print."""
    from export.__main__ import main

    ticket = small_ticket()
    ticket.save(tmp_path / "digits")
    assert main([str(tmp_path / "digits"), "--formats", "native,executorch", "--json"]) == 0
    report = {a["format"]: a for a in json.loads(capfd.readouterr().out)["artifacts"]}
    path = tmp_path / "digits.pte"
    assert (report["executorch"]["path"], report["executorch"]["bytes"]) == (str(path), path.stat().st_size)
    x, y = np.random.default_rng(0).random((20, 2, 2)).astype(np.float32), np.arange(20) % 2
    plain: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1}
    with Trainer.open(path, **plain) as trainer, Trainer.open(tmp_path / "digits.tkt", **plain) as core:
        np.testing.assert_allclose(trainer.fit(x, y, steps=5).losses, core.fit(x, y, steps=5).losses, rtol=1e-5)
    assert capfd.readouterr() == ("", "")
