"""What a Network means, in PyTorch: one plain function an operator, its losses and its recipe's optimizer.

For checks, in the precision of the values that are given. In training batch norm takes the batch's statistics and moves the running ones.
Shares nothing with the lowerings to other formats, which it judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from export.card import Normalisation, Recipe
from export.network import Network

Values = Mapping[str, torch.Tensor]


def run(document: Mapping[str, Any], values: Values, samples: torch.Tensor, *, training: bool = False) -> torch.Tensor:
    """Scores `(n, elements)` of normalised samples `(n, *input_shape)`, by the network's JSON; running statistics in `values` are changed in training."""
    buffers = [samples]
    for node in document["nodes"]:
        inputs = [buffers[b] for b in node["inputs"]]
        params = {role: values[name] for role, name in node["params"].items()}
        buffers.append(OPERATORS[node["op"]](inputs, params, node["attrs"], training))
    return buffers[-1]


def normalised(samples: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    """Of raw samples, along the first dimension of each."""
    shape = (-1,) + (1,) * (samples.ndim - 2)
    mean, inverse_std = (
        torch.from_numpy(part).to(samples).reshape(shape) for part in (normalisation.mean, normalisation.inverse_std)
    )
    return (samples - mean) * inverse_std


def loss(network: Network, recipe: Recipe, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean that a step trains by."""
    if network.loss == "mse":
        return F.mse_loss(scores, targets)
    if network.loss == "bce":
        return F.binary_cross_entropy_with_logits(scores, targets)
    weights = None if recipe.class_weights is None else torch.from_numpy(recipe.class_weights).to(scores)
    return F.cross_entropy(scores, targets, weights, label_smoothing=recipe.label_smoothing)


def optimizer(recipe: Recipe, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """At the recipe's own rate; schedule and clipping are the caller's."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, (recipe.beta1, recipe.beta2), recipe.epsilon, decay)


def _conv(x: torch.Tensor, p: Values, a: Any) -> torch.Tensor:
    stride, pad, dilation = (pair(a, name) for name in ("stride", "pad", "dilation"))
    weight = p["weight"] if x.ndim == 4 else p["weight"].unsqueeze(2)  # rank 2: an image of height 1
    return F.conv2d(image(x), weight, p.get("bias"), stride, pad, dilation, a["groups"])


def _batch_norm(x: torch.Tensor, p: Values, a: Any, training: bool) -> torch.Tensor:
    statistics = p["running_mean"], p["running_var"]
    moving = training and not a["frozen"]
    return F.batch_norm(x, *statistics, p["weight"], p["bias"], moving, a["momentum"], a["epsilon"])


def _layer_norm(x: torch.Tensor, p: Values, a: Any) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-a["dimensions"] :], p.get("weight"), p.get("bias"), a["epsilon"])


def _max_pool(x: torch.Tensor, a: Any) -> torch.Tensor:
    return F.max_pool2d(image(x), pair(a, "kernel"), pair(a, "stride"), pair(a, "pad"))


def _avg_pool(x: torch.Tensor, a: Any) -> torch.Tensor:
    windows = pair(a, "kernel"), pair(a, "stride"), pair(a, "pad")
    return F.avg_pool2d(image(x), *windows, count_include_pad=bool(a["count_include_pad"]))


def image(x: torch.Tensor) -> torch.Tensor:
    return x if x.ndim == 4 else x.unsqueeze(2)


def pair(attrs: Any, name: str) -> tuple[int, int]:
    return attrs[f"{name}_h"], attrs[f"{name}_w"]


def _as_before(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return y if x.ndim == 4 else y.squeeze(2)


OPERATORS: Mapping[str, Any] = {
    "linear": lambda x, p, a, t: F.linear(x[0], p["weight"], p.get("bias")),
    "relu": lambda x, p, a, t: F.relu(x[0]),
    "reshape": lambda x, p, a, t: x[0].reshape(len(x[0]), *a["shape"]),
    "add": lambda x, p, a, t: x[0] + x[1],
    "mul": lambda x, p, a, t: x[0] * x[1],
    "concat": lambda x, p, a, t: torch.cat(x, 1),
    "conv": lambda x, p, a, t: _as_before(_conv(x[0], p, a), x[0]),
    "batch_norm": lambda x, p, a, t: _batch_norm(x[0], p, a, t),
    "layer_norm": lambda x, p, a, t: _layer_norm(x[0], p, a),
    "leaky_relu": lambda x, p, a, t: F.leaky_relu(x[0], a["slope"]),
    "relu6": lambda x, p, a, t: F.relu6(x[0]),
    "hardswish": lambda x, p, a, t: F.hardswish(x[0]),
    "sigmoid": lambda x, p, a, t: torch.sigmoid(x[0]),
    "tanh": lambda x, p, a, t: torch.tanh(x[0]),
    "gelu": lambda x, p, a, t: F.gelu(x[0], approximate=("none", "tanh")[a["approximation"]]),
    "max_pool": lambda x, p, a, t: _as_before(_max_pool(x[0], a), x[0]),
    "avg_pool": lambda x, p, a, t: _as_before(_avg_pool(x[0], a), x[0]),
    "global_avg_pool": lambda x, p, a, t: x[0].flatten(2).mean(2),
    "softmax": lambda x, p, a, t: torch.softmax(x[0], 1),
    "embedding": lambda x, p, a, t: F.embedding(x[0].long(), p["weight"]),
    "dropout": lambda x, p, a, t: F.dropout(x[0], a["probability"], t),
}
