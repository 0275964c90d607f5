"""Many replicas of one nn.Module as a single batched program: torch.func over parameters stacked on a new axis.

Any module of float32 parameters and buffers: batch norm has running statistics of its own for every replica, dropout draws
for every replica. Knows nothing of jobs, masks or optimizers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from export.network import Network
from server_side.distillation import Setting, distilled_loss

Stack = dict[str, torch.Tensor]  # (replicas, *shape) by name
Part = tuple[torch.Tensor, torch.Tensor]  # samples and labels
EVALUATION_BATCH = 1000


class Reparametrisation(Protocol):
    """What is trained in place of a network's own parameters; moving.py has them."""

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers."""

    def in_training(self, values: Stack) -> tuple[Stack, torch.Tensor]:
        """What the network computes with in training, for one replica's parameters, and a penalty to add to its loss."""

    def plain(self, values: Stack) -> Stack:
        """What it computes with otherwise."""


@dataclass(frozen=True)
class Arithmetic:
    """How gradients are computed; evaluations are in float32 and not compiled, as devices compute.

    `precision` bf16-mixed: products of bfloat16 numbers, summed, kept and updated as float32; 32-true and tf32 leave that to
    `same_bits_on`. `compiled`: by torch.compile.
    """

    precision: str = "32-true"
    compiled: bool = False


FLOAT32 = Arithmetic()


class StackedProgram:
    """Losses, gradients and accuracies of stacks of parameters and buffers of `module`, which it takes over."""

    def __init__(
        self,
        module: nn.Module,
        *,
        label_smoothing: float = 0.0,
        trains: Reparametrisation | None = None,
        distils: Setting | None = None,
        draws: bool = False,
        arithmetic: Arithmetic = FLOAT32,
    ) -> None:
        """`draws`: whether its training draws random numbers, as `drops` tells of a network."""
        self.module, self.label_smoothing, self.trains, self.distils = module, label_smoothing, trains, distils
        self.parameter_names = tuple(name for name, _ in module.named_parameters())
        self.draws = draws or (trains is not None and trains.draws)
        self._in_training = [
            part for part in module.modules() if part.training
        ]  # a frozen batch norm is not among them
        self._counters = {n: b for n, b in module.named_buffers() if not b.is_floating_point()}
        self._arithmetic = arithmetic
        if arithmetic.precision == "bf16-mixed":
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):  # stacked, it takes no input of another type
                    part.register_forward_pre_hook(_as_float32)
        differentiated = grad_and_value(self._loss, has_aux=True)
        self._gradients = vmap(differentiated, randomness="different" if self.draws else "error")
        if arithmetic.compiled:
            self._gradients = torch.compile(self._gradients, fullgraph=True, dynamic=False)
        outputs = partial(_outputs, module)
        self._outputs, self._own_outputs = vmap(outputs, in_dims=(0, None)), vmap(outputs)

    def scores(self, values: Stack, x: torch.Tensor) -> torch.Tensor:
        """(replicas, batch, classes) of networks with these parameters and buffers, in evaluation mode, each on a batch of its
        own: x (replicas, batch, ...)."""
        self._set_training(False)
        with torch.no_grad():
            scores: torch.Tensor = self._own_outputs(values, x)
        return scores

    def gradients(
        self, parameters: Stack, buffers: Stack, x: torch.Tensor, y: torch.Tensor, *taught: torch.Tensor
    ) -> tuple[Stack, Stack, torch.Tensor]:
        """Of the mean loss of every replica by its parameters; the buffers after the forward pass; the losses (replicas,).
        x (replicas, batch, ...), y (replicas, batch); where the program distils, the scores of teachers."""
        self._set_training(True)
        gradients, (losses, after) = self._gradients(parameters, buffers, x, y, *taught)
        return gradients, after, losses

    def _loss(
        self, parameters: Stack, buffers: Stack, x: torch.Tensor, y: torch.Tensor, *taught: torch.Tensor
    ) -> tuple[torch.Tensor, Stack]:
        """Batch norm writes into the buffers it is given: copies, so that nothing outside changes. Of its counts of batches
        nothing depends."""
        after = {name: buffer.clone() for name, buffer in buffers.items()}
        counters = {name: counter.clone() for name, counter in self._counters.items()}
        penalty: torch.Tensor | float = 0.0
        if self.trains is not None:
            parameters, penalty = self.trains.in_training(parameters)
        with torch.autocast(
            x.device.type, torch.bfloat16, enabled=self._arithmetic.precision == "bf16-mixed", cache_enabled=False
        ):
            outputs = functional_call(self.module, {**parameters, **after, **counters}, (x,)).float()
        loss = F.cross_entropy(outputs, y, label_smoothing=self.label_smoothing)
        if self.distils is not None:
            loss = distilled_loss(loss, outputs, taught[0], self.distils)
        return loss + penalty, after

    def _set_training(self, training: bool) -> None:
        for part in self._in_training:
            part.training = training

    def forward(self, values: Stack, x: torch.Tensor) -> torch.Tensor:
        """(replicas, samples, classes) of networks with these parameters and buffers, in evaluation mode, all on the same
        samples: x (samples, ...)."""
        self._set_training(False)
        with torch.no_grad():
            scores: torch.Tensor = self._outputs(values, x)
        return scores

    def evaluate(self, values: Stack, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss (without label smoothing) and accuracy on `part` of every replica, whose parameters and buffers are
        `values`: (replicas,) float64 each."""
        loss, accuracy = self.measure(values, part).cpu().numpy().copy()
        return loss, accuracy

    def measure(self, values: Stack, part: Part) -> torch.Tensor:
        """The same as one tensor (2, replicas), where the values are."""
        x, y = part
        values = values if self.trains is None else self.trains.plain(values)
        some = next(iter(values.values()))
        loss = torch.zeros(len(some), dtype=torch.float64, device=some.device)
        hits = torch.zeros_like(loss)
        with torch.no_grad():
            for start in range(0, len(x), EVALUATION_BATCH):
                labels = y[start : start + EVALUATION_BATCH]
                scores = self.forward(values, x[start : start + EVALUATION_BATCH])
                losses = F.cross_entropy(scores.flatten(0, 1), labels.repeat(len(scores)), reduction="none")
                loss += losses.view(len(scores), -1).double().sum(1)
                hits += (scores.argmax(2) == labels).double().sum(1)
        return torch.stack([loss, hits]) / len(x)


def _outputs(module: nn.Module, values: Stack, x: torch.Tensor) -> torch.Tensor:
    outputs: torch.Tensor = functional_call(module, values, (x,))
    return outputs


@contextlib.contextmanager
def same_bits_on(accelerator: str, index: int = 0, precision: str | None = None) -> Iterator[None]:
    """Kernels of the GPU of that index whose sums have one order, as far as torch has them (it warns where not), and float32
    products with TF32 (10 bits of mantissa) where `precision` is tf32 alone. On a CPU the number of threads is all that
    matters."""
    if accelerator != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, matmul.allow_tf32, cudnn.allow_tf32
    if torch.cuda.is_available():
        torch.cuda.set_device(index)
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        cudnn.benchmark = False
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, matmul.allow_tf32, cudnn.allow_tf32 = before[1:]


def _as_float32(module: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (given[0].float(),)


def drops(network: Network) -> bool:
    """Whether training draws random numbers for dropout, be it a module or a function."""
    return any(node.op == "dropout" for node in network.nodes)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws by `seed` on `device`; torch's generators are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
