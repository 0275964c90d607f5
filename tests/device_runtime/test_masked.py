"""Layers stored whole with a list of pruned weights: these stay 0 whatever trains the others, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_runtime import CorruptArtifact, CorruptCheckpoint, Trainer, inspect
from tests.device_runtime import nets, reference
from tests.device_runtime.nets import Builder
from tests.device_runtime.test_artifact import patched
from tests.device_runtime.test_checkpoint import MOMENT1, MOMENT2, VALUES, changed
from tests.device_runtime.test_operators import KERNELS
from tests.device_runtime.tkt_writer import (
    ADAM,
    ADAMW,
    EMBEDDING,
    INIT,
    LINEAR,
    PARAMS,
    PATTERN,
    SGD,
    Net,
    Node,
    Param,
    Recipe,
    artifact,
)

RECIPES = {
    "sgd": Recipe(SGD, learning_rate=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov, clipped": Recipe(SGD, learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, clip_norm=0.5),
    "sgd in place": Recipe(SGD, learning_rate=0.05, momentum=0.0, weight_decay=0.01),
    "adam": Recipe(ADAM, learning_rate=0.01, weight_decay=0.01),
    "adamw, clipped": Recipe(ADAMW, learning_rate=0.01, weight_decay=0.01, clip_norm=0.5),
}


def net(**fields: Any) -> Net:
    """A masked convolution and two masked linear layers around one that is CSR; one live weight of each masked one is 0."""
    b = Builder(np.random.default_rng(3), (2, 6, 5))
    b.conv(5, 3, 0.7, pad=1, masked=True)
    b.relu()
    b.flatten()
    b.linear(37, 0.8, masked=True)
    b.relu()
    b.linear(19, 0.3)
    b.relu()
    b.linear(4, 0.75, masked=True)
    for param in b.params:
        if param.masked:
            param.values[0, 0] = 0.0  # the first row is live throughout
    return b.net(**fields)


NET = net()
X, Y = nets.task(NET, 45)


def pruned(net: Net) -> NDArray[np.bool_]:
    """Of the stored values."""
    parts = [~p.mask.ravel() if p.masked and p.mask is not None else np.zeros(p.stored.size, bool) for p in net.params]
    return np.concatenate(parts)


def is_positive_zero(values: NDArray[np.float32]) -> bool:
    return not values.view(np.uint32).any()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("batch", "micro_batch"), [(1, 0), (8, 0), (33, 0), (33, 10)])
@pytest.mark.parametrize("name", RECIPES)
def test_pruned_weights_stay_zero_and_live_zeros_train(name: str, batch: int, micro_batch: int, kernels: str) -> None:
    content = artifact(net(recipe=RECIPES[name]))
    dead = pruned(NET)
    firsts = np.flatnonzero((NET.stored == 0) & ~dead)
    settings: dict[str, Any] = {"batch": batch, "micro_batch": micro_batch, "kernels": kernels}
    with Trainer.open(content, threads=2, **settings) as trainer, Trainer.open(content, **settings) as alone:
        trainer.fit(X, Y, steps=60)
        values = trainer.values
        assert is_positive_zero(values[dead])
        assert len(firsts) == 3
        assert values[firsts].all()
        alone.fit(X, Y, steps=60)
        assert alone.values.tobytes() == values.tobytes()


def test_gradients_of_pruned_weights_are_zero() -> None:
    with Trainer.open(artifact(NET), batch=45, store_gradients=True) as trainer:
        trainer.compute_gradients(X, Y)
        found = trainer.gradients
    assert is_positive_zero(found[pruned(NET)])
    assert np.count_nonzero(found) > np.count_nonzero(~pruned(NET)) // 2


@pytest.mark.parametrize("name", RECIPES)
def test_training_is_that_of_pytorch(name: str) -> None:
    """The norm that clips is of live weights alone."""
    made = net(recipe=RECIPES[name])
    torch_net = reference.TorchNet(made)
    with Trainer.open(artifact(made), batch=45) as trainer:
        for _ in range(20):
            assert trainer.train_step(X, Y) == pytest.approx(torch_net.step(X, Y), rel=1e-4)
        np.testing.assert_allclose(trainer.values, torch_net.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 8, 33])
def test_the_arithmetic_is_that_of_a_dense_layer(batch: int) -> None:
    """Scores of the same values, and where every weight is live every bit of a training."""
    dense = replace(NET, params=tuple(replace(p, mask=None, masked=False) if p.masked else p for p in NET.params))
    with Trainer.open(artifact(NET), batch=batch) as one, Trainer.open(artifact(dense), batch=batch) as other:
        assert one.predict(X).tobytes() == other.predict(X).tobytes()
    whole = [replace(p, mask=np.ones(p.values.shape, bool)) if p.masked else p for p in NET.params]
    live = artifact(replace(NET, params=tuple(whole)))
    with Trainer.open(live, batch=batch) as one, Trainer.open(artifact(dense), batch=batch) as other:
        assert one.fit(X, Y, steps=9).losses.tobytes() == other.fit(X, Y, steps=9).losses.tobytes()
        assert one.values.tobytes() == other.values.tobytes()


def test_figures_tell_live_weights_and_what_is_stored() -> None:
    facts = inspect(artifact(NET))
    masks = [p.mask for p in NET.params if p.mask is not None]
    assert facts["nnz"] == sum(int(mask.sum()) for mask in masks)
    assert facts["density"] == pytest.approx(facts["nnz"] / sum(mask.size for mask in masks))
    assert facts["value_count"] == NET.stored.size
    assert facts["memory"]["values"] == 4 * NET.stored.size


@pytest.mark.parametrize("name", RECIPES)
def test_a_checkpoint_and_an_export_go_on_with_the_same_bits(name: str) -> None:
    content = artifact(net(recipe=RECIPES[name]))
    with Trainer.open(content, seed=4) as trainer:
        whole, values = trainer.fit(X, Y, epochs=3).losses, trainer.values
        exported = trainer.export()
    with Trainer.open(content, seed=4) as trainer:
        begun = trainer.fit(X, Y, steps=7).losses
        saved = trainer.save()
    with Trainer.open(content) as trainer:
        trainer.restore(saved)
        rest = trainer.fit(X, Y, epochs=3).losses
        assert trainer.values.tobytes() == values.tobytes()
    assert np.concatenate([begun, rest]).tobytes() == whole.tobytes()
    with Trainer.open(exported, start="trained") as trainer:
        assert trainer.values.tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", [VALUES, MOMENT1, MOMENT2])
def test_a_checkpoint_with_a_pruned_weight_that_is_not_zero_is_refused(kind: int) -> None:
    with Trainer.open(artifact(net(recipe=RECIPES["adam"]))) as trainer:
        trainer.fit(X, Y, steps=2)
        saved = trainer.save()
        place = 4 * int(np.flatnonzero(pruned(NET))[-1])
        with pytest.raises(CorruptCheckpoint, match="pruned weight"):
            trainer.restore(changed(saved, kind, place, np.float32(1e-30).tobytes()))
        assert trainer.save() == saved
        trainer.restore(changed(saved, kind, place, np.float32(-0.0).tobytes()))  # as AdamW's decay may leave it


def of(weight: Param, *, op: int = LINEAR, bias: Param | None = None) -> Net:
    """One layer; an embedding before a dense one."""
    rows, cols = weight.values.shape
    params = (weight,) if bias is None else (weight, bias)
    if op == LINEAR:
        return Net(((cols,), (rows,)), (Node(LINEAR, (0,), tuple(range(len(params)))),), params)
    b = Builder(np.random.default_rng(0), (6,))
    b.embedding(rows, cols)
    b.flatten()
    b.linear(2, None)
    return replace(b.net(), params=(weight, *b.params[1:]))


def masked(mask: NDArray[np.bool_]) -> Param:
    return Param(mask.astype(np.float32), mask, masked=True)


MASK = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]], bool)  # PATTERN: 0 1 4 4, then 2 0 1 3
GOOD = of(masked(MASK))
WIDE = np.ones((2, 65537), bool)


def broken(kind: int, offset: int, layout: str, *values: float) -> Callable[[], bytes]:
    return lambda: patched(kind, offset, layout, *values, of=artifact(GOOD))


MALFORMED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "more live weights than weights": (r"13 live weights of \(3, 4\), which may not be", broken(PARAMS, 20, "<I", 13)),
    "a live weight more": ("in order", broken(PARAMS, 20, "<I", 9)),
    "a live weight less": ("not where PATTERN", broken(PARAMS, 20, "<I", 7)),
    "row_ptr elsewhere": ("not where PATTERN", broken(PARAMS, 24, "<I", 4)),
    "columns elsewhere": ("not where PATTERN", broken(PARAMS, 28, "<I", 12)),
    "rows begin at 1": ("in order", broken(PATTERN, 0, "<I", 1)),
    "rows fall": ("in order", broken(PATTERN, 8, "<I", 0)),
    "rows end early": ("in order", broken(PATTERN, 12, "<I", 3)),
    "columns do not rise": ("in order", broken(PATTERN, 18, "<2H", 1, 1)),
    "a column too large": ("in order", broken(PATTERN, 22, "<H", 4)),
    "a pruned weight that is not 0": ("INIT holds a pruned weight", broken(INIT, 8, "<f", 1e-45)),
    "a pruned trained one": (
        "TRAINED holds a pruned weight",
        lambda: artifact(GOOD, trained=np.ones(12, "<f4").tobytes()),
    ),
    "no live weight": (
        r"0 live weights of \(3, 4\), which may not be",
        lambda: artifact(of(masked(np.zeros((3, 4), bool)))),
    ),
    "65537 columns": (r"131074 live weights of \(2, 65537\), which may not be", lambda: artifact(of(masked(WIDE)))),
    "a bias": ("has a bias", lambda: artifact(of(masked(MASK), bias=masked(np.ones((3, 1), bool))))),
    "a table": ("with a mask", lambda: artifact(of(masked(MASK), op=EMBEDDING))),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    inspect(artifact(GOOD))
    text, make = MALFORMED[name]
    with pytest.raises(CorruptArtifact, match=text):
        inspect(make())


def test_a_pruned_weight_may_be_minus_zero() -> None:
    inspect(patched(INIT, 8, "<f", -0.0, of=artifact(GOOD)))
