"""The operators as torch functions of a batch, in a spelling that ExecuTorch 1.4.1 differentiates correctly.

Its own max-pool gives wrong gradients, its Conv1d fails at run time and its batch norm cannot be exported in training, so
windows are made of shifted views and norms of sums. Arithmetic as in FORMAT.md but for the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn import functional as F

from export.network import Node

Tensor = torch.Tensor


@dataclass(frozen=True)
class Call:
    """One node at work. `present` (batch,) in training: 1 for a sample, 0 for what only fills the batch up; None at
    inference. `kept` (as the input): what a dropout multiplies by."""

    node: Node
    inputs: list[Tensor]
    params: Mapping[str, Tensor]
    present: Tensor | None
    kept: Tensor | None = None

    @property
    def x(self) -> Tensor:
        return self.inputs[0]

    def pair(self, name: str) -> tuple[int, int]:
        """Along height and width."""
        return self.node.whole(f"{name}_h"), self.node.whole(f"{name}_w")


def batch_norm(call: Call) -> tuple[Tensor, list[Tensor]]:
    """What the node writes, and in training its new running statistics: over the samples that are present."""
    x, p, axes = call.x, call.params, (0, 2, 3)[: call.x.ndim - 1]
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var, moved = p["running_mean"], p["running_var"], list[Tensor]()
    if moves(call.node) and call.present is not None:
        there = call.present.reshape(-1, *[1] * (x.ndim - 1))
        positions = math.prod(x.shape[2:])
        count = call.present.sum() * positions
        of_batch = (x * there).sum(axes) / count
        off = (x - of_batch.reshape(shape)) * there
        spread = (off * off).sum(axes) / count
        unbiased = spread * (count / torch.clamp(count - 1, min=1.0))
        if positions == 1:  # one value alone has no spread: the running statistics serve, and stay
            several = (count > 1.5).expand(len(mean))
            of_batch, spread = torch.where(several, of_batch, mean), torch.where(several, spread, var)
            unbiased = torch.where(several, unbiased, var)
        momentum = call.node.real("momentum")
        moved = [(mean + momentum * (of_batch - mean)).detach(), (var + momentum * (unbiased - var)).detach()]
        mean, var = of_batch, spread
    scale = torch.rsqrt(var + call.node.real("epsilon")) * p["weight"]
    return (x - mean.reshape(shape)) * scale.reshape(shape) + p["bias"].reshape(shape), moved


def moves(node: Node) -> bool:
    """Whether a node's running statistics move in training."""
    return node.op == "batch_norm" and not node.whole("frozen")


def _conv(call: Call) -> Tensor:
    """A product of matrices, which ExecuTorch has fast kernels for: ten times as fast as its own convolution and gradient."""
    weight, groups = call.params["weight"], call.node.whole("groups")
    views = _views(call, _padded(call, 0.0), call.pair("dilation"))
    (batch, channels, height, width), filters = views[0].shape, len(weight) // groups
    windows = torch.stack(views, 2).reshape(batch * groups, channels // groups * len(views), height * width)
    matrix = weight.reshape(groups, filters, -1).expand(batch, -1, -1, -1).reshape(batch * groups, filters, -1)
    y = torch.bmm(matrix, windows).reshape(batch, len(weight), height, width)
    return _as_before(y + call.params["bias"].reshape(-1, 1, 1) if "bias" in call.params else y, call.x)


def _max_pool(call: Call) -> Tensor:
    """The gradient goes to the first element equal to the maximum."""
    views = _views(call, _padded(call, -math.inf))
    return _as_before(reduce(lambda best, x: torch.where(x > best, x, best), views), call.x)


def _avg_pool(call: Call) -> Tensor:
    total = reduce(torch.add, _views(call, _padded(call, 0.0)))
    if call.node.whole("count_include_pad"):
        return _as_before(total * (1 / math.prod(call.pair("kernel"))), call.x)
    inside = torch.ones((1, 1, *_image(call.x).shape[2:]))
    counts = reduce(torch.add, _views(call, _filled_up(inside, *call.pair("pad"), 0.0)))
    return _as_before(total * (1 / counts), call.x)


def _padded(call: Call, filling: float) -> Tensor:
    return _filled_up(_image(call.x), *call.pair("pad"), filling)


def _filled_up(x: Tensor, height: int, width: int, filling: float) -> Tensor:
    """By concatenation: the gradient of torch's own padding is padding by less than nothing."""
    for axis, pad in ((2, height), (3, width)):
        if pad:
            edge = torch.full([pad if at == axis else extent for at, extent in enumerate(x.shape)], filling)
            x = torch.cat([edge, x, edge], axis)
    return x


def _views(call: Call, x: Tensor, dilation: tuple[int, int] = (1, 1)) -> list[Tensor]:
    """For each place of the window, by lines, what lies there in every window."""
    (kernel_h, kernel_w), (stride_h, stride_w) = call.pair("kernel"), call.pair("stride")
    starts_h, starts_w = range(0, kernel_h * dilation[0], dilation[0]), range(0, kernel_w * dilation[1], dilation[1])
    height, width = (x.shape[2] - starts_h[-1] - 1) // stride_h, (x.shape[3] - starts_w[-1] - 1) // stride_w
    return [
        x[:, :, i : i + height * stride_h + 1 : stride_h, j : j + width * stride_w + 1 : stride_w]
        for i in starts_h
        for j in starts_w
    ]


def _layer_norm(call: Call) -> Tensor:
    axes = tuple(range(-call.node.whole("dimensions"), 0))
    off = call.x - call.x.mean(axes, keepdim=True)
    y = off * torch.rsqrt((off * off).mean(axes, keepdim=True) + call.node.real("epsilon"))
    return y * call.params["weight"] + call.params["bias"] if call.params else y


def _reshape(call: Call) -> Tensor:
    shape = call.node.attrs["shape"]
    assert isinstance(shape, tuple)
    return call.x.reshape(call.x.shape[0], *shape)


def _gelu(call: Call) -> Tensor:
    return F.gelu(call.x, approximate=("none", "tanh")[call.node.whole("approximation")])


def _image(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x.unsqueeze(2)


def _as_before(y: Tensor, x: Tensor) -> Tensor:
    return y if x.ndim == 4 else y.squeeze(2)


OPERATORS: Mapping[str, Callable[[Call], Tensor]] = {
    "linear": lambda call: F.linear(call.x, call.params["weight"], call.params.get("bias")),
    "relu": lambda call: F.relu(call.x),
    "reshape": _reshape,
    "add": lambda call: call.inputs[0] + call.inputs[1],
    "mul": lambda call: call.inputs[0] * call.inputs[1],
    "concat": lambda call: torch.cat(call.inputs, 1),
    "conv": _conv,
    "layer_norm": _layer_norm,
    "leaky_relu": lambda call: F.leaky_relu(call.x, call.node.real("slope")),
    "relu6": lambda call: F.relu6(call.x),
    "hardswish": lambda call: F.hardswish(call.x),
    "sigmoid": lambda call: torch.sigmoid(call.x),
    "tanh": lambda call: torch.tanh(call.x),
    "gelu": _gelu,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda call: _image(call.x).mean((2, 3)),
    "softmax": lambda call: torch.softmax(call.x, 1),
    "embedding": lambda call: call.params["weight"][call.x.to(torch.int64)],
    "dropout": lambda call: call.x if call.kept is None else call.x * call.kept,
}
