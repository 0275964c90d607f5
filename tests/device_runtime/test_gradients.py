"""Gradients of random multilayer networks against PyTorch in float64, and plain numpy formulas against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_runtime import Trainer
from tests.device_runtime import nets, numpy_operators, reference
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.nets import Floats
from tests.device_runtime.numpy_operators import Call, Doubles
from tests.device_runtime.tkt_writer import Net, Recipe, artifact

TOLERANCE = 16 * 2.0**-24  # of the sizes of terms: 16 roundings, where 5 were the most in 15,000 examples
NEGLIGIBLE = 1e-20  # a softmax leaves out what is less than e^-64

densities = st.sampled_from([None, 0.02, 0.1, 0.3, 0.7, 1.0])
forms = st.sampled_from([{}, {"wide": True}, {"masked": True}])
widths = st.integers(1, 40)


@st.composite
def networks(draw: st.DrawFn) -> Net:
    """Linear, ReLU, skip connections and doubled inputs in any order; rows that are empty, rows that are full."""
    shape = draw(st.sampled_from([(5,), (23,), (3, 4), (2, 3, 3), (1, 2, 2, 2)]))
    builder = nets.Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), shape)
    if len(shape) > 1:
        builder.flatten()
    for _ in range(draw(st.integers(0, 3))):
        block = draw(st.sampled_from(["linear", "relu", "skip", "double"]))
        if block == "relu":
            builder.relu()
        elif block == "double":
            builder.add(builder.last)
        else:
            source = builder.last
            (width,) = builder.shapes[-1]
            out = width if block == "skip" else draw(widths)
            builder.linear(out, draw(densities), bias=draw(st.booleans()), **draw(forms))
            if draw(st.booleans()):
                builder.relu()
            if block == "skip":
                builder.add(source)
    builder.linear(draw(st.integers(2, 11)), draw(densities), bias=draw(st.booleans()), masked=draw(st.booleans()))
    channels = draw(st.sampled_from([1, shape[0]]))
    mean = tuple(builder.random.standard_normal(channels).round(2).tolist())
    return builder.net(mean=mean, inverse_std=tuple(builder.random.uniform(0.5, 2, channels).round(2).tolist()))


class Sizes:
    """The forward pass with the absolute value of every term, through the ReLUs that are on.

    What float32 rounds, it rounds relative to these, however small the sum of the terms is: u times a size is, to first
    order and but for the number of roundings on the way, the error (Higham 2002, section 3.1).
    """

    def __init__(self, net: Net, x: Floats) -> None:
        self.net, self.buffers = net, reference.forward(net, x)
        self.sizes, self.back = [np.abs(self.buffers[0])], []
        params = [np.abs(param.values.astype(np.float64)) for param in net.params]
        for node, shape in zip(net.nodes, net.shapes[1:], strict=True):
            on = [self.buffers[b] > 0 if node.op == ops.RELU else True for b in node.inputs]
            inputs = [self.sizes[b] * passes for b, passes in zip(node.inputs, on, strict=True)]
            size, back = numpy_operators.run(Call(node, inputs, [params[p] for p in node.params], shape, training=True))
            self.sizes.append(size)
            self.back.append(back)

    def off_the_kinks(self) -> bool:
        """No ReLU input so near 0 that float32 may see the other side of it."""
        inputs = [node.inputs[0] for node in self.net.nodes if node.op == ops.RELU]
        return all(((np.abs(self.buffers[b]) > TOLERANCE * self.sizes[b]) | (self.sizes[b] == 0)).all() for b in inputs)

    def of_loss_and_gradients(self, y: NDArray[np.int32]) -> tuple[float, Doubles]:
        """Rounding moves log p by what it moves z, and by the mean of that over p; the rest is the way back."""
        z, size = self.buffers[-1], self.sizes[-1]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        label = np.eye(z.shape[1])[y]
        log_p = 1 + size + (p * size).sum(axis=1, keepdims=True)
        loss = float((label * log_p).sum() / len(z))
        return loss, reference.gradients_of(self.net, self.back, (p * log_p + label) / len(z))


@given(net=networks(), batch=st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 50]), seed=st.integers(0, 99))
@settings(max_examples=120, deadline=None)
def test_gradients_equal_pytorch(net: Net, batch: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((batch, *net.shapes[0])).astype(np.float32)
    y = random.integers(0, net.class_count, batch).astype(np.int32)
    sizes = Sizes(net, x)
    assume(sizes.off_the_kinks())
    loss, wanted = reference.TorchNet(net).loss_and_gradients(x, y)
    with Trainer.open(artifact(net), batch=batch, store_gradients=True) as trainer:
        found_loss, found = trainer.compute_gradients(x, y), trainer.gradients
    loss_size, gradient_sizes = sizes.of_loss_and_gradients(y)
    assert abs(found_loss - loss) <= TOLERANCE * loss_size
    errors, bounds = np.abs(found - wanted), TOLERANCE * gradient_sizes + NEGLIGIBLE
    worst = int(np.argmax(errors / bounds))
    assert errors[worst] <= bounds[worst], f"gradient {worst} is {found[worst]} in place of {wanted[worst]}"


@given(net=networks(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_numpy_formulas_equal_pytorch(net: Net, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((5, *net.shapes[0])).astype(np.float32)
    y = random.integers(0, net.class_count, 5).astype(np.int32)
    loss, gradients = reference.loss_and_gradients(net, x, y)
    torch_loss, torch_gradients = reference.TorchNet(net).loss_and_gradients(x, y)
    assert loss == pytest.approx(torch_loss, rel=1e-12)
    np.testing.assert_allclose(gradients, torch_gradients, rtol=1e-9, atol=1e-12 * np.abs(gradients).max(initial=1))


def test_gradients_do_not_depend_on_what_ran_before() -> None:
    net = nets.small()
    x, y = nets.task(net, 8)
    with Trainer.open(artifact(net), learning_rate=0.0, momentum=0.0, store_gradients=True) as trainer:
        trainer.compute_gradients(x, y)
        first = trainer.gradients
        trainer.train_step(x[:3], y[:3])
        trainer.evaluate(*nets.task(net, 21, seed=4))
        trainer.compute_gradients(x, y)
        assert trainer.gradients.tobytes() == first.tobytes()


def test_a_pruned_weight_has_no_storage_and_a_live_zero_trains() -> None:
    net = nets.mlp((6, 5, 3), 0.4, recipe=Recipe(momentum=0.0))
    first = net.params[0]
    assert first.mask is not None
    first.values[0] = 0.0  # the first row is live throughout
    net.params[1].values[0] = 1.0  # and its unit is on
    x, y = nets.task(net, 8)
    with Trainer.open(artifact(net)) as trainer:
        assert trainer.info.value_count == sum(param.stored.size for param in net.params)
        assert trainer.info.nnz == sum(param.stored.size for param in net.params if param.mask is not None)
        for _ in range(20):
            trainer.train_step(x, y)
        values = trainer.values
    assert (values[: first.values.shape[1]] != 0).any()
