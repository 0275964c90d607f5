"""A compacted artifact trains and predicts as the whole one does on the device's runtime: bit for bit where no sum is grouped
anew, else but for rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import NonFiniteLoss, Trainer
from export.compact import Compaction, compact
from export.layout import layouts, stored_values, whole_values
from export.network import Network, Shape
from export.ticket import Bits, Floats, Ticket
from export.to_native import to_native_bytes
from tests.architectures import ARCHITECTURES
from tests.export.architecture_tickets import architecture_ticket
from tests.export.tickets import ACTIVATIONS, CARD, MILD_FLOATS, Builder, norm_params, tickets, window

Options = Mapping[str, Any]
OPTIMIZERS: dict[str, Options] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01},
    "sgd in place": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.0, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.01},
    "adamw, clipped": {"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01, "clip_norm": 0.1},
    "sgd, clipped": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "clip_norm": 0.1, "nesterov": True},
}


def kept_values(compaction: Compaction, stored: Floats) -> Floats:
    """Of the whole network's stored values those that the compacted one stores."""
    ticket, small = compaction.original, compaction.ticket
    whole = whole_values(ticket.network, ticket.masks, stored)
    kept = {name: array[np.ix_(*compaction.kept[name])] for name, array in whole.items()}
    return stored_values(small.network, small.masks, kept)


def trace(trainer: Trainer, x: Floats, y: np.ndarray, steps: int) -> list[bytes]:
    """Losses and predictions; an overflow is a result like any other."""
    found = [trainer.predict(x).tobytes()]
    try:
        found += [np.float32(trainer.train_step(x, y)).tobytes() for _ in range(steps)]
        return [*found, trainer.predict(x).tobytes()]
    except NonFiniteLoss:
        return [*found, b"not finite"]


def forms(ticket: Ticket) -> list[tuple[int, bool]]:
    return [(layout.block, layout.masked) for layout in layouts(ticket.network, ticket.masks).values()]


def check_same_bits(compaction: Compaction, x: Floats, y: np.ndarray, options: Options, steps: int = 3) -> None:
    whole, small = to_native_bytes(compaction.original), to_native_bytes(compaction)
    settings: dict[str, Any] = {"batch": len(x), "seed": 5, **options}
    if forms(compaction.original) != forms(compaction.ticket):
        return  # rows that share their columns, or are whole, have another order of sums
    with Trainer.open(whole, **settings) as one, Trainer.open(small, **settings) as other:
        assert trace(other, x, y, steps) == trace(one, x, y, steps)
        assert other.values.tobytes() == kept_values(compaction, one.values).tobytes()
        assert other.info.ticket_hash == compaction.original.hash


def with_dead_parts(ticket: Ticket, seed: int) -> Ticket:
    """The same ticket with some rows and columns of some layers pruned."""
    random = np.random.default_rng(seed)
    masks: dict[str, Bits] = {}
    for name, mask in ticket.masks.items():
        masks[name] = mask.copy()
        for axis in (0, 1):
            if random.random() < 0.8:
                dead = random.random(mask.shape[axis]) < 0.3
                np.moveaxis(masks[name], axis, 0)[dead] = False
        masks[name] = masks[name] if masks[name].any() else mask
    init = {name: np.where(masks[name], a, np.float32(0)) if name in masks else a for name, a in ticket.init.items()}
    return Ticket(ticket.network, init, masks, card=ticket.card)


