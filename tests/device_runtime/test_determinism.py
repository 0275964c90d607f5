"""The same bits on every rerun, with every kernel, and wherever a run is taken up again."""

from __future__ import annotations

import numpy as np
import pytest

from device_runtime import InvalidInput, Trainer
from device_runtime.artifact import KERNELS
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import ADAM, SGD, Recipe, artifact, section

RECIPES = {
    "sgd": Recipe(SGD, 20, learning_rate=0.05, momentum=0.9, weight_decay=1e-3),
    "plain sgd": Recipe(SGD, 20, learning_rate=0.05, momentum=0.0),
    "adam": Recipe(ADAM, 20, learning_rate=1e-2),
}


MOMENT1, MOMENT2 = 3, 4  # sections of a checkpoint


def need(kernels: str) -> None:
    try:
        Trainer.open(artifact(nets.small()), kernels=kernels).close()
    except InvalidInput as error:
        pytest.skip(f"this machine has no {kernels}: {error}")


def train(recipe: Recipe, kernels: str, batch: int, seed: int = 5) -> tuple[bytes, bytes, bytes]:
    """Losses, values and predictions of three epochs, the last batch of each being smaller."""
    net = nets.mlp((31, 24, 19, 5), 0.2, recipe=recipe)
    x, y = nets.task(net, 77)
    with Trainer.open(artifact(net), kernels=kernels, batch=batch, seed=seed) as trainer:
        report = trainer.fit(x, y, epochs=3)
        return report.losses.tobytes(), trainer.values.tobytes(), trainer.predict(x).tobytes()


@pytest.mark.parametrize("name", RECIPES)
def test_a_rerun_gives_the_same_bits(name: str) -> None:
    assert train(RECIPES[name], "auto", 20) == train(RECIPES[name], "auto", 20)


@pytest.mark.parametrize("batch", [1, 7, 16, 20, 33])
@pytest.mark.parametrize("kernels", [name for name in KERNELS if name not in ("auto", "scalar")])
@pytest.mark.parametrize("name", RECIPES)
def test_every_kernel_gives_the_bits_of_the_scalar_one(name: str, kernels: str, batch: int) -> None:
    need(kernels)
    assert train(RECIPES[name], kernels, batch) == train(RECIPES[name], "scalar", batch)


@pytest.mark.parametrize("kernels", [name for name in KERNELS if name != "auto"])
@pytest.mark.parametrize("recipe", [Recipe(SGD, 1), Recipe(ADAM, 1, beta2=0.9)])
def test_the_moments_of_dead_weights_become_zero_not_subnormal(recipe: Recipe, kernels: str) -> None:
    need(kernels)
    net = nets.mlp((3, 2), None, recipe=recipe)
    with Trainer.open(artifact(net), kernels=kernels, batch=1) as trainer:
        trainer.fit(np.eye(3, dtype=np.float32)[:1], np.zeros(1, np.int32), steps=1)
        x = np.eye(3, dtype=np.float32)[1:]  # from now on input 0 is 0, and so are the gradients of its weights
        trainer.fit(x, np.array([0, 1], np.int32), steps=1500)  # 0.9^831 is subnormal
        saved = trainer.save()
    for kind in (MOMENT1, MOMENT2) if recipe.optimizer == ADAM else (MOMENT1,):
        start, size = section(saved, kind)
        moments = np.frombuffer(saved[start : start + size], np.float32)
        assert (moments[[0, 3]] == 0).all(), "the two weights of input 0"
        alive = moments[moments != 0]
        assert len(alive) > 0
        assert (np.abs(alive) >= np.finfo(np.float32).tiny).all()


def test_kernels_in_use_are_named() -> None:
    with Trainer.open(artifact(nets.small()), kernels="scalar") as trainer:
        assert trainer.kernels == "scalar"
    with Trainer.open(artifact(nets.small())) as trainer:
        assert trainer.kernels in set(KERNELS) - {"auto"}


def test_the_seed_decides_the_order_and_each_epoch_draws_every_sample_once() -> None:
    net = nets.small()
    orders = []
    for seed in (1, 1, 2):
        with Trainer.open(artifact(net), batch=8, seed=seed) as trainer:
            orders.append([trainer._engine.next_batch(21) for _ in range(6)])
    assert [len(rows) for rows in orders[0]] == [8, 8, 5] * 2
    first, second = np.concatenate(orders[0][:3]), np.concatenate(orders[0][3:])
    assert sorted(first) == sorted(second) == list(range(21))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(21))
    assert np.concatenate(orders[0]).tolist() == np.concatenate(orders[1]).tolist()
    assert np.concatenate(orders[0]).tolist() != np.concatenate(orders[2]).tolist()


def test_fit_takes_the_batches_as_they_are_drawn() -> None:
    net = nets.small()
    x, y = nets.task(net, 21)
    with Trainer.open(artifact(net)) as fitted, Trainer.open(artifact(net)) as stepped:
        losses = fitted.fit(x, y, epochs=2).losses
        for loss in losses:
            rows = stepped._engine.next_batch(21)
            assert stepped.train_step(x[rows], y[rows]) == loss
        assert stepped.save() == fitted.save()
