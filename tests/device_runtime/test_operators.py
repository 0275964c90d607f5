"""Every operator and loss over a grid of shapes: native against float64 numpy, numpy against PyTorch and finite differences.

Each case is a small network around the operator, so that gradients flow into it and out of it; each runs at batches that
use every number of lanes, on every set of kernels this machine has, which must agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from device_runtime import CorruptArtifact, InvalidInput, NonFiniteLoss, Trainer
from tests.device_runtime import nets, reference
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.nets import Builder
from tests.device_runtime.numpy_operators import Doubles
from tests.device_runtime.tkt_writer import Net, Recipe, artifact

BATCHES = (1, 3, 8, 16, 33)  # 1, 8 and 16 lanes, whole and partial groups
TOLERANCE = 2e-5


def available_kernels() -> list[str]:
    found = []
    for kernels in ("scalar", "avx2", "avx512", "neon"):
        try:
            Trainer.open(artifact(nets.small()), kernels=kernels).close()
        except InvalidInput:
            continue
        found.append(kernels)
    return found


KERNELS = available_kernels()


def conv(
    shape: tuple[int, ...], out: int, kernel: Any, density: float | None = 0.5, **settings: Any
) -> Callable[[], Net]:
    """A convolution whose input needs a gradient, and whose output's gradient is not smooth over the image."""

    def net() -> Net:
        builder = Builder(np.random.default_rng(0), shape)
        builder.conv(shape[0], 1, None, groups=shape[0])
        builder.conv(out, kernel, density, **settings)
        builder.unary(ops.TANH)
        builder.flatten()
        builder.linear(4, None)
        return builder.net()

    return net


def around(
    shape: tuple[int, ...], add: Callable[[Builder], Any], *, bias: bool = True, **fields: Any
) -> Callable[[], Net]:
    """linear or conv, what `add` adds, linear. No bias before a norm that takes it away: its gradient would be noise."""

    def net() -> Net:
        builder = Builder(np.random.default_rng(1), shape)
        if len(shape) == 1:
            builder.linear(shape[0], 0.7, bias=bias)
        else:
            builder.conv(shape[0], 1, 0.7, bias=bias)
        add(builder)
        if len(builder.shapes[-1]) > 1:
            builder.flatten()
        builder.linear(4, 0.6)
        return builder.net(**fields)

    return net


def skip(builder: Builder, join: Callable[[int], int]) -> None:
    source = builder.last
    builder.conv(builder.shapes[-1][0], 3, 0.5, pad=1)
    join(source)
    builder.relu()


def embedded(builder: Builder, density: float | None) -> Net:
    builder.embedding(11, 5, density)
    builder.flatten()
    builder.linear(3, None)
    return builder.net()


def norm_after_conv(**settings: Any) -> Callable[[], Net]:
    def net() -> Net:
        builder = Builder(np.random.default_rng(2), (3, 5, 4))
        builder.conv(6, 3, None, pad=1, bias=False)
        builder.batch_norm(**settings)
        builder.relu()
        builder.conv(4, 2, 0.9, bias=False)
        builder.batch_norm(**settings)
        builder.flatten()
        builder.linear(3, None)
        return builder.net()

    return net


