"""What a student learns from a teacher besides the labels: its soft scores (Hinton, Vinyals & Dean 2015).

    loss = (1 - share) CE(labels) + share T² KL(softmax(teacher / T) || softmax(student / T))

The teacher is a network of the same module, in evaluation mode, and sees the very samples of each batch, augmented as they
are; nothing of it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from server_side.controls import Values

Setting = tuple[float, float]  # temperature and share


@dataclass(frozen=True, eq=False)
class Distillation:
    """The `teacher`'s parameters and buffers, the temperature, and the share of its scores in the loss."""

    teacher: Values
    temperature: float = 4.0
    share: float = 0.9

    @property
    def setting(self) -> Setting:
        """What all students of one stack have in common."""
        return self.temperature, self.share


def distilled_loss(hard: torch.Tensor, scores: torch.Tensor, taught: torch.Tensor, setting: Setting) -> torch.Tensor:
    """The mean loss of a batch whose loss by its labels is `hard`; scores and the teacher's are (batch, classes)."""
    temperature, share = setting
    student = F.log_softmax(scores / temperature, 1)
    teacher = F.log_softmax(taught / temperature, 1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - share) * hard + share * temperature**2 * soft
