"""The finished trainings of one stage in a folder: one file a training, written atomically.

    seed0-ticket.npz (finished)   seed0-ticket.partial.npz, ticket-stack0.pt (under way)

Only trainings whose weights are needed again have them. A damaged file counts as unfinished.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.atomic import write_file
from server_side.training import Job, Training

CURVES = ("steps", "train_loss", "validation_loss", "validation_accuracy", "early_accuracy", "final_accuracy")
DIVERGED = "diverged_step"  # -1: it did not
WEIGHTS = ("early", "final", "masks")
SNAPSHOT = "snapshot"  # and its step


@dataclass(frozen=True)
class TrainingFolder:
    """Where a stage's trainings are; nothing is made before `create`."""

    path: Path

    def create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def stack_checkpoint(self, kind: str, stack: int) -> Path:
        return self.path / f"{kind}-stack{stack}.pt"

    def job_checkpoint(self, job: Job) -> Path:
        return self.path / f"{job.name}.partial.npz"

    def save(self, job: Job, training: Training) -> None:
        arrays: dict[str, Any] = {name: getattr(training, name) for name in CURVES}
        arrays[DIVERGED] = -1 if training.diverged_step is None else training.diverged_step
        kept = {kind: getattr(training, kind) for kind in WEIGHTS}
        kept |= {f"{SNAPSHOT}{step}": values for step, values in training.snapshots.items()}
        for kind, values in kept.items():
            arrays |= {f"{kind}/{name}": value for name, value in values.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_file(self.path / f"{job.name}.npz", buffer.getvalue())

    def load(self, job: Job) -> Training | None:
        """The finished training of `job`, or None."""
        try:
            with (
                open(self.path / f"{job.name}.npz", "rb") as file,
                np.load(file, allow_pickle=False) as archive,
            ):
                curves = {name: archive[name] for name in CURVES}
                diverged_step = int(archive[DIVERGED])
                weights: dict[str, dict[str, Any]] = {kind: {} for kind in WEIGHTS}
                for kind, name in (key.split("/", 1) for key in archive.files if "/" in key):
                    weights.setdefault(kind, {})[name] = archive[f"{kind}/{name}"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return Training(
            steps=curves["steps"],
            train_loss=curves["train_loss"],
            validation_loss=curves["validation_loss"],
            validation_accuracy=curves["validation_accuracy"],
            early_accuracy=float(curves["early_accuracy"]),
            final_accuracy=float(curves["final_accuracy"]),
            early=weights["early"],
            final=weights["final"],
            snapshots={int(k[len(SNAPSHOT) :]): w for k, w in weights.items() if k.startswith(SNAPSHOT)},
            masks=weights["masks"],
            diverged_step=None if diverged_step < 0 else diverged_step,
        )
