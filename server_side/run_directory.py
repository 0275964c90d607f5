"""What a search has finished, on disk: one file a training, written atomically, so that a killed run goes on.

    config.json   run.json   rounds/03/seed0-ticket.npz   rounds/03/*.partial.npz, *.pt, *.claim (under way)   results.json
    report.html   ticket/

config.json holds the options, run.json what else decides the bits: the data's SHA-256 and the versions of packages. Only
trainings whose weights are needed again (dense, ticket) have them. Masks are recomputed from the weights.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from export.atomic import write_file
from server_side.errors import UsageError
from server_side.training import Job, Training
from server_side.workers import CLAIM, STOP, in_turn, lock

CURVES = ("steps", "train_loss", "validation_loss", "validation_accuracy", "early_accuracy", "final_accuracy")
BEGUN = ("run.json",)  # what a start that was killed may leave without a config.json
SCRATCH = re.compile(r"\..+-[0-9a-f]{16}")  # what atomic.py leaves when it is killed
CONCLUDED = ".concluded"
DIVERGED = "diverged_step"  # -1: it did not
WEIGHTS = ("early", "final", "masks")
SNAPSHOT = "snapshot"  # and its step


class RunDirectory:
    """A directory that belongs to one set of options, one data set and one set of `versions`; others are refused with
    UsageError. Nothing is made before `create`."""

    def __init__(self, path: Path, options: dict[str, Any], data_sha256: str, versions: Mapping[str, str]) -> None:
        self.path, self.options = path, options
        self.facts: dict[str, Any] = {"data_sha256": data_sha256, "versions": dict(versions)}
        foreign = path.exists() and any(there.name not in BEGUN and there.name[0] != "." for there in path.iterdir())
        if (path / "config.json").exists():  # asked after the other: another worker may just be making it
            self._check_same()
        elif foreign:
            raise UsageError(f"output_dir '{path}' holds other files; name an empty directory")

    def create(self) -> None:
        """Makes the directory and its config.json, or checks those that have come there since."""
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / "config.json").exists():
            self._check_same()
        else:
            write_file(self.path / "run.json", _json(self.facts))
            write_file(self.path / "config.json", _json(self.options))

    def _check_same(self) -> None:
        try:
            there = dict(json.loads((self.path / "config.json").read_text()))
            facts = json.loads((self.path / "run.json").read_text())
            data_sha256, versions = facts["data_sha256"], dict(facts["versions"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"output_dir '{self.path}' holds a damaged run ({error}); name another directory"
            ) from error
        if data_sha256 != self.facts["data_sha256"]:
            raise UsageError(f"output_dir '{self.path}' holds a run on other data; name another directory or remove it")
        for name, version in self.facts["versions"].items():
            if versions.get(name) != version:
                raise UsageError(
                    f"output_dir '{self.path}' holds a run by {name} {versions.get(name)}, not {version}, and its bits may "
                    "differ; install that version, or name another directory"
                )
        wanted = json.loads(json.dumps(self.options))
        for name in sorted(set(there) | set(wanted)):
            if there.get(name) != wanted.get(name):
                raise UsageError(
                    f"output_dir '{self.path}' holds a run with {name} {there.get(name)!r}, not {wanted.get(name)!r}; "
                    "name another directory or remove it"
                )

    @contextlib.contextmanager
    def locked(self, launch: str) -> Iterator[None]:
        """Makes the directory, lets in the workers of one `launch` and keeps all other processes out. The first one clears
        away what killed ones have left; the lock dies with its process."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+") as members:
            try:
                with in_turn(self.path):
                    self._admit(members, launch)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                raise UsageError(
                    f"output_dir '{self.path}': its file system cannot lock ({error.strerror}); name one on another"
                ) from error
            yield

    def _admit(self, members: IO[str], launch: str) -> None:
        if lock(members):
            self._clear_away()
            members.truncate(0)
            members.write(launch)
            members.flush()
        else:
            members.seek(0)
            if members.read() != launch:
                raise UsageError(f"output_dir '{self.path}' is in use by another search; wait or name another")
        lock(members, shared=True)  # whoever asks, asks in turn
        self.create()

    def _clear_away(self) -> None:
        for path in [*self.path.iterdir(), *self.path.glob("rounds/*/.*"), *self.path.glob(f"rounds/*/*{CLAIM}")]:
            if SCRATCH.fullmatch(path.name) or path.name in (STOP, CONCLUDED) or path.suffix == CLAIM:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    @property
    def concluded(self) -> Path:
        """There once a worker has written the result, until the next launch."""
        return self.path / CONCLUDED

    def round_path(self, round_number: int) -> Path:
        path = self.path / "rounds" / f"{round_number:02d}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stack_checkpoint(self, round_number: int, kind: str, stack: int) -> Path:
        return self.round_path(round_number) / f"{kind}-stack{stack}.pt"

    def job_checkpoint(self, round_number: int, job: Job) -> Path:
        return self.round_path(round_number) / f"{job.name}.partial.npz"

    def save(self, round_number: int, job: Job, training: Training) -> None:
        arrays: dict[str, Any] = {name: getattr(training, name) for name in CURVES}
        arrays[DIVERGED] = -1 if training.diverged_step is None else training.diverged_step
        kept = {kind: getattr(training, kind) for kind in WEIGHTS}
        kept |= {f"{SNAPSHOT}{step}": values for step, values in training.snapshots.items()}
        for kind, values in kept.items():
            arrays |= {f"{kind}/{name}": value for name, value in values.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_file(self.round_path(round_number) / f"{job.name}.npz", buffer.getvalue())

    def load(self, round_number: int, job: Job) -> Training | None:
        """The finished training of `job`, or None; a damaged file counts as unfinished."""
        path = self.round_path(round_number) / f"{job.name}.npz"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
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


def kept_options(path: Path) -> dict[str, Any]:
    """The options that the run at `path` was begun with; none where there is no run, or a damaged one."""
    try:
        return dict(json.loads((path / "config.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