class Random:
    """Draws a network of up to some twenty channels a layer, wide enough for every chain of a sum, with dead parts."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.builder = Builder(((3,), (6,), (2, 9), (2, 6, 6))[seed % 4])

    def whole(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def ticket(self) -> Ticket:
        builder = self.builder
        for _ in range(self.whole(1, 3) if len(builder.shape) > 1 else 0):
            self.convolve()
            self.bend()
        if len(builder.shape) > 1:
            builder.add("reshape", shape=(int(np.prod(builder.shape)),))
        for _ in range(self.whole(1, 3)):
            self.connect(self.whole(4, 20))
            self.bend()
        self.connect(3)
        return self.pruned(builder.network())

    def connect(self, out: int) -> None:
        params: dict[str, Shape] = {"weight": (out, self.builder.shape[0])}
        self.builder.add("linear", params=params | ({"bias": (out,)} if self.random.random() < 0.5 else {}))

    def convolve(self) -> None:
        channels = self.builder.shape[0]
        groups = (1, 1, 2 if channels % 2 == 0 else 1, channels)[self.whole(0, 3)]
        out = groups * self.whole(1, max(1, 12 // groups))
        kernels = (3,) * (len(self.builder.shape) - 1)
        params: dict[str, Shape] = {"weight": (out, channels // groups, *kernels)}
        params |= {"bias": (out,)} if self.random.random() < 0.5 else {}
        settings = {"kernel": 3, "stride": self.whole(1, 2), "pad": 1, "dilation": 1}
        self.builder.add("conv", params=params, groups=groups, **window(self.builder.shape, **settings))

    def bend(self) -> None:
        builder, before = self.builder, self.builder.at
        if self.random.random() < 0.3:
            frozen = self.whole(0, 1)
            params = norm_params(builder.shape[0])
            builder.add("batch_norm", params=params, epsilon=0.01, momentum=0.1, frozen=frozen)
        op, attrs = ACTIVATIONS[self.whole(0, len(ACTIVATIONS) - 1)]
        builder.add(op, **attrs)
        join = ("add", "mul", "concat", "", "", "")[self.whole(0, 5)]
        if join:
            builder.add(join, before)

    def pruned(self, network: Network) -> Ticket:
        shapes, masks, rate = network.parameter_shapes, {}, self.random.uniform(0.1, 0.9)
        for name in network.prunable:
            mask = self.random.random(shapes[name]) < rate
            mask[self.random.random(shapes[name][0]) < 0.3] = False
            mask[:, self.random.random(shapes[name][1]) < 0.4] = False
            if mask.any() and self.random.random() < 0.9:
                masks[name] = mask
        init = {name: self.random.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        init |= {p.name: np.abs(init[p.name]) for p in network.parameters if p.state}
        init |= {name: np.where(mask, init[name], np.float32(0)) for name, mask in masks.items()}
        return Ticket(network, init, masks, card=CARD)


@pytest.mark.parametrize("part", range(4))
def test_random_networks_train_alike(part: int) -> None:
    vanished: Counter[str] = Counter()
    for seed in range(part, 1000, 4):
        compaction = compact(Random(seed).ticket(), keep_bits=True)
        vanished.update(v.unit for v in compaction.vanished)
        vanished["alike"] += forms(compaction.original) == forms(compaction.ticket)
        random = np.random.default_rng(seed)
        batch = (1, 7, 20)[seed % 3]
        x = random.normal(size=(batch, *compaction.original.network.input_shape)).astype(np.float32)
        y = random.integers(3, size=batch).astype(np.int32)
        check_same_bits(compaction, x, y, list(OPTIMIZERS.values())[seed % 5])
    assert vanished["units"] > 100
    assert vanished["alike"] > 200


@settings(deadline=None)
@given(
    tickets(MILD_FLOATS),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from((1, 7, 20)),
    st.integers(0, 2**32 - 1),
)
def test_any_ticket_trains_alike(ticket: Ticket, optimizer: str, batch: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(batch, *ticket.network.input_shape)).astype(np.float32)
    y = random.integers(ticket.network.output_shape[0], size=batch).astype(np.int32)
    check_same_bits(compact(ticket, keep_bits=True), x, y, OPTIMIZERS[optimizer])


VANISH = sorted(set(ARCHITECTURES) - {"mlp"})  # its softmax and layer norm see every unit


@pytest.mark.parametrize("name", VANISH)
@pytest.mark.parametrize("density", [0.1, 0.02])
def test_whole_networks_train_alike(name: str, density: float) -> None:
    ticket = with_dead_parts(architecture_ticket(name, density), seed=1)
    compaction = compact(ticket, keep_bits=True)
    assert compaction.vanished
    x = ARCHITECTURES[name].samples(6).numpy()
    y = (np.arange(6) % 2).astype(np.int32)
    for optimizer in ("sgd", "adam", "sgd, clipped"):
        check_same_bits(compaction, x, y, OPTIMIZERS[optimizer])


@pytest.mark.parametrize("name", VANISH)
def test_whole_networks_without_any_dead_unit_learn_the_same(name: str) -> None:
    """More vanishes than without a changed bit; what is left learns the same up to the rounding of sums."""
    ticket = with_dead_parts(architecture_ticket(name, 0.1), seed=1)
    compaction, careful = compact(ticket), compact(ticket, keep_bits=True)
    assert sum(v.count for v in compaction.vanished) >= sum(v.count for v in careful.vanished)
    assert compaction.ticket.live <= careful.ticket.live
    x = ARCHITECTURES[name].samples(6).numpy()
    y = (np.arange(6) % 2).astype(np.int32)
    whole, small = to_native_bytes(ticket), to_native_bytes(compaction)
    options: dict[str, Any] = {"batch": 6, "store_gradients": True}
    with Trainer.open(whole, **options) as one, Trainer.open(small, **options) as other:
        assert other.compute_gradients(x, y) == pytest.approx(one.compute_gradients(x, y), rel=1e-5)
        np.testing.assert_allclose(other.predict(x), one.predict(x), rtol=1e-4, atol=1e-6)


def test_density_is_told_of_the_original_network() -> None:
    compaction = compact(with_dead_parts(architecture_ticket("sensor", 0.1), seed=1))
    ticket = compaction.original
    with Trainer.open(to_native_bytes(compaction)) as small, Trainer.open(to_native_bytes(ticket)) as whole:
        assert small.info.value_count < whole.info.value_count
        assert small.info.dense_count == whole.info.dense_count
        assert small.info.nnz == compaction.ticket.live
        assert small.info.density == small.info.nnz * whole.info.density / whole.info.nnz
        assert dict(small.info.card) == dict(compaction.ticket.card)


def test_a_device_keeps_the_origin_in_what_it_writes() -> None:
    compaction = compact(with_dead_parts(architecture_ticket("sensor", 0.1), seed=1))
    x, y = ARCHITECTURES["sensor"].samples(6).numpy(), np.zeros(6, np.int32)
    with Trainer.open(to_native_bytes(compaction)) as trainer:
        trainer.train_step(x, y)
        with Trainer.open(trainer.export(), start="trained") as again:
            assert again.info.dense_count == trainer.info.dense_count
            assert again.info.density == trainer.info.density
            whole = compaction.restore(again.values)
    assert {name: array.shape for name, array in whole.items()} == compaction.original.network.parameter_shapes
    for name, mask in compaction.original.masks.items():
        assert not whole[name][~mask].any()
