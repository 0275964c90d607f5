"""A round of a search: one density, the networks trained there, and what is measured of each kind of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from server_side.controls import Values
from server_side.prune import Masks
from server_side.training import Job, Training
from server_side.verdict import Measured

Copies = list[list[Training]]  # of one kind: of each seed its trainings


@dataclass(frozen=True)
class Round:
    """One density: what was trained there, the masks it was trained with and the weights, of all positions, that its
    tickets started from, by seed. Round 0 is dense. `density`: of the first seed, and of all but where groups are pruned."""

    number: int
    density: float
    masks: dict[int, Masks]
    start: dict[int, Values]
    trainings: dict[str, Training]
    measured: dict[str, Measured]

    def layer_densities(self, seed: int) -> dict[str, float]:
        return {name: float(mask.mean()) for name, mask in self.masks[seed].items()}


def copies_by_kind(jobs: Iterable[Job], trainings: Mapping[str, Training], seeds: Iterable[int]) -> dict[str, Copies]:
    """The trainings of each kind among `jobs`, in the order in which the kinds come."""
    jobs, seeds = list(jobs), list(seeds)
    return {
        kind: [[trainings[job.name] for job in jobs if (job.kind, job.seed) == (kind, seed)] for seed in seeds]
        for kind in dict.fromkeys(job.kind for job in jobs)
    }


def measure(by_seed: Copies) -> Measured:
    """One value a seed, the mean over its copies that did not diverge."""
    sound = [[training for training in copies if training.diverged_step is None] for copies in by_seed]

    def averaged(value_of: str) -> np.ndarray:
        return np.array([np.mean([_figure(t, value_of) for t in copies]) if copies else np.nan for copies in sound])

    return Measured(
        averaged("accuracy"),
        averaged("accuracy_end"),
        averaged("validation_accuracy"),
        averaged("early_stop"),
        sum(map(len, by_seed)) - sum(map(len, sound)),
    )


def _figure(training: Training, name: str) -> float:
    return {
        "accuracy": training.early_accuracy,
        "accuracy_end": training.final_accuracy,
        "validation_accuracy": float(training.validation_accuracy[training.early_index]),
        "early_stop": float(training.early_step),
    }[name]


def dense_training(rounds: list[Round], seed: int) -> Training:
    """Of the dense network of replicate `seed`."""
    return rounds[0].trainings[f"seed{seed}-dense"]
