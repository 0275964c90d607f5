"""Many replicas of one nn.Module as a single batched program: torch.func over parameters stacked on a new axis.

Any module of float32 parameters and buffers: batch norm has running statistics of its own for every replica, dropout draws
for every replica. Knows nothing of jobs, masks or optimizers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

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


class StackedProgram:
    """Losses, gradients and accuracies of stacks of parameters and buffers of `module`, which it takes over."""

    def __init__(
        self, module: nn.Module, *, label_smoothing: float = 0.0, trains: Reparametrisation | None = None
    ) -> None:
        self.module, self.label_smoothing, self.trains = module, label_smoothing, trains
        self.parameter_names = tuple(name for name, _ in module.named_parameters())
        self.draws = drops(module) or (trains is not None and trains.draws)
        self._in_training = [
            part for part in module.modules() if part.training
        ]  # a frozen batch norm is not among them
        self._counters = {n: b for n, b in module.named_buffers() if not b.is_floating_point()}
        differentiated = grad_and_value(self._loss, has_aux=True)
        self._gradients = vmap(differentiated, randomness="different" if self.draws else "error")
        self._outputs = vmap(lambda values, x: functional_call(module, values, (x,)), in_dims=(0, None))

    def gradients(
        self, parameters: Stack, buffers: Stack, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[Stack, Stack, torch.Tensor]:
        """Of the mean loss of every replica by its parameters; the buffers after the forward pass; the losses (replicas,).
        x (replicas, batch, ...), y (replicas, batch)."""
        self._set_training(True)
        gradients, (losses, after) = self._gradients(parameters, buffers, x, y)
        return gradients, after, losses

    def _loss(self, parameters: Stack, buffers: Stack, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Stack]:
        """Batch norm writes into the buffers it is given: copies, so that nothing outside changes. Of its counts of batches
        nothing depends."""
        after = {name: buffer.clone() for name, buffer in buffers.items()}
        counters = {name: counter.clone() for name, counter in self._counters.items()}
        penalty: torch.Tensor | float = 0.0
        if self.trains is not None:
            parameters, penalty = self.trains.in_training(parameters)
        outputs = functional_call(self.module, {**parameters, **after, **counters}, (x,))
        return F.cross_entropy(outputs, y, label_smoothing=self.label_smoothing) + penalty, after

    def _set_training(self, training: bool) -> None:
        for part in self._in_training:
            part.training = training

    def evaluate(self, values: Stack, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss (without label smoothing) and accuracy on `part` of every replica, whose parameters and buffers are
        `values`: (replicas,) float64 each."""
        self._set_training(False)
        x, y = part
        values = values if self.trains is None else self.trains.plain(values)
        some = next(iter(values.values()))
        loss = torch.zeros(len(some), dtype=torch.float64, device=some.device)
        hits = torch.zeros_like(loss)
        with torch.no_grad():
            for start in range(0, len(x), EVALUATION_BATCH):
                labels = y[start : start + EVALUATION_BATCH]
                scores = self._outputs(values, x[start : start + EVALUATION_BATCH])
                losses = F.cross_entropy(scores.flatten(0, 1), labels.repeat(len(scores)), reduction="none")
                loss += losses.view(len(scores), -1).double().sum(1)
                hits += (scores.argmax(2) == labels).double().sum(1)
        return (loss / len(x)).cpu().numpy(), (hits / len(x)).cpu().numpy()


def drops(module: nn.Module) -> bool:
    """Whether training draws random numbers for dropout."""
    return any(isinstance(part, nn.modules.dropout._DropoutNd) for part in module.modules())


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws by `seed` on `device`; torch's generators are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
