"""The same networks in float64: forward and backward by plain numpy formulas, and forward in PyTorch for its autograd.

Gradients and values come in the artifact's order: live weights in CSR order, dense ones row-major; gradients without those
of running statistics, which have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tests.device_runtime import numpy_operators
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.numpy_operators import Call, Doubles, Gradients
from tests.device_runtime.tkt_writer import Net, Node, Recipe

Backward = Callable[[Doubles], Gradients]
Targets = NDArray[np.int32] | NDArray[np.float32]


def normalised(net: Net, x: NDArray[np.float32]) -> Doubles:
    """(batch, *input shape)"""
    channels = len(net.mean)
    flat = x.reshape(len(x), channels, -1).astype(np.float64)
    mean, inverse_std = (np.array(v, np.float32).astype(np.float64)[:, None] for v in (net.mean, net.inverse_std))
    return ((flat - mean) * inverse_std).reshape(len(x), *net.shapes[0])


def calls(net: Net, x: NDArray[np.float32], *, training: bool = True) -> tuple[list[Doubles], list[Backward]]:
    """Every buffer (batch, *shape), and every node's way back."""
    params = [param.values.astype(np.float64) for param in net.params]
    buffers: list[Doubles] = [normalised(net, x)]
    back: list[Backward] = []
    for node, shape in zip(net.nodes, net.shapes[1:], strict=True):
        call = Call(node, [buffers[b] for b in node.inputs], [params[p] for p in node.params], shape, training)
        value, backward = numpy_operators.run(call)
        buffers.append(value)
        back.append(backward)
    return buffers, back


def forward(net: Net, x: NDArray[np.float32], *, training: bool = True) -> list[Doubles]:
    return calls(net, x, training=training)[0]


def numpy_loss(net: Net, z: Doubles, y: Targets) -> tuple[float, Doubles]:
    """The mean loss of the recipe, and its gradient by z."""
    if net.loss == ops.MSE:
        return float(np.mean((z - y) ** 2)), 2.0 * (z - y) / z.size
    if net.loss == ops.BCE:
        loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
        return float(loss.mean()), (1.0 / (1.0 + np.exp(-z)) - y) / z.size
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    classes = z.shape[1]
    weights = np.ones(classes) if net.class_weights is None else np.array(net.class_weights, np.float32).astype(float)
    smoothing = float(np.float32(net.recipe.label_smoothing))
    aim = np.eye(classes)[y] * (1.0 - smoothing) * weights[y][:, None] + smoothing / classes * weights
    total = weights[y].sum()
    gradient = (np.exp(log_p) * aim.sum(axis=1, keepdims=True) - aim) / total
    return float(-(aim * log_p).sum() / total), gradient


def loss_and_gradients(net: Net, x: NDArray[np.float32], y: Targets) -> tuple[float, Doubles]:
    """By hand-written formulas in float64."""
    buffers, back = calls(net, x)
    loss, delta = numpy_loss(net, buffers[-1], y)
    return loss, gradients_of(net, back, delta)


def gradients_of(net: Net, back: list[Backward], delta: Doubles) -> Doubles:
    """All nodes' ways back, from the gradient of the last buffer."""
    deltas = [np.zeros((len(delta), *shape)) for shape in net.shapes]
    deltas[-1] = delta
    gradients = [np.zeros(param.values.shape) for param in net.params]
    for index in reversed(range(len(net.nodes))):
        node = net.nodes[index]
        inputs, params = back[index](deltas[index + 1])
        for buffer, gradient in zip(node.inputs, inputs, strict=True):
            deltas[buffer] = deltas[buffer] + gradient
        for number, gradient in zip(node.params, params, strict=True):
            gradients[number] = gradient
    return stored(net, gradients)


