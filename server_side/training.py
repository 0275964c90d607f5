"""What an engine is asked to train and what it gives back; the stacked and the device engine share these words.

Early stopping is applied in retrospect: every training runs to the end, and its early stop is the evaluation with the
lowest validation loss (the first of equals). The test part is looked at twice, at the early stop and at the end.
A control may diverge: it has failed, has no figures, and the search goes on; a dense network or a ticket may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from server_side.controls import Values
from server_side.errors import UsageError
from server_side.prune import Masks
from server_side.seeds import derive

if TYPE_CHECKING:
    from server_side.augment import Augmentation
    from server_side.distillation import Distillation
    from server_side.moving import Moving

SINGLE = ("dense", "ticket", "mask", "again")  # kinds of which a seed has one in a round
DECIDING = ("dense", "ticket", "mask")  # kinds without which a search cannot go on
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
CHECKPOINT_SECONDS = 60.0  # an engine saves what is under way about that often, and when it is asked to stop


class Interrupted(Exception):
    """The user asked to stop; what was finished and what is under way is on disk, the same command goes on."""


@dataclass(frozen=True)
class Recipe:
    """How every network of a search is trained; `schedule`, `drops`, `factor` and `warmup` as in schedule.py, in steps."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    batch: int
    steps: int
    evaluate_every: int
    nesterov: bool = False
    label_smoothing: float = 0.0
    schedule: str = "constant"
    drops: tuple[int, ...] = ()
    factor: float = 0.1
    warmup: int = 0
    augmentation: Augmentation | None = None

    @property
    def has_constant_rate(self) -> bool:
        return self.schedule == "constant" and self.warmup == 0

    def to_card(self, epochs: int) -> dict[str, str | int | float]:
        """The recipe as a ticket's card tells it to devices: at a constant rate, since a schedule of the search is of
        steps that a device never makes, and without augmentation."""
        return {
            "optimizer": self.optimizer,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "beta1": ADAM_BETAS[0],
            "beta2": ADAM_BETAS[1],
            "epsilon": ADAM_EPSILON,
            "epochs": epochs,
            **({"nesterov": True} if self.nesterov else {}),
            **({"label_smoothing": self.label_smoothing} if self.label_smoothing else {}),
        }


@dataclass(frozen=True)
class Job:
    """One training: a replica, the weights it starts from (pruned ones 0), its masks, and the step it starts at.

    `snapshot_steps` are steps whose weights are kept; `holds_rate`: every step at the rate of the recipe's last;
    `order`: another order of batches (and other dropout) than that which all trainings of the seed share; `moving`: how its
    masks move, if they do; `keeps_weights`: also where a control's would be dropped;
    `distillation`: the teacher it learns from besides the labels.
    """

    seed: int
    kind: str
    index: int
    start: Values
    masks: Masks
    first_step: int = 0
    snapshot_steps: tuple[int, ...] = ()
    holds_rate: bool = False
    order: int = 0
    moving: Moving | None = None
    keeps_weights: bool = False
    distillation: Distillation | None = None

    @property
    def needs_stack(self) -> bool:
        """Whether the stacked engine alone can train it: the device's runtime has no moving masks and no teachers."""
        return self.moving is not None or self.distillation is not None

    @property
    def is_control(self) -> bool:
        """It may diverge: nothing hangs on its success. Its figures are all that is needed, unless it `keeps_weights`."""
        return self.kind not in DECIDING

    @property
    def drops_weights(self) -> bool:
        """Whether its figures alone are kept."""
        return self.is_control and not self.keeps_weights

    @property
    def order_seed(self) -> int:
        """Of its batches, augmentation and dropout."""
        return self.seed if self.order == 0 else derive(self.seed, "order", self.order)

    @property
    def name(self) -> str:
        return f"seed{self.seed}-{self.kind}{'' if self.kind in SINGLE else self.index}"


@dataclass(frozen=True)
class Training:
    """The outcome of a job. `steps` (evaluations,) counts from initialisation; accuracies are fractions of 1.

    `early` and `final` hold the weights at the early stop and at the end, `snapshots` those at the job's snapshot steps; of
    a control that keeps none they are empty. `masks` are those that a training with a moving mask ended with. A control that
    diverged has NaN for figures, in the curves from `diverged_step` on, by which step its loss was no longer finite.
    """

    steps: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]
    early_accuracy: float
    final_accuracy: float
    early: Values
    final: Values
    snapshots: Mapping[int, Values] = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)
    diverged_step: int | None = None

    @property
    def early_index(self) -> int:
        return int(np.argmin(self.validation_loss))

    @property
    def early_step(self) -> int:
        return int(self.steps[self.early_index])


class Watch(Protocol):
    """Who follows trainings. Methods may be called from an engine's threads."""

    def begin(self, what: str) -> None:
        """Trainings begin: those of a round, or of a stage of an experiment."""

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        """So many steps of single replicas were made; the figures are means, NaN where nothing new is known."""

    def stop_requested(self) -> bool:
        """True when the engine is to save what is under way, as soon as it can, and raise Interrupted."""


def diverged(job: Job, step: int, recipe: Recipe) -> UsageError:
    """What to raise when a loss of `job`, which is no control, is no longer finite."""
    return UsageError(
        f"learning_rate {recipe.learning_rate}: the loss of {job.name} is not finite by step {step}; take a smaller one"
    )


def evaluation_steps(recipe: Recipe, first_step: int) -> list[int]:
    """Steps after which the validation part is evaluated: the start, the multiples of `evaluate_every`, whatever the start, so that
    early stops of all can be compared, and the end."""
    every = recipe.evaluate_every
    regular = range((first_step // every + 1) * every, recipe.steps, every)
    return [first_step, *regular, recipe.steps]
