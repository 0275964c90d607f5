"""What every prunable weight is worth at initialisation or early in training; prune.py keeps the highest scores.

`magnitude` |w|, `random`, `snip` |g w| (Lee et al. 2019), `grasp` w (H g) (Wang et al. 2020), `synflow` w dR/dw of the
network with absolute weights (Tanaka et al. 2020). Weights are values * masks, and the score of a pruned one is 0. The
module is copied before it is used: neither it, nor the values, nor torch's random state change. Scores that are not finite
are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from server_side.errors import UsageError
from server_side.prune import Masks
from server_side.seeds import generator

Criterion = Literal["magnitude", "random", "snip", "grasp", "synflow"]
Values = Mapping[str, NDArray[np.floating[Any]]]
Scores = dict[str, NDArray[np.floating[Any]]]
Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Stack = dict[str, torch.Tensor]
GRASP_TEMPERATURE = 200.0  # of the authors' code
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def score(
    criterion: Criterion,
    module: nn.Module,
    values: Values,
    masks: Masks,
    batches: Batches,
    *,
    seed: int,
    loss: Loss = F.cross_entropy,
) -> Scores:
    """The scores of the weights in `masks` by `criterion`: `synflow` takes from `batches` (x, y) the shape of a sample alone,
    `random` alone takes the seed. What is differentiated runs on the device of x."""
    if criterion == "magnitude":
        found = magnitude(values, masks)
    elif criterion == "random":
        found = random(masks, seed)
    elif criterion == "snip":
        found = snip(module, values, masks, batches, loss)
    elif criterion == "grasp":
        found = grasp(module, values, masks, batches, loss)
    elif criterion == "synflow":
        x = batches[0][0]
        found = synflow(module, values, masks, tuple(x.shape[1:]), x.device)
    else:
        raise UsageError(f"criterion '{criterion}' is not known; known are {', '.join(get_args(Criterion))}")
    for name, scores in found.items():
        if not np.isfinite(scores).all():
            raise UsageError(
                f"criterion {criterion}: '{name}' has scores that are NaN or infinite; take another criterion"
            )
    return found


def magnitude(values: Values, masks: Masks) -> Scores:
    """|w|."""
    return {name: np.abs(values[name]) * mask for name, mask in masks.items()}


def random(masks: Masks, seed: int) -> Scores:
    """Uniform in [0, 1), float64: the same for a weight whatever is pruned, so that masks of falling density are nested."""
    return {name: mask * generator(seed, "random-score", name).random(mask.shape) for name, mask in masks.items()}


def snip(module: nn.Module, values: Values, masks: Masks, batches: Batches, loss: Loss = F.cross_entropy) -> Scores:
    """|g w|, to first order how much the loss changes when the connection is removed; g is the gradient of the mean over
    `batches`. Batch norm takes the statistics of each batch, dropout is off."""
    net = _Copy(module, values, masks, batches[0][0].device, batch_statistics=True)
    gradients = _mean(batches, lambda x, y: net.gradients(loss(net(x), y)))
    return _as_numpy({name: (gradient * net.weights[name]).abs() for name, gradient in gradients.items()})


def grasp(
    module: nn.Module,
    values: Values,
    masks: Masks,
    batches: Batches,
    loss: Loss = F.cross_entropy,
    temperature: float = GRASP_TEMPERATURE,
) -> Scores:
    """w (H g), with gradient g and Hessian H of the mean loss over `batches`, by the live weights of `masks` alone, and the
    outputs divided by `temperature`.

    Sign: removing weight i changes the squared norm of the gradient by -2 w_i (H g)_i to first order. The paper scores
    -w (H g) and keeps the LOWEST, whose removal would cost the most gradient flow; here that is w (H g) and the highest stay.
    A score may be negative, and its size alone says nothing.
    """
    net = _Copy(module, values, masks, batches[0][0].device, batch_statistics=True)

    def cooled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(net(x) / temperature, y)

    gradients = _mean(batches, lambda x, y: net.gradients(cooled(x, y)))

    def product(x: torch.Tensor, y: torch.Tensor) -> Stack:
        there = net.gradients(cooled(x, y), create_graph=True)
        return net.gradients(torch.stack([(there[name] * g).sum() for name, g in gradients.items()]).sum())

    products = _mean(batches, product)
    return _as_numpy({name: product * net.weights[name] for name, product in products.items()})


def synflow(
    module: nn.Module, values: Values, masks: Masks, input_shape: tuple[int, ...], device: torch.device
) -> Scores:
    """w dR/dw, where R is the sum of the outputs for an input of ones, and every parameter its absolute value; float64.

    Between layers of a homogeneous network without biases the scores have equal sums. Batch norm works in eval mode, its
    parameters absolute as the authors have it; its mean counts as 0, which it is at initialisation, as subtracting one
    would break what the method rests on: that everything is positive. ReLU6 counts as ReLU: the method is defined for
    activations with f(cx) = c f(x) for c > 0, which ReLU6 is as far as it does not saturate, and weights that all add up
    drive it far beyond 6, where nothing flows back. Raises UsageError where something else stops the flow.
    """
    absolute = {name: np.abs(value).astype(np.float64) for name, value in values.items()}
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            absolute[name] = np.zeros(tuple(buffer.shape))
    net = _Copy(module, absolute, masks, device, batch_statistics=False)
    ones = torch.ones(1, *input_shape, dtype=torch.float64, device=device)
    with _Unsaturated():
        outputs = net(ones).sum()
    flow = {name: gradient * net.weights[name] for name, gradient in net.gradients(outputs).items()}
    for name, scores in flow.items():
        if (scores < 0).any() or not (scores > 0).any():
            raise UsageError(
                f"criterion synflow: no flow through '{name}' that is positive throughout; it needs a network that grows with "
                "its inputs (no layer norm, softmax or saturated activation) and that the masks leave connected"
            )
    return _as_numpy(flow)


class _Unsaturated(TorchFunctionMode):
    """ReLU6 computes ReLU, as a module or a function; as a module it is hardtanh from 0 to 6."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        bounds = (named.get("min_val"), named.get("max_val"))
        if func is F.relu6 or (func is F.hardtanh and bounds == (0, 6)):
            return F.relu(args[0])
        return func(*args, **named)


