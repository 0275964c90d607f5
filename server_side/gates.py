"""Training by which weights converge to 0: the proximal step of L1, and hard-concrete gates (Louizos et al. 2018, section
2.2).

Pure functions of tensors, with or without a leading axis of replicas; noise is given, never drawn. moving.py takes the mask
at an exact density, by ranks, never from what happens to be 0: a live weight may be.
"""

from __future__ import annotations

import math

import torch

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # temperature and stretched interval of the paper


def soft_threshold(weights: torch.Tensor, amount: float | torch.Tensor) -> torch.Tensor:
    """The proximal step of `amount` * |w|: every weight nearer to 0 by `amount`, those within it exactly +0.

    After a step of plain SGD `amount` is learning rate * L1 factor; an optimizer that scales each weight's step scales it
    alike, and `amount` is then a tensor of the weights' shape.
    """
    limit = torch.as_tensor(amount, dtype=weights.dtype, device=weights.device)
    return weights - weights.clamp(-limit, limit)


def sample_gates(log_alpha: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Gates in [0, 1] for `uniform` noise in [0, 1) of the same shape; exact 0 and 1 are likely."""
    return _stretched(torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA))


def expected_l0(log_alpha: torch.Tensor) -> torch.Tensor:
    """The probability of each gate to be other than 0; their sum is the expected number of live weights."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def final_gates(log_alpha: torch.Tensor) -> torch.Tensor:
    """The gates after training, without noise."""
    return _stretched(torch.sigmoid(log_alpha))


def _stretched(s: torch.Tensor) -> torch.Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