CASES: dict[str, Callable[[], Net]] = {
    "linear dense": around((6,), lambda b: b.linear(7, None)),
    "linear sparse": around((6,), lambda b: b.linear(9, 0.4, bias=False)),
    "linear 32-bit columns": around((6,), lambda b: b.linear(9, 0.4, wide=True)),
    "linear in blocks of 4": around((6,), lambda b: b.linear(16, 0.4, block=4)),
    "linear in blocks of 8": around((6,), lambda b: b.linear(24, 0.4, block=8, bias=False)),
    "linear masked": around((6,), lambda b: b.linear(9, 0.7, masked=True)),
    "linear masked, every weight live": around((6,), lambda b: b.linear(9, 1.0, masked=True)),
    "conv 3x3": conv((3, 6, 5), 5, 3, pad=1),
    "conv dense": conv((3, 6, 5), 5, 3, None, pad=1),
    "conv 32-bit columns": conv((3, 6, 5), 5, 3, wide=True),
    "conv without padding or bias": conv((3, 6, 5), 5, (2, 3), bias=False),
    "conv stride 2": conv((3, 7, 6), 4, 3, stride=2, pad=1),
    "conv stride beyond the kernel": conv((2, 9, 8), 4, 2, stride=3),
    "conv stride beyond the image": conv((2, 3, 3), 4, 2, stride=5, pad=1),
    "conv dilation": conv((2, 9, 9), 4, 3, dilation=(2, 3), pad=(2, 3)),
    "conv dilation and stride": conv((2, 9, 9), 4, 3, dilation=2, stride=(2, 3), pad=2),
    "conv groups": conv((4, 5, 5), 6, 3, groups=2, pad=1),
    "conv depthwise": conv((6, 5, 5), 6, 3, None, groups=6, pad=1, stride=2),
    "conv depthwise multiplier": conv((3, 5, 5), 6, 3, groups=3, pad=1),
    "conv in blocks of 4": conv((3, 6, 5), 12, 3, pad=1, block=4),
    "conv in blocks of 8": conv((4, 7, 6), 16, 3, pad=1, stride=2, groups=2, block=8),
    "conv masked": conv((3, 6, 5), 5, 3, 0.8, pad=1, masked=True),
    "conv masked, groups and stride": conv((4, 7, 6), 12, 3, 0.7, stride=2, groups=2, masked=True),
    "conv dense of many": conv((6, 6, 7), 10, 3, None, pad=1, groups=2),
    "conv 1x1": conv((5, 4, 4), 7, 1, 0.6),
    "conv of a single pixel": conv((3, 1, 1), 4, 1),
    "conv wide lines": conv((2, 3, 37), 3, 3, pad=1),
    "conv many channels": conv((40, 4, 4), 3, 3, 0.9, pad=1),
    "conv 1d": conv((3, 20), 5, 5, pad=2),
    "conv 1d stride and dilation": conv((3, 20), 5, 3, stride=2, dilation=2, pad=1),
    "conv 1d groups": conv((4, 13), 6, 4, groups=2),
    "batch_norm of images": norm_after_conv(),
    "batch_norm frozen": norm_after_conv(frozen=True),
    "batch_norm of features": around((6,), lambda b: b.batch_norm(), bias=False),
    "batch_norm of sequences": around((3, 7), lambda b: b.batch_norm(momentum=0.3), bias=False),
    "layer_norm": around((9,), lambda b: b.layer_norm(1)),
    "layer_norm of images": around((3, 4, 5), lambda b: b.layer_norm(2), bias=False),
    "layer_norm without affine": around((3, 4, 5), lambda b: b.layer_norm(3, affine=False)),
    "relu": around((6,), lambda b: b.relu()),
    "leaky_relu": around((6,), lambda b: b.unary(ops.LEAKY_RELU, 0.2)),
    "relu6": around((6,), lambda b: (b.linear(6, None), b.unary(ops.RELU6))),
    "hardswish": around((6,), lambda b: b.unary(ops.HARDSWISH)),
    "sigmoid": around((6,), lambda b: b.unary(ops.SIGMOID)),
    "tanh": around((6,), lambda b: b.unary(ops.TANH)),
    "gelu": around((6,), lambda b: b.unary(ops.GELU, 0)),
    "gelu by tanh": around((6,), lambda b: b.unary(ops.GELU, 1)),
    "max_pool": around((3, 6, 7), lambda b: b.pool(ops.MAX_POOL, 2, 2)),
    "max_pool overlapping": around((3, 6, 7), lambda b: b.pool(ops.MAX_POOL, 3, (2, 1), 1)),
    "max_pool 1d": around((3, 11), lambda b: b.pool(ops.MAX_POOL, 3, 2)),
    "avg_pool": around((3, 6, 7), lambda b: b.pool(ops.AVG_POOL, (2, 3), 2, 0, 1)),
    "avg_pool with padding": around((3, 6, 7), lambda b: b.pool(ops.AVG_POOL, 3, 2, 1, 1)),
    "avg_pool of what is inside": around((3, 6, 7), lambda b: b.pool(ops.AVG_POOL, 3, 2, 1, 0)),
    "avg_pool 1d": around((3, 11), lambda b: b.pool(ops.AVG_POOL, 2, 2, 0, 1)),
    "global_avg_pool": around((3, 6, 7), lambda b: b.global_avg_pool()),
    "global_avg_pool 1d": around((3, 6), lambda b: b.global_avg_pool()),
    "add": around((3, 5, 5), lambda b: skip(b, b.add)),
    "mul": around((3, 5, 5), lambda b: skip(b, b.mul)),
    "mul of itself": around((6,), lambda b: b.mul(b.last)),
    "add of itself": around((6,), lambda b: b.add(b.last)),
    "concat": around((3, 5, 5), lambda b: skip(b, b.concat)),
    "concat of three": around((4,), lambda b: (b.relu(), b.concat(1, 1))),
    "reshape": around((12,), lambda b: (b.reshape(3, 2, 2), b.conv(4, 2, None, pad=1), b.reshape(6, 6))),
    "softmax": around((6,), lambda b: b.unary(ops.SOFTMAX)),
    "embedding": lambda: embedded(Builder(np.random.default_rng(3), (6,)), None),
    "embedding sparse": lambda: embedded(Builder(np.random.default_rng(3), (6,)), 0.5),
    "dropout of nothing": around((6,), lambda b: b.unary(ops.DROPOUT, 0.0)),
    "mean squared error": around((6,), lambda b: b.relu(), loss=ops.MSE),
    "binary cross-entropy": around((6,), lambda b: b.relu(), loss=ops.BCE),
    "label smoothing": around((6,), lambda b: b.relu(), recipe=Recipe(label_smoothing=0.1)),
    "class weights": around((6,), lambda b: b.relu(), class_weights=(0.5, 2.0, 1.0, 0.0)),
    "both": around((6,), lambda b: b.relu(), recipe=Recipe(label_smoothing=0.3), class_weights=(0.5, 2.0, 1.0, 0.1)),
}


