"""What ExecuTorch gets wrong, and why torch_operators.py spells these operators by others.

Where one of these tests fails, that runtime has mended the fault, and the operator may be spelt plainly.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from device_runtime.backends.silence import silent

pytest.importorskip("executorch", reason="executorch is not installed")


class Loss(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.net(x), y)


def gradients(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    """Those of ExecuTorch, by its own way of exporting and training."""
    with silent():
        from executorch.exir import to_edge
        from executorch.extension.training import _load_for_executorch_for_training_from_buffer
        from torch.export import export
        from torch.export.experimental import _export_forward_backward

        joint = _export_forward_backward(export(module, (x, y), strict=True))
        program = to_edge(joint).to_executorch().buffer
        loaded = _load_for_executorch_for_training_from_buffer(program)
        loaded.forward_backward("forward", (x, y))
        return {name: gradient.numpy() for name, gradient in loaded.named_gradients().items()}


def wanted(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    found = torch.autograd.grad(module(x, y), list(module.parameters()))
    return {name: g.numpy() for (name, _), g in zip(module.named_parameters(), found, strict=True)}


def drawn(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, *shape), torch.tensor([0, 1, 2, 1])


def test_the_gradient_through_a_max_pool_is_wrong() -> None:
    x, y = drawn(2, 6, 6)
    module = Loss(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    found, right = gradients(module, x, y), wanted(module, x, y)
    error = np.abs(found["net.0.weight"] - right["net.0.weight"]).max()
    assert error > 0.1 * np.abs(right["net.0.weight"]).max()
    np.testing.assert_allclose(found["net.4.weight"], right["net.4.weight"], atol=1e-5)  # it is the pool alone


def test_a_conv1d_does_not_run() -> None:
    x, y = drawn(2, 9)
    module = Loss(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(28, 3))
    with pytest.raises(RuntimeError, match="Failed to execute"):
        gradients(module, x, y)


def test_a_batch_norm_in_training_cannot_be_exported() -> None:
    x, y = drawn(2, 6, 6)
    module = Loss(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(Exception, match=r"native_batch_norm_legit_functional\.default is not in Core ATen"):
        gradients(module, x, y)
