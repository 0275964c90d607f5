"""How much memory a stack of replicas takes, known before anything is allocated, so that several jobs can share a GPU.

A step and an evaluation are gone through with tensors that have shapes and no data; what is alive at the highest moment is
counted, and once more what a recording of each keeps for itself (recorded_step.py). Not counted: what CUDA takes for itself (some hundred megabytes), what its allocator rounds up, what a convolution or a
compiled step borrows, and weights kept to find a rewind step or an early bird.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from server_side.data import Split
from server_side.errors import UsageError
from server_side.models import Model
from server_side.stacked import make_optimizer
from server_side.stacked_program import EVALUATION_BATCH, Arithmetic, StackedProgram, drops
from server_side.training import Recipe


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made while it is entered, for as long as they live; `peak` is their highest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.bytes -= size


@dataclass(frozen=True)
class StackMemory:
    """Of a stack of `replicas`; bytes: of what all stacks share, such as the data, and of each replica."""

    replicas: int
    shared_bytes: int
    replica_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.shared_bytes + self.replicas * self.replica_bytes

    def check(self, free_bytes: int) -> None:
        """Raises UsageError where less than that is free."""
        if self.total_bytes <= free_bytes:
            return
        most = (free_bytes - self.shared_bytes) // self.replica_bytes
        remedy = f"take --stack-size {most}" if most > 0 else "take a smaller --batch, or --engine fabric"
        raise UsageError(
            f"stack_size {self.replicas}: so many replicas take {in_words(self.total_bytes)} of the GPU's memory, of which "
            f"{in_words(free_bytes)} are free; {remedy}"
        )


def in_words(count: int) -> str:
    """Such as `1.5 GB`, of 1,024 MB."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


def stack_memory(
    model: Model, split: Split, recipe: Recipe, replicas: int, precision: str, *, recorded: bool
) -> StackMemory:
    """Of a stack of dense networks, tickets or controls, whose steps are `recorded` or not."""
    parts = (split.x_train, split.y_train, split.x_validation, split.y_validation, split.x_test, split.y_test)
    one, two = (_without_data(model, split, recipe, count, Arithmetic(precision), recorded) for count in (1, 2))
    return StackMemory(replicas, sum(part.nbytes for part in parts) + max(0, 2 * one - two), two - one)


def _without_data(
    model: Model, split: Split, recipe: Recipe, replicas: int, arithmetic: Arithmetic, recorded: bool
) -> int:
    """The highest sum of bytes in a step, an update and an evaluation."""
    live, module = LiveBytes(), model.factory()  # which may look at its own weights: they are real
    given = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        program = StackedProgram(
            module, label_smoothing=recipe.label_smoothing, draws=drops(model.network), arithmetic=arithmetic
        )
        stacked = {name: torch.zeros(replicas, *value.shape) for name, value in given.items()}
        parameters = {name: nn.Parameter(stacked[name]) for name in program.parameter_names}
        buffers = {name: value for name, value in stacked.items() if name not in parameters}
        early = {name: value.clone() for name, value in stacked.items()}
        masks = {name: p.detach().clone() for name, p in parameters.items() if p.ndim > 2}
        optimizer = make_optimizer(recipe, [{"params": list(parameters.values())}])
        shape = split.x_train.shape[1:]
        for _ in range(2):  # the second step has the optimizer's state and the gradients of the first
            x = torch.zeros(replicas, recipe.batch, *shape)
            y = torch.zeros(replicas, recipe.batch, dtype=torch.int64)
            detached = {name: p.detach() for name, p in parameters.items()}
            gradients, buffers, _ = program.gradients(detached, buffers, x, y)
            for name, parameter in parameters.items():
                parameter.grad = gradients[name] * masks[name] if name in masks else gradients[name]
            optimizer.step()
        resting, in_step = live.bytes, live.peak
        live.peak = resting
        samples = min(EVALUATION_BATCH, len(split.x_validation))
        x = torch.zeros(()).expand(samples, *shape)  # a view of the data
        program.forward({**detached, **buffers}, x)
        del early
    own: int = sum(value.nbytes for value in given.values())
    again = (in_step - resting) + (live.peak - resting) if recorded else 0
    return max(in_step, live.peak) + own + again