def batch_of(net: Net, count: int, seed: int = 0) -> tuple[nets.Floats, reference.Targets]:
    random = np.random.default_rng(seed)
    shape = (count, *net.shapes[0])
    x = random.standard_normal(shape)
    if net.nodes[0].op == ops.EMBEDDING:
        x = random.integers(0, len(net.params[0].values), shape).astype(np.float64)
    if net.loss == ops.CROSS_ENTROPY:
        return x.astype(np.float32), random.integers(0, net.class_count, count).astype(np.int32)
    return x.astype(np.float32), random.random((count, net.class_count)).astype(np.float32)


def assert_close(net: Net, found: nets.Floats, wanted: Doubles, tolerance: float) -> None:
    """Parameter by parameter, against the largest gradient of the parameter, or a hundredth of the largest of all."""
    start, whole = 0, np.abs(wanted).max(initial=0.0)
    for index, param in enumerate(p for p in net.params if not p.state):
        part = slice(start, start + param.stored.size)
        start = part.stop
        scale = max(np.abs(wanted[part]).max(initial=0.0), 1e-2 * whole)
        error = np.abs(found[part] - wanted[part]).max(initial=0.0)
        assert error <= tolerance * scale, f"parameter {index}: {error} of {scale}"


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    net = CASES[name]()
    for batch in BATCHES:
        x, y = batch_of(net, batch)
        loss, wanted = reference.loss_and_gradients(net, x, y)
        bits = set()
        for kernels in KERNELS:
            with Trainer.open(artifact(net), batch=batch, kernels=kernels, store_gradients=True) as trainer:
                found = trainer.compute_gradients(x, y)
                gradients = trainer.gradients
            bits.add((found, gradients.tobytes()))
            assert found == pytest.approx(loss, rel=TOLERANCE, abs=1e-7), kernels
            assert_close(net, gradients, wanted, TOLERANCE)
        assert len(bits) == 1, "the kernels differ"


