"""Every operator in float64 by plain numpy formulas, forward and backward: the reference of the reference.

An operator is a function of a node, its inputs (batch, *shape) and parameters (dense, as the format has them) that returns
the output and a function from the output's gradient to those of inputs and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.tkt_writer import Node

Doubles = NDArray[np.float64]
Gradients = tuple[list[Doubles], list[Doubles]]  # of inputs, of parameters
Result = tuple[Doubles, Callable[[Doubles], Gradients]]


@dataclass(frozen=True)
class Call:
    node: Node
    inputs: list[Doubles]
    params: list[Doubles]
    shape: tuple[int, ...]  # of the output, without the batch
    training: bool


def run(call: Call) -> Result:
    return OPERATORS[call.node.op](call)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _elementwise(value: Callable[[Doubles], Any], slope: Callable[[Doubles], Any]) -> Callable[[Call], Result]:
    def operator(call: Call) -> Result:
        (x,) = call.inputs
        return value(x), lambda dy: ([dy * slope(x)], [])

    return operator


def _sigmoid(x: Doubles) -> Doubles:
    return 1.0 / (1.0 + np.exp(-x))


def _leaky_relu(call: Call) -> Result:
    (slope,) = np.array(call.node.attrs, np.float32).astype(np.float64)
    return _elementwise(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope))(call)


def _gelu(call: Call) -> Result:
    if call.node.attrs[0] == 0:
        return _elementwise(lambda x: x * _below(x), lambda x: _below(x) + x * _density(x))(call)
    root = math.sqrt(2.0 / math.pi)

    def inner(x: Doubles) -> Doubles:
        return np.tanh(root * (x + 0.044715 * x**3))

    def slope(x: Doubles) -> Doubles:
        return 0.5 * (1 + inner(x)) + 0.5 * x * (1 - inner(x) ** 2) * root * (1 + 3 * 0.044715 * x * x)

    return _elementwise(lambda x: 0.5 * x * (1.0 + inner(x)), slope)(call)


def _below(x: Doubles) -> Doubles:
    """P(X <= x) for a standard normal X."""
    return np.asarray(0.5 * (1.0 + _erf(x / math.sqrt(2.0))), np.float64)


def _density(x: Doubles) -> Doubles:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi), np.float64)


def _linear(call: Call) -> Result:
    (x,), (weight, *bias) = call.inputs, call.params
    y = x @ weight.T + (bias[0].ravel() if bias else 0.0)
    return y, lambda dy: ([dy @ weight], [dy.T @ x, *([dy.sum(axis=0)[:, None]] if bias else [])])


def _reshape(call: Call) -> Result:
    (x,) = call.inputs
    return x.reshape(len(x), *call.shape), lambda dy: ([dy.reshape(x.shape)], [])


def _add(call: Call) -> Result:
    return call.inputs[0] + call.inputs[1], lambda dy: ([dy, dy], [])


def _mul(call: Call) -> Result:
    a, b = call.inputs
    return a * b, lambda dy: ([dy * b, dy * a], [])


def _concat(call: Call) -> Result:
    ends = np.cumsum([x.shape[1] for x in call.inputs])[:-1]
    return np.concatenate(call.inputs, axis=1), lambda dy: (np.split(dy, ends, axis=1), [])


def _image(x: Doubles) -> Doubles:
    """(batch, channels, height, width)"""
    return x if x.ndim == 4 else x[:, :, None, :]


@dataclass(frozen=True)
class Window:
    """Where a kernel's taps lie in a padded image."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    out: tuple[int, int]

    def taps(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                at = [
                    slice(k * d, k * d + (n - 1) * s + 1, s)
                    for k, d, s, n in zip((ky, kx), self.dilation, self.stride, self.out, strict=True)
                ]
                yield ky, kx, (at[0], at[1])

    def padded(self, x: Doubles, value: float = 0.0) -> Doubles:
        (p, q) = self.pad
        return np.pad(x, ((0, 0), (0, 0), (p, p), (q, q)), constant_values=value)

    def cropped(self, x: Doubles) -> Doubles:
        (p, q), (h, w) = self.pad, x.shape[2:]
        return x[:, :, p : h - p, q : w - q]


def _window(call: Call) -> Window:
    attrs = [int(a) for a in call.node.attrs[:8]] + [1, 1]
    dilation = (attrs[6], attrs[7]) if call.node.op == ops.CONV else (1, 1)
    shape = call.shape if len(call.shape) == 3 else (call.shape[0], 1, call.shape[1])
    return Window((attrs[0], attrs[1]), (attrs[2], attrs[3]), (attrs[4], attrs[5]), dilation, (shape[1], shape[2]))


def _conv(call: Call) -> Result:
    weight, *bias = call.params
    groups, w = int(call.node.attrs[8]), _window(call)
    x = w.padded(_image(call.inputs[0]))
    kernel = weight.reshape(len(weight), -1, *w.kernel)
    outs, ins = np.split(np.arange(len(weight)), groups), np.split(np.arange(x.shape[1]), groups)
    y = np.zeros((len(x), len(weight), *w.out))
    for out, inside in zip(outs, ins, strict=True):
        for ky, kx, (rows, columns) in w.taps():
            y[:, out] += np.einsum("oc,nchw->nohw", kernel[out, :, ky, kx], x[:, inside, rows, columns])
    if bias:
        y += bias[0].reshape(1, -1, 1, 1)

    def backward(dy: Doubles) -> Gradients:
        dy = _image(dy)
        dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
        for out, inside in zip(outs, ins, strict=True):
            for ky, kx, (rows, columns) in w.taps():
                part = x[:, inside, rows, columns]
                dkernel[out, :, ky, kx] = np.einsum("nohw,nchw->oc", dy[:, out], part)
                back = np.einsum("oc,nohw->nchw", kernel[out, :, ky, kx], dy[:, out])
                dx[:, inside[0] : inside[-1] + 1, rows, columns] += back
        dbias = [dy.sum(axis=(0, 2, 3))[:, None]] if bias else []
        return [w.cropped(dx).reshape(call.inputs[0].shape)], [dkernel.reshape(weight.shape), *dbias]

    return y.reshape(len(x), *call.shape), backward


def _max_pool(call: Call) -> Result:
    w = _window(call)
    x = w.padded(_image(call.inputs[0]), -np.inf)
    stack = np.stack([x[:, :, rows, columns] for _, _, (rows, columns) in w.taps()])
    winner = stack.argmax(axis=0)

    def backward(dy: Doubles) -> Gradients:
        dx = np.zeros_like(x)
        for number, (_, _, (rows, columns)) in enumerate(w.taps()):
            dx[:, :, rows, columns] += np.where(winner == number, _image(dy), 0.0)
        return [w.cropped(dx).reshape(call.inputs[0].shape)], []

    return stack.max(axis=0).reshape(len(x), *call.shape), backward


def _avg_pool(call: Call) -> Result:
    w = _window(call)
    x = w.padded(_image(call.inputs[0]))
    inside = w.padded(np.ones_like(_image(call.inputs[0])))
    count = np.stack([inside[:, :, rows, columns] for _, _, (rows, columns) in w.taps()]).sum(axis=0)
    divisor = np.full_like(count, math.prod(w.kernel)) if call.node.attrs[6] else count
    y = np.stack([x[:, :, rows, columns] for _, _, (rows, columns) in w.taps()]).sum(axis=0) / divisor

    def backward(dy: Doubles) -> Gradients:
        dx = np.zeros_like(x)
        for _, _, (rows, columns) in w.taps():
            dx[:, :, rows, columns] += _image(dy) / divisor
        return [w.cropped(dx).reshape(call.inputs[0].shape)], []

    return y.reshape(len(x), *call.shape), backward


def _global_avg_pool(call: Call) -> Result:
    (x,) = call.inputs
    axes = tuple(range(2, x.ndim))
    size = math.prod(x.shape[2:])
    shape = (*x.shape[:2], *[1] * len(axes))
    return x.mean(axis=axes), lambda dy: ([np.broadcast_to(dy.reshape(shape) / size, x.shape)], [])


def _batch_norm(call: Call) -> Result:
    (x,), (weight, bias, mean, var) = call.inputs, [p.ravel() for p in call.params]
    epsilon, frozen = float(np.float32(call.node.attrs[0])), bool(call.node.attrs[2])
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    n = x.size // x.shape[1]
    batch = call.training and not frozen and n > 1
    if batch:
        mean, var = x.mean(axis=axes), x.var(axis=axes)
    inverse = (1.0 / np.sqrt(var + epsilon)).reshape(shape)
    normal = (x - mean.reshape(shape)) * inverse
    scale = weight.reshape(shape)

    def backward(dy: Doubles) -> Gradients:
        dweight, dbias = (dy * normal).sum(axis=axes), dy.sum(axis=axes)
        dx = scale * inverse * dy
        if batch:
            dx = scale * inverse * (dy - dbias.reshape(shape) / n - normal * dweight.reshape(shape) / n)
        return [dx], [dweight[:, None], dbias[:, None], np.zeros_like(dweight)[:, None], np.zeros_like(dbias)[:, None]]

    return normal * scale + bias.reshape(shape), backward


def _layer_norm(call: Call) -> Result:
    (x,) = call.inputs
    epsilon, dimensions = float(np.float32(call.node.attrs[0])), int(call.node.attrs[1])
    flat = x.reshape(len(x), -1, math.prod(x.shape[x.ndim - dimensions :]))
    inverse = 1.0 / np.sqrt(flat.var(axis=2, keepdims=True) + epsilon)
    normal = (flat - flat.mean(axis=2, keepdims=True)) * inverse
    weight, bias = (p.ravel() for p in call.params) if call.params else (1.0, 0.0)

    def backward(dy: Doubles) -> Gradients:
        dy = dy.reshape(flat.shape)
        d = dy * weight
        dx = inverse * (d - d.mean(axis=2, keepdims=True) - normal * (d * normal).mean(axis=2, keepdims=True))
        dparams = [(dy * normal).sum(axis=(0, 1))[:, None], dy.sum(axis=(0, 1))[:, None]] if call.params else []
        return [dx.reshape(x.shape)], dparams

    return (normal * weight + bias).reshape(x.shape), backward


def _softmax(call: Call) -> Result:
    (x,) = call.inputs
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, lambda dy: ([y * (dy - (y * dy).sum(axis=1, keepdims=True))], [])


def _embedding(call: Call) -> Result:
    (x,), (table,) = call.inputs, call.params
    index = x.astype(np.int64)

    def backward(dy: Doubles) -> Gradients:
        gradient = np.zeros_like(table)
        np.add.at(gradient, index.ravel(), dy.reshape(-1, table.shape[1]))
        return [np.zeros_like(x)], [gradient]

    return table[index], backward


def _dropout(call: Call) -> Result:
    """Only where it does nothing: what it drops is the device's own choice."""
    assert not call.training or call.node.attrs[0] == 0
    return call.inputs[0], lambda dy: ([dy], [])


OPERATORS: dict[int, Callable[[Call], Result]] = {
    ops.LINEAR: _linear,
    ops.RELU: _elementwise(lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0, 1.0, 0.0)),
    ops.RESHAPE: _reshape,
    ops.ADD: _add,
    ops.MUL: _mul,
    ops.CONCAT: _concat,
    ops.CONV: _conv,
    ops.BATCH_NORM: _batch_norm,
    ops.LAYER_NORM: _layer_norm,
    ops.LEAKY_RELU: _leaky_relu,
    ops.RELU6: _elementwise(lambda x: np.clip(x, 0.0, 6.0), lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0)),
    ops.HARDSWISH: _elementwise(
        lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
        lambda x: np.where(x < -3, 0.0, np.where(x > 3, 1.0, x / 3.0 + 0.5)),
    ),
    ops.SIGMOID: _elementwise(_sigmoid, lambda x: _sigmoid(x) * (1.0 - _sigmoid(x))),
    ops.TANH: _elementwise(np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    ops.GELU: _gelu,
    ops.MAX_POOL: _max_pool,
    ops.AVG_POOL: _avg_pool,
    ops.GLOBAL_AVG_POOL: _global_avg_pool,
    ops.SOFTMAX: _softmax,
    ops.EMBEDDING: _embedding,
    ops.DROPOUT: _dropout,
}
