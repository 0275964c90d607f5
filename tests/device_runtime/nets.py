"""Networks for tests: random ones of every kind the format allows, small ones to train, and LeNet-300-100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.device_runtime.tkt_writer import ADD, FLATTEN, LINEAR, RELU, Net, Node, Param, Recipe

LENET = (784, 300, 100, 10)


class Builder:
    """Adds node after node to a network; `last` is the buffer written last."""

    def __init__(self, random: np.random.Generator, input_shape: tuple[int, ...]) -> None:
        self.random = random
        self.shapes = [input_shape]
        self.nodes: list[Node] = []
        self.params: list[Param] = []

    @property
    def last(self) -> int:
        return len(self.shapes) - 1

    def linear(self, out: int, density: float | None, *, bias: bool = True, wide: bool = False) -> int:
        """density None stores the weight dense; else rows are live at random, the first full, the second empty."""
        (features,) = self.shapes[-1]
        live = np.ones((out, features), bool)
        if density is not None:
            live = self.random.random((out, features)) < density
            live[0] = True
            live[1:2] = False
        scale = np.sqrt(2.0 / np.maximum(live.sum(axis=1, keepdims=True), 1))
        values = np.where(live, self.random.standard_normal(live.shape) * scale, 0.0).astype(np.float32)
        self.params.append(Param(values, None if density is None else live, wide))
        used = [len(self.params) - 1]
        if bias:
            self.params.append(Param((self.random.standard_normal((out, 1)) * 0.1).astype(np.float32)))
            used.append(used[0] + 1)
        return self._node(LINEAR, (self.last,), (out,), tuple(used))

    def relu(self) -> int:
        return self._node(RELU, (self.last,), self.shapes[-1])

    def flatten(self) -> int:
        return self._node(FLATTEN, (self.last,), (int(np.prod(self.shapes[-1])),))

    def add(self, other: int) -> int:
        return self._node(ADD, (other, self.last), self.shapes[-1])

    def net(self, **fields: Any) -> Net:
        return Net(tuple(self.shapes), tuple(self.nodes), tuple(self.params), **fields)

    def _node(self, op: int, inputs: tuple[int, ...], shape: tuple[int, ...], params: tuple[int, ...] = ()) -> int:
        self.nodes.append(Node(op, inputs, params))
        self.shapes.append(shape)
        return self.last


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


def task(net: Net, count: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Samples that can be learnt: a cloud around a random centre for each class."""
    random = np.random.default_rng(seed)
    y = random.integers(0, net.class_count, count).astype(np.int32)
    centres = np.random.default_rng(1).standard_normal((net.class_count, net.input_elements))
    x = centres[y] + 0.5 * random.standard_normal((count, net.input_elements))
    return x.astype(np.float32).reshape(count, *net.shapes[0]), y
