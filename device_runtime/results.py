"""What the verbs of a Trainer tell: how far it is, what a call of fit did, how good the network is."""

from __future__ import annotations

from dataclasses import dataclass

from device_runtime.engine import Floats


@dataclass(frozen=True)
class Progress:
    """Updates made, epochs completed, samples of the present epoch drawn; inside `fit` the `loss` of the last step."""

    step: int
    epoch: int
    position: int
    loss: float | None = None


@dataclass(frozen=True)
class FitReport:
    """What one call of `fit` did: its updates, the epochs it completed, the loss of each update before it was made."""

    steps: int
    epochs: int
    losses: Floats
    progress: Progress
    cancelled: bool
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, and the fraction and number of samples whose most probable class is the label."""

    loss: float
    accuracy: float
    correct: int
    count: int
