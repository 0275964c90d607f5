"""Modules to lower, and the check that a network, computed from JSON alone, gives a module's outputs and gradients."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from export import reference as interpret
from export.network import Network

BATCH = 4
IMAGE, SIGNAL, VECTOR = (4, 6, 8), (4, 8), (6,)


class Function(nn.Module):
    """A module of one line."""

    def __init__(self, forward: Callable[..., torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.line = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x, **dict(self.named_children()))


def unsettled(module: nn.Module) -> nn.Module:
    """Biases, norms and statistics away from 0 and 1, where a wrong one shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return module


def samples(input_shape: tuple[int, ...], entries: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    if entries:
        return torch.randint(entries, (BATCH, *input_shape), generator=generator)
    return 3 * torch.randn((BATCH, *input_shape), dtype=torch.float64, generator=generator)


def check_same(module: nn.Module, network: Network, x: torch.Tensor, *, training: bool) -> None:
    """Outputs, gradients of parameters and input, and running statistics: equal to 1e-12 in float64, without dropout."""
    reference = unsettled(copy.deepcopy(module).double())
    if not training:
        reference.eval()
    for part in reference.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    document = json.loads(json.dumps(network.to_json()))
    for node in document["nodes"]:
        node["attrs"].pop("probability", None)
    start = {name: value.detach().clone() for name, value in reference.state_dict().items()}
    values = {p.name: start[p.name].requires_grad_(not p.state) for p in network.parameters}
    known = {"dropout": lambda x, p, a, t: x[0]}
    ours, theirs = (x.clone().requires_grad_(x.is_floating_point()) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpret, "OPERATORS", {**interpret.OPERATORS, **known})
        got = interpret.run(document, values, ours, training=training)
    expected = reference(theirs)
    close(got, expected, "output")
    towards = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.autograd.backward([got, expected], [towards, towards])
    if x.is_floating_point():
        close(ours.grad, theirs.grad, "gradient of the input")
    gradients = {name: p.grad for name, p in reference.named_parameters()}
    assert set(gradients) == {p.name for p in network.parameters if not p.state}
    for name, gradient in gradients.items():
        close(values[name].grad, gradient, f"gradient of {name}")
    for parameter in network.parameters:
        if parameter.state:
            close(values[parameter.name], reference.state_dict()[parameter.name], parameter.name)


def close(got: torch.Tensor | None, expected: torch.Tensor | None, what: str) -> None:
    assert got is not None, what
    assert expected is not None, what
    error = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-3)
    assert error < 1e-12, f"{what}: relative error {error:.1e}"
