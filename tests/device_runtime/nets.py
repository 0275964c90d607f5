"""Networks for tests: random ones of every kind the format allows, small ones to train, and LeNet-300-100."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.tkt_writer import Net, Node, Param, Recipe

Pair = int | tuple[int, int]
Floats = NDArray[np.float32]

LENET = (784, 300, 100, 10)


class Builder:
    """Adds node after node to a network; `last` is the buffer written last."""

    def __init__(self, random: np.random.Generator, input_shape: tuple[int, ...]) -> None:
        self.random = random
        self.shapes = [input_shape]
        self.nodes: list[Node] = []
        self.params: list[Param] = []
        self.state: list[Param] = []

    @property
    def last(self) -> int:
        return len(self.shapes) - 1

    def linear(
        self,
        out: int,
        density: float | None,
        *,
        bias: bool = True,
        wide: bool = False,
        block: int = 1,
        masked: bool = False,
    ) -> int:
        """density None stores the weight dense; else rows are live at random, the first full, the second empty."""
        (features,) = self.shapes[-1]
        live = self._live(out, features, density, block)
        scale = np.sqrt(2.0 / np.maximum(live.sum(axis=1, keepdims=True), 1))
        values = np.where(live, self.random.standard_normal(live.shape) * scale, 0.0).astype(np.float32)
        self.params.append(Param(values, None if density is None else live, wide, block, masked=masked))
        used = [len(self.params) - 1]
        if bias:
            self.params.append(Param((self.random.standard_normal((out, 1)) * 0.1).astype(np.float32)))
            used.append(used[0] + 1)
        return self._node(ops.LINEAR, (self.last,), (out,), tuple(used))

    def conv(
        self,
        out: int,
        kernel: Pair = 3,
        density: float | None = None,
        *,
        stride: Pair = 1,
        pad: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        wide: bool = False,
        block: int = 1,
        masked: bool = False,
    ) -> int:
        """Over the last buffer, (channels, length) or (channels, height, width); the first row full, the second empty."""
        channels, *sizes = self.shapes[-1]
        windows = _windows(len(sizes), kernel, stride, pad, dilation)
        (k_h, k_w), (s_h, s_w), (p_h, p_w), (d_h, d_w) = windows
        live = self._live(out, channels // groups * k_h * k_w, density, block)
        scale = np.sqrt(2.0 / np.maximum(live.sum(axis=1, keepdims=True), 1))
        values = np.where(live, self.random.standard_normal(live.shape) * scale, 0.0).astype(np.float32)
        used = [self._param(Param(values, None if density is None else live, wide, block, masked=masked))]
        if bias:
            used.append(self._vector(out, 0.1))
        shape = (out, *_window_shape(sizes, *windows))
        return self._node(ops.CONV, (self.last,), shape, tuple(used), (k_h, k_w, s_h, s_w, p_h, p_w, d_h, d_w, groups))

    def batch_norm(self, *, momentum: float = 0.1, frozen: bool = False) -> int:
        channels = self.shapes[-1][0]
        used = (self._vector(channels, 0.3, 1.0), self._vector(channels, 0.3))
        mean, var = self.random.standard_normal((channels, 1)) * 0.2, self.random.uniform(0.5, 1.5, (channels, 1))
        self.state += [Param(mean.astype(np.float32), state=True), Param(var.astype(np.float32), state=True)]
        state = (-len(self.state) + 1, -len(self.state))  # numbered once all others are known
        return self._node(ops.BATCH_NORM, (self.last,), self.shapes[-1], (*used, *state), (1e-5, momentum, int(frozen)))

    def layer_norm(self, dimensions: int, *, affine: bool = True) -> int:
        width = int(np.prod(self.shapes[-1][-dimensions:]))
        used = (self._vector(width, 0.3, 1.0), self._vector(width, 0.3)) if affine else ()
        return self._node(ops.LAYER_NORM, (self.last,), self.shapes[-1], used, (1e-5, dimensions))

    def unary(self, op: int, *attrs: int | float) -> int:
        """relu, leaky_relu, relu6, hardswish, sigmoid, tanh, gelu, softmax, dropout."""
        return self._node(op, (self.last,), self.shapes[-1], (), attrs)

    def relu(self) -> int:
        return self.unary(ops.RELU)

    def pool(self, op: int, kernel: Pair, stride: Pair, pad: Pair = 0, *attrs: int) -> int:
        channels, *sizes = self.shapes[-1]
        windows = _windows(len(sizes), kernel, stride, pad)
        (k_h, k_w), (s_h, s_w), (p_h, p_w), _ = windows
        shape = (channels, *_window_shape(sizes, *windows))
        return self._node(op, (self.last,), shape, (), (k_h, k_w, s_h, s_w, p_h, p_w, *attrs))

    def global_avg_pool(self) -> int:
        return self._node(ops.GLOBAL_AVG_POOL, (self.last,), self.shapes[-1][:1])

    def reshape(self, *shape: int) -> int:
        return self._node(ops.RESHAPE, (self.last,), shape)

    def flatten(self) -> int:
        return self.reshape(int(np.prod(self.shapes[-1])))

    def add(self, other: int) -> int:
        return self._node(ops.ADD, (other, self.last), self.shapes[-1])

    def mul(self, other: int) -> int:
        return self._node(ops.MUL, (other, self.last), self.shapes[-1])

    def concat(self, *others: int) -> int:
        inputs = (*others, self.last)
        channels = sum(self.shapes[b][0] for b in inputs)
        return self._node(ops.CONCAT, inputs, (channels, *self.shapes[-1][1:]))

    def embedding(self, entries: int, width: int, density: float | None = None) -> int:
        live = None if density is None else self.random.random((entries, width)) < density
        values = self.random.standard_normal((entries, width)) * (1 if live is None else live)
        used = (self._param(Param(values.astype(np.float32), live)),)
        return self._node(ops.EMBEDDING, (0,), (self.shapes[0][0], width), used)

    def net(self, **fields: Any) -> Net:
        """Running statistics come last, as the format wants them."""
        trained = len(self.params)
        nodes = tuple(replace(n, params=tuple(p if p >= 0 else trained - p - 1 for p in n.params)) for n in self.nodes)
        return Net(tuple(self.shapes), nodes, (*self.params, *self.state), **fields)

    def _live(self, rows: int, cols: int, density: float | None, block: int) -> NDArray[np.bool_]:
        """The first block of rows full, the second empty, the others at random."""
        blocks = -(-rows // block)
        live = np.ones((blocks, cols), bool)
        if density is not None:
            live = self.random.random((blocks, cols)) < density
            live[0] = True
            live[1:2] = False
        return np.repeat(live, block, axis=0)[:rows]

    def _param(self, param: Param) -> int:
        self.params.append(param)
        return len(self.params) - 1

    def _vector(self, elements: int, spread: float, centre: float = 0.0) -> int:
        values = centre + spread * self.random.standard_normal((elements, 1))
        return self._param(Param(values.astype(np.float32)))

    def _node(
        self,
        op: int,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        params: tuple[int, ...] = (),
        attrs: tuple[int | float, ...] = (),
    ) -> int:
        self.nodes.append(Node(op, inputs, params, attrs))
        self.shapes.append(shape)
        return self.last


def _pair(value: Pair, dimensions: int, alone: int = 1) -> tuple[int, int]:
    """(height, width); along the height that a one-dimensional window has not, `alone`."""
    if dimensions == 2:
        return (value, value) if isinstance(value, int) else value
    assert isinstance(value, int)
    return (alone, value)


def _windows(dimensions: int, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair = 1) -> list[tuple[int, int]]:
    sides = [(kernel, 1), (stride, 1), (pad, 0), (dilation, 1)]
    return [_pair(value, dimensions, alone) for value, alone in sides]


def _window_shape(
    sizes: Sequence[int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, ...]:
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((1, *sizes)[-2:], kernel, stride, pad, dilation, strict=True)
    ]
    return tuple(out[-len(sizes) :])


def mlp(
    sizes: Sequence[int], density: float | None, *, seed: int = 0, dense_output: bool = False, **fields: Any
) -> Net:
    """Linear layers with ReLU between; `sizes[0]` inputs."""
    builder = Builder(np.random.default_rng(seed), (sizes[0],))
    for index, out in enumerate(sizes[1:], start=1):
        last = index == len(sizes) - 1
        builder.linear(out, None if last and dense_output else density)
        if not last:
            builder.relu()
    return builder.net(**fields)


def small(**fields: Any) -> Net:
    """12 inputs as (3, 2, 2), 4 classes, a skip connection; trains in microseconds."""
    builder = Builder(np.random.default_rng(7), (3, 2, 2))
    builder.flatten()
    builder.linear(16, 0.5)
    skip = builder.relu()
    builder.linear(16, 0.3)
    builder.relu()
    builder.add(skip)
    builder.linear(4, None)
    fields = {"mean": (0.5, 0.0, -0.5), "inverse_std": (2.0, 1.0, 0.5), **fields}
    fields.setdefault("card", {"task": "test", "labels": ["red", "green", "blue", "grey"]})
    return builder.net(**fields)


def lenet(density: float = 0.05, *, recipe: Recipe = Recipe(batch=60), **fields: Any) -> Net:  # noqa: B008
    return mlp(LENET, density, recipe=recipe, **fields)


def tangled(seed: int) -> Net:
    """Skips over any distance, views of views and operators in place, at random: what a plan of memory may get wrong."""
    random = np.random.default_rng(seed)
    image = seed % 3 > 0
    builder = Builder(random, (3, 5, 4) if image else (8,))
    builder.conv(4, 3, 0.6, pad=1) if image else builder.linear(8, 0.7)
    shape, same = builder.shapes[-1], [builder.last]
    add: list[Callable[[], object]] = [
        lambda: builder.conv(4, 3, 0.6, pad=1) if image else builder.linear(8, 0.7),
        builder.batch_norm,
        builder.relu,
        lambda: builder.unary(ops.DROPOUT, 0.3),
        lambda: builder.unary(ops.TANH),
        lambda: builder.unary(ops.HARDSWISH),
        lambda: builder.add(int(random.choice(same))),
        lambda: builder.add(int(random.choice(same))),
        lambda: (builder.mul(int(random.choice(same))), builder.unary(ops.SIGMOID)),
        lambda: (builder.reshape(*shape[::-1]), builder.reshape(*shape)),
        lambda: builder.pool(ops.MAX_POOL, 3, 1, 1) if image else builder.layer_norm(1),
    ]
    for _ in range(int(random.integers(8, 30))):
        add[random.integers(len(add))]()
        same.append(builder.last)
    if image:
        builder.flatten()
    builder.linear(4, None)
    return builder.net()


def task(net: Net, count: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Samples that can be learnt: a cloud around a random centre for each class."""
    random = np.random.default_rng(seed)
    y = random.integers(0, net.class_count, count).astype(np.int32)
    centres = np.random.default_rng(1).standard_normal((net.class_count, net.input_elements))
    x = centres[y] + 0.5 * random.standard_normal((count, net.input_elements))
    return x.astype(np.float32).reshape(count, *net.shapes[0]), y