class _Copy:
    """A copy of a module, called with masked weights and differentiated by them; the copy alone changes."""

    def __init__(
        self, module: nn.Module, values: Values, masks: Masks, device: torch.device, *, batch_statistics: bool
    ) -> None:
        if missing := sorted({name for name, _ in module.named_parameters()} - set(values)):
            raise UsageError(f"values: parameter '{missing[0]}' is missing; give all of the module's")
        self.state = {name: torch.tensor(value, device=device) for name, value in values.items()}
        self.masks = {name: torch.tensor(mask, device=device) for name, mask in masks.items()}
        self.weights = {name: (self.state[name] * mask).requires_grad_() for name, mask in self.masks.items()}
        self.module = copy.deepcopy(module).to(device, next(iter(self.weights.values())).dtype).eval()
        for part in self.module.modules():
            if isinstance(part, BATCH_NORMS):
                part.training = batch_statistics

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        masked = {name: weight * self.masks[name] for name, weight in self.weights.items()}
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            outputs: torch.Tensor = functional_call(self.module, {**self.state, **masked}, (x,))
        return outputs

    def gradients(self, of: torch.Tensor, create_graph: bool = False) -> Stack:
        """By the weights; 0 where they are pruned."""
        weights = tuple(self.weights.values())
        found = torch.autograd.grad(of, weights, create_graph=create_graph, materialize_grads=True)
        return dict(zip(self.weights, found, strict=True))


def _mean(batches: Batches, derivative: Callable[[torch.Tensor, torch.Tensor], Stack]) -> Stack:
    total: Stack = {}
    for x, y in batches:
        for name, part in derivative(x, y).items():
            total[name] = total[name] + part if name in total else part
    return {name: value / len(batches) for name, value in total.items()}


def _as_numpy(scores: Stack) -> Scores:
    return {name: value.detach().cpu().numpy() for name, value in scores.items()}