@pytest.mark.parametrize("name", CASES)
def test_predictions(name: str) -> None:
    """Evaluation mode: running statistics, no dropout."""
    net = CASES[name]()
    x, _ = batch_of(net, 19)
    z = reference.forward(net, x, training=False)[-1]
    wanted = z
    if net.loss == ops.BCE:
        wanted = 1.0 / (1.0 + np.exp(-z))
    elif net.loss == ops.CROSS_ENTROPY:
        wanted = np.exp(z - z.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
    for batch in (1, 8, 64):
        with Trainer.open(artifact(net), batch=batch) as trainer:
            np.testing.assert_allclose(trainer.predict(x), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_reference_equals_pytorch(name: str) -> None:
    net = CASES[name]()
    x, y = batch_of(net, 5)
    loss, gradients = reference.loss_and_gradients(net, x, y)
    torch_loss, torch_gradients = reference.TorchNet(net).loss_and_gradients(x, y)
    assert loss == pytest.approx(torch_loss, rel=1e-12)
    np.testing.assert_allclose(gradients, torch_gradients, rtol=1e-8, atol=1e-11 * np.abs(gradients).max(initial=1e-3))


@pytest.mark.parametrize("name", CASES)
def test_the_reference_equals_finite_differences(name: str) -> None:
    net = CASES[name]()
    x, y = batch_of(net, 3)
    _, gradients = reference.loss_and_gradients(net, x, y)
    position, width = 0, 1e-6
    for param in (p for p in net.params if not p.state):
        live = param.ordered(1 + np.arange(param.values.size).reshape(param.values.shape)) - 1
        doubles = param.values.astype(np.float64)
        for number in range(0, len(live), max(1, len(live) // 5)):
            if live[number] < 0:  # pruned, but stored
                assert gradients[position + number] == 0
                continue
            losses = []
            for sign in (1, -1):
                moved = doubles.copy()
                moved.flat[live[number]] += sign * width
                losses.append(reference.numpy_loss(net, _forward_with(net, x, param, moved), y)[0])
            difference = (losses[0] - losses[1]) / (2 * width)
            assert gradients[position + number] == pytest.approx(difference, rel=1e-4, abs=1e-7)
        position += param.stored.size


def _forward_with(net: Net, x: nets.Floats, param: ops.Param, values: Doubles) -> Doubles:
    """The outputs with one parameter replaced, in float64."""
    swapped = tuple(replace(p, values=cast(Any, values)) if p is param else p for p in net.params)
    changed = Net(net.shapes, net.nodes, swapped, net.mean, net.inverse_std, net.recipe, loss=net.loss)
    return reference.forward(changed, x)[-1]


@pytest.mark.parametrize("micro_batch", [1, 4, 5, 16])
def test_parts_of_a_batch_add_up(micro_batch: int) -> None:
    net = CASES["both"]()
    x, y = batch_of(net, 21)
    loss, wanted = reference.loss_and_gradients(net, x, y)
    with Trainer.open(artifact(net), batch=21, micro_batch=micro_batch) as trainer:
        assert trainer.compute_gradients(x, y) == pytest.approx(loss, rel=TOLERANCE)
        assert_close(net, trainer.gradients, wanted, TOLERANCE)


def test_batch_norm_gathers_running_statistics() -> None:
    net = CASES["batch_norm of images"]()
    torch_net = reference.TorchNet(net, Recipe(learning_rate=0.05, momentum=0.0))
    settings = {"learning_rate": 0.05, "momentum": 0.0, "store_gradients": True}
    with Trainer.open(artifact(net), batch=6, **settings) as trainer:  # type: ignore[arg-type]
        for step in range(4):
            x, y = batch_of(net, 6, step)
            trainer.train_step(x, y)
            torch_net.step(x, y)
        np.testing.assert_allclose(trainer.values, torch_net.values, rtol=2e-4, atol=2e-5)
        before = trainer.values
        trainer.evaluate(x, y)
        trainer.predict(x)
        assert trainer.values.tobytes() == before.tobytes()
        with pytest.raises(Exception, match="not finite"):
            trainer.train_step(np.full_like(x, 3e38), y)
        assert trainer.values.tobytes() == before.tobytes()


def test_a_single_value_a_channel_is_normalised_by_the_running_statistics() -> None:
    net = CASES["batch_norm of features"]()
    x, y = batch_of(net, 1)
    state = net.stored[net.trained_count :]
    with Trainer.open(artifact(net), batch=8, learning_rate=0.05) as trainer:
        trainer.train_step(x, y)
        assert trainer.values[net.trained_count :].tobytes() == state.tobytes()
        assert trainer.gradients.size == net.trained_count


def test_dropout() -> None:
    """Drops its share, scales the rest, the same in the backward pass and after a restore, and nothing in evaluation."""
    builder = Builder(np.random.default_rng(4), (400,))
    builder.linear(400, None)
    builder.unary(ops.DROPOUT, 0.3)
    builder.linear(2, None)
    net = builder.net(loss=ops.MSE)
    net.params[0].values[:] = np.eye(400)
    net.params[1].values[:] = 0.0
    net.params[2].values[:] = 1.0
    net.params[3].values[:] = 0.0
    x, y = np.ones((9, 400), np.float32), np.zeros((9, 2), np.float32)
    with Trainer.open(artifact(net), batch=9, learning_rate=0.0, momentum=0.0, seed=5, store_gradients=True) as trainer:
        np.testing.assert_allclose(trainer.predict(x), 400.0)
        trainer.compute_gradients(x, y)
        first = trainer.gradients
        kept = first[400 * 400 : 400 * 400 + 400]  # of the first bias: by unit, the sum over the samples that kept it
        assert 0 < np.count_nonzero(kept) <= 400
        trainer.compute_gradients(x, y)
        assert trainer.gradients.tobytes() == first.tobytes()
        checkpoint = trainer.save()
        losses = [trainer.train_step(x, y) for _ in range(3)]
        assert len(set(losses)) == 3
        trainer.restore(checkpoint)
        assert [trainer.train_step(x, y) for _ in range(3)] == losses
    share = np.sqrt(np.array(losses)) / 400  # the mean over samples of a sum of what is kept, about 1
    np.testing.assert_allclose(share, 1.0, atol=0.05)
    with Trainer.open(artifact(net), batch=9, learning_rate=0.0, momentum=0.0, seed=6) as trainer:
        assert trainer.train_step(x, y) not in losses


@pytest.mark.parametrize("bad", [-1.0, 11.0, 0.5, 1e9])
def test_an_embedding_takes_whole_numbers_in_range(bad: float) -> None:
    net = CASES["embedding"]()
    x, y = batch_of(net, 3)
    x[1, 2] = bad
    with Trainer.open(artifact(net), batch=4) as trainer:
        before = trainer.values
        for verb in (trainer.train_step, trainer.evaluate):
            with pytest.raises(InvalidInput, match=r"samples\[1\].* element 2.*whole numbers from 0 to 10"):
                verb(x, y)
        assert trainer.values.tobytes() == before.tobytes()


def test_an_embedding_reads_samples_that_no_channel_normalises() -> None:
    net = CASES["embedding"]()
    channels = net.input_elements
    x, y = batch_of(net, 3)
    with (
        Trainer.open(artifact(net), batch=4) as one,
        Trainer.open(artifact(replace(net, mean=(0.0,) * channels, inverse_std=(1.0,) * channels)), batch=4) as other,
    ):
        assert one.train_step(x, y) == other.train_step(x, y)
    for change in ({"mean": (0.0,) * (channels - 1) + (1.0,)}, {"inverse_std": (1.0,) * (channels - 1) + (0.5,)}):
        whole: dict[str, Any] = {"mean": (0.0,) * channels, "inverse_std": (1.0,) * channels, **change}
        with pytest.raises(CorruptArtifact, match="reads samples that are normalised"):
            Trainer.open(artifact(replace(net, **whole)))


@pytest.mark.parametrize(
    "options",
    [{}, {"store_gradients": True}, {"micro_batch": 4}, {"momentum": 0.9}, {"optimizer": "adam", "threads": 2}],
)
def test_a_running_statistic_never_becomes_infinite(options: dict[str, Any]) -> None:
    """The loss of such samples is finite: they are normalised to nothing."""
    builder = Builder(np.random.default_rng(0), (4,))
    builder.batch_norm()
    builder.linear(3, None)
    net = builder.net(recipe=Recipe(momentum=0.0))
    x, y = batch_of(net, 8)
    with Trainer.open(artifact(net), batch=8, **options) as trainer:
        trainer.train_step(x, y)
        before = trainer.save()
        with pytest.raises(NonFiniteLoss, match="a running statistic of step 1 is not finite"):
            trainer.train_step(x * np.float32(1e19), y)
        assert trainer.save() == before
        trainer.train_step(x, y)
        assert np.isfinite(trainer.values).all()


def test_targets_are_checked() -> None:
    net = CASES["binary cross-entropy"]()
    x, y = batch_of(net, 3)
    with Trainer.open(artifact(net), batch=4) as trainer:
        for wrong, text in (
            (y[:, :2], "shape"),
            (y[0], "shape"),
            (y - 2, r"targets\[0\].*in 0 to 1"),
            (y * np.nan, "nan|NaN"),
        ):
            with pytest.raises(InvalidInput, match=text):
                trainer.train_step(x, wrong)


def test_what_is_negligible_in_a_softmax_is_nothing() -> None:
    """e^-70 is far from subnormal; what it becomes some layers further back is not, and would slow every step."""
    builder = Builder(np.random.default_rng(0), (3,))
    builder.linear(3, None)
    net = builder.net()
    net.params[0].values[:] = np.eye(3)
    net.params[1].values[:] = 0.0
    x = np.array([[0.0, -60.0, -70.0]], np.float32)
    with Trainer.open(artifact(net), batch=1, store_gradients=True) as trainer:
        trainer.compute_gradients(x, np.array([1], np.int32))
        bias = trainer.gradients[9:]
        assert bias[1] == -1.0
        assert bias[2] == 0.0
        trainer.compute_gradients(x, np.array([0], np.int32))
        assert 0 < trainer.gradients[10] < 1e-25
