"""The same networks in float64: forward and backward by plain numpy formulas, and forward in PyTorch for its autograd.

Gradients and values come in the artifact's order: live weights in CSR order, dense ones row-major.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from tests.device_runtime.tkt_writer import ADAM, FLATTEN, LINEAR, RELU, Net, Recipe

Doubles = NDArray[np.float64]


def normalised(net: Net, x: NDArray[np.float32]) -> Doubles:
    channels = len(net.mean)
    flat = x.reshape(len(x), channels, -1).astype(np.float64)
    mean, inverse_std = (np.array(v, np.float32).astype(np.float64)[:, None] for v in (net.mean, net.inverse_std))
    return ((flat - mean) * inverse_std).reshape(len(x), -1)


def forward(net: Net, params: list[Doubles], x: NDArray[np.float32]) -> list[Doubles]:
    """Every buffer, (batch, elements); `params` are dense matrices."""
    buffers = [normalised(net, x)]
    for node in net.nodes:
        source = buffers[node.inputs[0]]
        if node.op == LINEAR:
            value = source @ params[node.params[0]].T
            if len(node.params) == 2:
                value = value + params[node.params[1]].ravel()
        elif node.op == RELU:
            value = np.maximum(source, 0.0)
        elif node.op == FLATTEN:
            value = source
        else:
            value = source + buffers[node.inputs[1]]
        buffers.append(value)
    return buffers


def loss_and_gradients(net: Net, x: NDArray[np.float32], y: NDArray[np.int32]) -> tuple[float, Doubles]:
    """Mean cross-entropy and its gradient in float64, by hand-written formulas."""
    params = [param.values.astype(np.float64) for param in net.params]
    buffers = forward(net, params, x)
    shifted = buffers[-1] - buffers[-1].max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    loss = float(-log_p[rows, y].mean())
    deltas = [np.zeros_like(buffer) for buffer in buffers]
    deltas[-1] = np.exp(log_p)
    deltas[-1][rows, y] -= 1.0
    deltas[-1] /= len(y)
    gradients = [np.zeros_like(param) for param in params]
    for index in reversed(range(len(net.nodes))):
        node, delta = net.nodes[index], deltas[index + 1]
        if node.op == LINEAR:
            gradients[node.params[0]] = delta.T @ buffers[node.inputs[0]]
            if len(node.params) == 2:
                gradients[node.params[1]] = delta.sum(axis=0).reshape(-1, 1)
            deltas[node.inputs[0]] += delta @ params[node.params[0]]
        elif node.op == RELU:
            deltas[node.inputs[0]] += delta * (buffers[index + 1] > 0)
        else:
            for source in node.inputs:
                deltas[source] += delta
    return loss, stored(net, gradients)


def stored(net: Net, matrices: list[Doubles]) -> Doubles:
    """Dense matrices -> the floats that an artifact keeps."""
    parts = [m.ravel() if p.mask is None else m[p.mask] for p, m in zip(net.params, matrices, strict=True)]
    return np.concatenate(parts)


@contextmanager
def one_thread() -> Iterator[None]:
    """So small a network is ten times slower where PyTorch's threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchNet:
    """The network in PyTorch, float64, with pruned weights held at zero by masks; `step` is PyTorch's own optimizer."""

    def __init__(self, net: Net, recipe: Recipe | None = None) -> None:
        self.net = net
        self.params = [torch.tensor(p.values, dtype=torch.float64, requires_grad=True) for p in net.params]
        self.masks = [None if p.mask is None else torch.tensor(p.mask) for p in net.params]
        recipe = recipe or net.recipe
        names = ("learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon")
        rate, momentum, decay, beta1, beta2, epsilon = (float(np.float32(getattr(recipe, name))) for name in names)
        self.optimizer: torch.optim.Optimizer
        if recipe.optimizer == ADAM:
            betas = (beta1, beta2)
            self.optimizer = torch.optim.Adam(self.params, lr=rate, betas=betas, eps=epsilon, weight_decay=decay)
        else:
            self.optimizer = torch.optim.SGD(self.params, lr=rate, momentum=momentum, weight_decay=decay)

    def loss(self, x: NDArray[np.float32], y: NDArray[np.int32]) -> torch.Tensor:
        buffers = [torch.from_numpy(normalised(self.net, x))]
        for node in self.net.nodes:
            source = buffers[node.inputs[0]]
            if node.op == LINEAR:
                bias = self.params[node.params[1]].flatten() if len(node.params) == 2 else None
                value = torch.nn.functional.linear(source, self._masked(node.params[0]), bias)
            elif node.op == RELU:
                value = torch.relu(source)
            elif node.op == FLATTEN:
                value = source
            else:
                value = source + buffers[node.inputs[1]]
            buffers.append(value)
        return torch.nn.functional.cross_entropy(buffers[-1], torch.from_numpy(y.astype(np.int64)))

    def loss_and_gradients(self, x: NDArray[np.float32], y: NDArray[np.int32]) -> tuple[float, Doubles]:
        with one_thread():
            loss = self.loss(x, y)
            found = torch.autograd.grad(loss, self.params, allow_unused=True)
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(self.params, found, strict=True)]
        return float(loss.detach()), stored(self.net, [gradient.numpy() for gradient in dense])

    def step(self, x: NDArray[np.float32], y: NDArray[np.int32]) -> float:
        self.optimizer.zero_grad()
        with one_thread():
            loss = self.loss(x, y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return float(loss.detach())

    @property
    def values(self) -> Doubles:
        return stored(self.net, [param.detach().numpy() for param in self.params])

    def _masked(self, index: int) -> torch.Tensor:
        mask = self.masks[index]
        return self.params[index] if mask is None else self.params[index] * mask
