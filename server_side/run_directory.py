"""What a search has finished, on disk: one file a training, written atomically, so that a killed run goes on.

    config.json   data.sha256   rounds/03/seed0-ticket.npz   rounds/03/*.partial.npz, *.pt (under way)   results.json   report.html   ticket/

Only trainings whose weights are needed again (dense, ticket) keep them. Masks are recomputed from the weights.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export.atomic import write_file
from server_side.errors import UsageError
from server_side.training import Job, Training

CURVES = ("steps", "train_loss", "validation_loss", "validation_accuracy", "early_accuracy", "final_accuracy")
BEGUN = ("data.sha256",)  # what a start that was killed may leave without a config.json
WEIGHTS = ("early", "final", "snapshot")


class RunDirectory:
    """A directory that belongs to one set of options and one data set; others are refused with UsageError. Nothing is
    made before `create`."""

    def __init__(self, path: Path, options: dict[str, Any], data_sha256: str) -> None:
        self.path, self.options, self.data_sha256 = path, options, data_sha256
        self._new = not (path / "config.json").exists()
        if not self._new:
            self._check_same()
        elif path.exists() and any(there.name not in BEGUN and there.name[0] != "." for there in path.iterdir()):
            raise UsageError(f"output_dir '{path}' holds other files; name an empty directory")

    def create(self) -> None:
        """Makes the directory and its config.json, if they are not there."""
        if self._new:
            self.path.mkdir(parents=True, exist_ok=True)
            write_file(self.path / "data.sha256", self.data_sha256.encode())
            content = json.dumps(self.options, indent=1, sort_keys=True) + "\n"
            write_file(self.path / "config.json", content.encode())

    def _check_same(self) -> None:
        try:
            there = dict(json.loads((self.path / "config.json").read_text()))
            data_sha256 = (self.path / "data.sha256").read_text()
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"output_dir '{self.path}' holds a damaged run ({error}); name another directory"
            ) from error
        if data_sha256 != self.data_sha256:
            raise UsageError(f"output_dir '{self.path}' holds a run on other data; name another directory or remove it")
        wanted = json.loads(json.dumps(self.options))
        for name in sorted(set(there) | set(wanted)):
            if there.get(name) != wanted.get(name):
                raise UsageError(
                    f"output_dir '{self.path}' holds a run with {name} {there.get(name)!r}, not {wanted.get(name)!r}; "
                    "name another directory or remove it"
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of the directory; the lock dies with its process."""
        import fcntl

        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"output_dir '{self.path}' is in use by another search; wait or name another"
                ) from error
            yield

    def round_path(self, round_number: int) -> Path:
        path = self.path / "rounds" / f"{round_number:02d}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stack_checkpoint(self, round_number: int, stack: int) -> Path:
        return self.round_path(round_number) / f"stack{stack}.pt"

    def job_checkpoint(self, round_number: int, job: Job) -> Path:
        return self.round_path(round_number) / f"{job.name}.partial.npz"

    def save(self, round_number: int, job: Job, training: Training) -> None:
        arrays: dict[str, Any] = {name: getattr(training, name) for name in CURVES}
        if job.kind in ("dense", "ticket"):
            for kind in WEIGHTS:
                arrays |= {f"{kind}/{name}": value for name, value in (getattr(training, kind) or {}).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_file(self.round_path(round_number) / f"{job.name}.npz", buffer.getvalue())

    def load(self, round_number: int, job: Job) -> Training | None:
        """The finished training of `job`, or None; a damaged file counts as unfinished."""
        path = self.round_path(round_number) / f"{job.name}.npz"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                curves = {name: archive[name] for name in CURVES}
                weights = {
                    kind: {
                        name.split("/", 1)[1]: archive[name] for name in archive.files if name.startswith(f"{kind}/")
                    }
                    for kind in WEIGHTS
                }
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
            snapshot=weights["snapshot"] or None,
        )
