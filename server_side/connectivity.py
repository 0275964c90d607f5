"""Linear mode connectivity: the error along the straight line between two trained networks (Frankle et al. 2020).

The instability of a network is that of two trainings from the same weights under different orders of the samples: the
largest error on the line, less the mean of the errors at its ends. As many points are evaluated at once, as one batched
program, as a device has room for.

Every value that the two networks hold is interpolated, running statistics of batch norm like weights: the paper's
definition sets none apart. They are not estimated anew on the line, so with batch norm a part of a high error may be theirs
(Jordan et al. 2022, "REPAIR").
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap

from server_side.controls import Values

POINTS = 30  # evenly spaced, ends included, as in the paper
EVALUATION_BATCH = 1000
# Of one layer's output. A CPU is several times faster where it stays in a cache; a GPU's was not measured.
LAYER_BYTES = {"cpu": 4 * 2**20, "cuda": 2**30}

Tensors = dict[str, torch.Tensor]
ErrorOf = Callable[[Tensors], torch.Tensor]


def instability(errors: NDArray[np.float64]) -> float:
    """Rise of the `errors` along a line above the mean of its ends, a fraction of 1; never below 0. The paper calls a network
    stable below 0.02."""
    return float(errors.max() - (errors[0] + errors[-1]) / 2)


def along_line(
    first: Values,
    second: Values,
    error: ErrorOf,
    points: int = POINTS,
    device: torch.device | str = "cpu",
    at_once: int = POINTS,
) -> NDArray[np.float64]:
    """(points,) `error` at evenly spaced places from `first` to `second`, whose bits the ends have.

    `error` takes the values of one network, on `device`, and gives a scalar; it is called for `at_once` points together,
    under torch.func.vmap, so it may not branch on a value. Raises ValueError where the two networks do not fit together.
    """
    if points < 2:
        raise ValueError(f"points {points}: a line has two ends; take at least 2")
    _check_alike(first, second)
    with torch.no_grad():
        line = {name: _line(first[name], second[name], points).to(device) for name in first}
        errors: torch.Tensor = vmap(error, chunk_size=at_once)(line)
    return errors.double().cpu().numpy()


def samples_at_once(module: nn.Module, x: torch.Tensor) -> int:
    """Of `x` (n, ...), as many as the largest output of a layer of `module`, on the device of `x`, has LAYER_BYTES for."""
    largest = x[0].nbytes

    def seen(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.nbytes)

    predicting = copy.deepcopy(module).to(x.device).eval()
    for layer in predicting.modules():
        layer.register_forward_hook(seen)
    with torch.no_grad():
        predicting(x[:1])
    return max(1, LAYER_BYTES[x.device.type] // largest)


def classification_error(module: nn.Module, x: torch.Tensor, y: torch.Tensor, batch: int = EVALUATION_BATCH) -> ErrorOf:
    """The share of samples that `module`, predicting with given values `batch` samples at a time, puts into a wrong class;
    for `along_line`.

    `x` (n, ...) and `y` (n,) are on the device of the values; values that are not given, such as counters, are the module's.
    The module itself is not touched.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"{len(x)} samples and {len(y)} labels; give as many, and at least one")
    predicting = copy.deepcopy(module).to(x.device).eval()

    def error(values: Tensors) -> torch.Tensor:
        wrong = torch.zeros((), dtype=torch.float64, device=x.device)
        for start in range(0, len(x), batch):
            scores = functional_call(predicting, values, (x[start : start + batch],))
            wrong = wrong + (scores.argmax(1) != y[start : start + batch]).double().sum()
        return wrong / len(x)

    return error


def _check_alike(first: Values, second: Values) -> None:
    if first.keys() != second.keys():
        name = min(first.keys() ^ second.keys())
        raise ValueError(f"'{name}' is in one of the two networks only; give two trainings of one network")
    for name, value in first.items():
        if value.shape != second[name].shape:
            raise ValueError(
                f"'{name}': shapes {value.shape} and {second[name].shape}; give two trainings of one network"
            )


def _line(first: NDArray[np.float32], second: NDArray[np.float32], points: int) -> torch.Tensor:
    """(points, ...): lerp keeps the bits of both ends, and of what is the same at both."""
    start, end = torch.from_numpy(first), torch.from_numpy(second)
    share = torch.linspace(0, 1, points, dtype=torch.float64).view(-1, *[1] * start.dim())
    return torch.lerp(start.double(), end.double(), share).to(start.dtype)
