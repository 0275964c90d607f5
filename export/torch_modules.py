"""A ticket as two torch modules, one that trains and one that predicts, to be exported for other runtimes.

Parameters hold live weights alone, which the graph puts into place, so that gradients are as small. Raw samples go in. A
program has one batch size: fewer samples are filled up with any others, and `present` is 0 for these, else 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from export.card import normalisation, recipe
from export.network import Node
from export.ticket import Floats, Ticket, TicketError
from export.torch_operators import OPERATORS, Call, batch_norm, moves

Tensor = torch.Tensor
Shape = tuple[int, ...]


def live_values(ticket: Ticket, values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Each parameter flat: its live weights row-major, or all where nothing was pruned."""
    masks = ticket.masks
    return {name: array[masks[name]] if name in masks else array.ravel() for name, array in values.items()}


def moving_statistics(ticket: Ticket) -> tuple[str, ...]:
    """Names of the running statistics that training moves, in the order of the nodes."""
    nodes = [node for node in ticket.network.nodes if moves(node)]
    return tuple(node.params[role] for node in nodes for role in ("running_mean", "running_var"))


def dropouts(ticket: Ticket) -> dict[int, tuple[float, Shape]]:
    """Those that drop anything: probability and shape of a sample, by the buffer that they write."""
    network = ticket.network
    nodes = enumerate(network.nodes, start=1)
    return {
        at: (node.real("probability"), network.shapes[at])
        for at, node in nodes
        if node.op == "dropout" and node.real("probability") > 0
    }


class Graph(nn.Module):
    """The network as a function of its flat values."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__()
        self.ticket, self.network, found = ticket, ticket.network, normalisation(ticket)
        shape = (-1, *[1] * (len(ticket.network.input_shape) - 1))
        self.mean, self.inverse_std = (torch.tensor(array).reshape(shape) for array in (found.mean, found.inverse_std))
        self.steps = {name: _steps(np.flatnonzero(mask)) for name, mask in ticket.masks.items()}

    def scores(
        self, samples: Tensor, values: Mapping[str, Tensor], present: Tensor | None, kept: Mapping[int, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """(batch, elements), and the new values of the `moving_statistics`; `kept` as in `dropouts`."""
        buffers, moved = [(samples - self.mean) * self.inverse_std], []
        for at, node in enumerate(self.network.nodes, start=1):
            call = Call(node, [buffers[b] for b in node.inputs], self._params(node, values), present, kept.get(at))
            if node.op == "batch_norm":
                y, new = batch_norm(call)
                moved += new
            else:
                y = OPERATORS[node.op](call)
            buffers.append(y)
        return buffers[-1], moved

    def _params(self, node: Node, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {role: self._placed(name, values[name]) for role, name in node.params.items()}

    def _placed(self, name: str, flat: Tensor) -> Tensor:
        shape = self.network.parameter_shapes[name]
        if name not in self.steps:
            return flat.reshape(shape)
        places = torch.cumsum(self.steps[name], 0, dtype=torch.int32)
        return torch.zeros(math.prod(shape)).index_put((places,), flat).reshape(shape)


class Prediction(Graph):
    """(samples, *values of all parameters, state too) -> scores. It holds no values."""

    def forward(self, samples: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(self.network.parameter_shapes, values, strict=True))
        return self.scores(samples, named, None, {})[0]


class Training(Graph):
    """(samples, targets, present, *running statistics, *dropout factors) -> (loss, *moving statistics).

    Targets: int64 labels (batch,), or floats (batch, classes). Running statistics are those of all norms, in the order of
    the network; factors those of `dropouts`, (batch, *shape) each.
    """

    def __init__(self, ticket: Ticket, values: Mapping[str, Floats]) -> None:
        super().__init__(ticket)
        self.recipe, self.values = recipe(ticket), nn.Module()
        self.state = [p.name for p in self.network.parameters if p.state]
        self.trained = [p.name for p in self.network.parameters if not p.state]
        live = live_values(ticket, values)
        for name in self.trained:
            _add(self.values, name, nn.Parameter(torch.tensor(live[name])))
        weights = self.recipe.class_weights
        self.class_weights = torch.ones(self.network.output_shape) if weights is None else torch.tensor(weights)

    def forward(self, samples: Tensor, targets: Tensor, present: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Tensor] = {name: self.values.get_parameter(name) for name in self.trained}
        values |= dict(zip(self.state, rest, strict=False))
        kept = dict(zip(dropouts(self.ticket), rest[len(self.state) :], strict=True))
        scores, moved = self.scores(samples, values, present, kept)
        terms, weights = self._losses(scores, targets)
        return ((terms * present).sum() / (weights * present).sum(), *moved)

    def _losses(self, z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Of each sample its loss, times its weight, and its weight."""
        if self.network.loss == "mse":
            return ((z - targets) ** 2).mean(1), torch.ones(len(z))
        if self.network.loss == "bce":
            return (F.softplus(z) - z * targets).mean(1), torch.ones(len(z))
        classes, smoothing = z.shape[1], self.recipe.label_smoothing
        of_label = (targets.unsqueeze(1) == torch.arange(classes)).to(torch.float32) * self.class_weights
        surprise = -torch.log_softmax(z, 1)
        terms = (1 - smoothing) * (of_label * surprise).sum(1)
        if smoothing:
            terms = terms + (smoothing / classes) * (self.class_weights * surprise).sum(1)
        return terms, of_label.sum(1)


def _steps(places: NDArray[np.intp]) -> Tensor:
    """From one live weight to the next, the first one from 0; of two bytes where that is enough."""
    steps = np.diff(places, prepend=0)
    return torch.tensor(steps.astype(np.int16 if steps.max() < 2**15 else np.int32))


def _add(module: nn.Module, name: str, value: nn.Parameter) -> None:
    """As the submodules' parameter that `name` says with its dots, so that it keeps its name."""
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, value)
    except KeyError as error:
        raise TicketError(f"parameter '{name}': torch has another use for that name ({error}); rename it") from error