def stored(net: Net, matrices: list[Doubles], *, state: bool = False) -> Doubles:
    """Dense matrices -> the floats that an artifact keeps; running statistics only with `state`."""
    parts = [p.ordered(m) for p, m in zip(net.params, matrices, strict=True) if state or not p.state]
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
        self.net, self.recipe = net, recipe or net.recipe
        self.params = [torch.tensor(p.values, dtype=torch.float64, requires_grad=not p.state) for p in net.params]
        self.masks = [None if p.mask is None else torch.tensor(p.mask) for p in net.params]
        self.trained = [p for p in self.params if p.requires_grad]
        self.optimizer = _optimizer(self.recipe, self.trained)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: _rate_factor(self.recipe, step))

    def outputs(self, x: NDArray[np.float32], *, training: bool = True) -> torch.Tensor:
        buffers = [torch.from_numpy(normalised(self.net, x))]
        for node, shape in zip(self.net.nodes, self.net.shapes[1:], strict=True):
            inputs = [buffers[b] for b in node.inputs]
            buffers.append(self._run(node, inputs, shape, training))
        return buffers[-1]

    def loss(self, x: NDArray[np.float32], y: Targets) -> torch.Tensor:
        z = self.outputs(x)
        if self.net.loss == ops.MSE:
            return functional.mse_loss(z, torch.from_numpy(y.astype(np.float64)))
        if self.net.loss == ops.BCE:
            return functional.binary_cross_entropy_with_logits(z, torch.from_numpy(y.astype(np.float64)))
        weights = self.net.class_weights
        return functional.cross_entropy(
            z,
            torch.from_numpy(y.astype(np.int64)),
            weight=None if weights is None else torch.tensor(np.array(weights, np.float32), dtype=torch.float64),
            label_smoothing=float(np.float32(self.recipe.label_smoothing)),
        )

    def loss_and_gradients(self, x: NDArray[np.float32], y: Targets) -> tuple[float, Doubles]:
        with one_thread():
            loss = self.loss(x, y)
            found = torch.autograd.grad(loss, self.trained, allow_unused=True)
        gradients = iter(torch.zeros_like(p) if g is None else g for p, g in zip(self.trained, found, strict=True))
        dense = [next(gradients) if p.requires_grad else torch.zeros_like(p) for p in self.params]
        return float(loss.detach()), stored(self.net, [gradient.numpy() for gradient in dense])

    def step(self, x: NDArray[np.float32], y: Targets) -> float:
        self.optimizer.zero_grad()
        with one_thread():
            loss = self.loss(x, y)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.recipe.clip_norm > 0:
                torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip_norm)
            self.optimizer.step()
            self.schedule.step()
        return float(loss.detach())

    @property
    def values(self) -> Doubles:
        return stored(self.net, [param.detach().numpy() for param in self.params], state=True)

    def _masked(self, index: int) -> torch.Tensor:
        mask = self.masks[index]
        return self.params[index] if mask is None else self.params[index] * mask

    def _run(self, node: Node, inputs: list[torch.Tensor], shape: tuple[int, ...], training: bool) -> torch.Tensor:
        x, params = inputs[0], [self._masked(p) for p in node.params]
        vectors = [p.flatten() for p in params]
        a = [int(v) for v in node.attrs]
        if node.op == ops.LINEAR:
            return functional.linear(x, params[0], vectors[1] if len(params) == 2 else None)
        if node.op == ops.CONV:
            return _torch_conv(x, params, a).reshape(len(x), *shape)
        if node.op == ops.BATCH_NORM:
            batch = training and not a[2] and x.numel() > x.shape[1]
            mean, var = (p.detach().flatten().clone() for p in params[2:])
            epsilon, momentum = (float(np.float32(a)) for a in node.attrs[:2])
            y = functional.batch_norm(x, mean, var, vectors[0], vectors[1], batch, momentum, epsilon)
            for index, value in zip(node.params[2:], (mean, var), strict=True):
                with torch.no_grad():
                    self.params[index].copy_(value[:, None])
            return y
        if node.op == ops.LAYER_NORM:
            width = shape[len(shape) - a[1] :]
            weight, bias = [v.reshape(width) for v in vectors] if vectors else (None, None)
            return functional.layer_norm(x, width, weight, bias, float(np.float32(node.attrs[0])))
        if node.op == ops.EMBEDDING:
            return functional.embedding(x.long(), params[0])
        if node.op in (ops.MAX_POOL, ops.AVG_POOL):
            image = x if x.ndim == 4 else x[:, :, None, :]
            sides = (a[0], a[1]), (a[2], a[3]), (a[4], a[5])
            if node.op == ops.MAX_POOL:
                return functional.max_pool2d(image, *sides).reshape(len(x), *shape)
            return functional.avg_pool2d(image, *sides, count_include_pad=bool(a[6])).reshape(len(x), *shape)
        return _torch_simple(node, inputs, shape)


def _torch_conv(x: torch.Tensor, params: list[torch.Tensor], a: list[int]) -> torch.Tensor:
    image = x if x.ndim == 4 else x[:, :, None, :]
    weight = params[0].reshape(len(params[0]), -1, a[0], a[1])
    bias = params[1].flatten() if len(params) == 2 else None
    return functional.conv2d(image, weight, bias, (a[2], a[3]), (a[4], a[5]), (a[6], a[7]), a[8])


def _torch_simple(node: Node, inputs: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    x = inputs[0]
    attr = float(np.float32(node.attrs[0])) if node.attrs else 0.0
    values = {
        ops.RELU: lambda: torch.relu(x),
        ops.RESHAPE: lambda: x.reshape(len(x), *shape),
        ops.ADD: lambda: x + inputs[1],
        ops.MUL: lambda: x * inputs[1],
        ops.CONCAT: lambda: torch.cat(inputs, 1),
        ops.LEAKY_RELU: lambda: functional.leaky_relu(x, attr),
        ops.RELU6: lambda: functional.relu6(x),
        ops.HARDSWISH: lambda: functional.hardswish(x),
        ops.SIGMOID: lambda: torch.sigmoid(x),
        ops.TANH: lambda: torch.tanh(x),
        ops.GELU: lambda: functional.gelu(x, approximate="tanh" if attr else "none"),
        ops.GLOBAL_AVG_POOL: lambda: x.flatten(2).mean(2),
        ops.SOFTMAX: lambda: torch.softmax(x, 1),
        ops.DROPOUT: lambda: x,
    }
    return values[node.op]()


def _optimizer(recipe: Recipe, params: list[torch.Tensor]) -> torch.optim.Optimizer:
    names = ("learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon")
    rate, momentum, decay, beta1, beta2, epsilon = (float(np.float32(getattr(recipe, name))) for name in names)
    if recipe.optimizer == ops.SGD:
        return torch.optim.SGD(params, lr=rate, momentum=momentum, weight_decay=decay, nesterov=recipe.nesterov)
    kind = torch.optim.Adam if recipe.optimizer == ops.ADAM else torch.optim.AdamW
    return kind(params, lr=rate, betas=(beta1, beta2), eps=epsilon, weight_decay=decay)


def _rate_factor(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    at, n, end = step - recipe.warmup_steps, recipe.schedule_steps, float(np.float32(recipe.schedule_factor))
    if recipe.schedule == ops.STEP:
        return float(end ** (at // n))
    if recipe.schedule == ops.CONSTANT:
        return 1.0
    done = min(at / n, 1.0)
    left = 0.5 * (1.0 + np.cos(np.pi * done)) if recipe.schedule == ops.COSINE else 1.0 - done
    return float(end + (1.0 - end) * left)
