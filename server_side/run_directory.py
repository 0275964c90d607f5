"""What a search has finished, on disk, whole or not at all, so that a killed run goes on.

    config.json   run.json   spent.json   rounds/03/ (training_folder.py)   results.json   report.html   ticket/   experiments/ (lab.py)

config.json holds the options, run.json what else decides the bits: the SHA-256 of data and model, and the versions of packages. Masks
are recomputed from the weights.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from export.atomic import write_file
from server_side.errors import UsageError
from server_side.training_folder import TrainingFolder
from server_side.workers import CLAIM, STOP, in_turn, lock

BEGUN = ("run.json",)  # what a start that was killed may leave without a config.json
SCRATCH = re.compile(r"\..+-[0-9a-f]{16}")  # what atomic.py leaves when it is killed
SPENT = "spent.json"
CONCLUDED = ".concluded"


class RunDirectory:
    """A directory that belongs to one set of options, one data set and one set of `versions`; others are refused with
    UsageError. Nothing is made before `create`."""

    def __init__(
        self,
        path: Path,
        options: dict[str, Any],
        data_sha256: str,
        model_sha256: str,
        versions: Mapping[str, str],
    ) -> None:
        self.path, self.options = path, options
        self.facts: dict[str, Any] = {
            "data_sha256": data_sha256,
            "model_sha256": model_sha256,
            "versions": dict(versions),
        }
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
            data_sha256, model_sha256 = facts["data_sha256"], facts["model_sha256"]
            versions = dict(facts["versions"])
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
        if model_sha256 != self.facts["model_sha256"]:
            raise UsageError(
                f"output_dir '{self.path}' holds a run of another network, or of other initial weights, by that name; name "
                "another directory or remove it"
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
                raise UsageError(f"output_dir '{self.path}' is in use by another command; wait or name another")
        lock(members, shared=True)  # whoever asks, asks in turn
        self.create()

    def _clear_away(self) -> None:
        written = (
            "*",
            "rounds/*/.*",
            "experiments/*/.*",
            "experiments/*/*/.*",
            f"rounds/*/*{CLAIM}",
            f"experiments/*/*/*{CLAIM}",
        )
        for path in {there for pattern in written for there in self.path.glob(pattern)}:
            if SCRATCH.fullmatch(path.name) or path.name in (STOP, CONCLUDED) or path.suffix == CLAIM:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    @property
    def concluded(self) -> Path:
        """There once a worker has written the result, until the next launch."""
        return self.path / CONCLUDED

    def spent(self) -> float:
        """Seconds of all starts of this run so far; 0 where none is known."""
        try:
            return float(json.loads((self.path / SPENT).read_text())["seconds"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0.0

    def spend(self, seconds: float) -> None:
        """Adds to them."""
        write_file(self.path / SPENT, _json({"seconds": self.spent() + seconds}))

    def round_folder(self, number: int) -> TrainingFolder:
        """Where the trainings of a round are."""
        return TrainingFolder(self.path / "rounds" / f"{number:02d}")


def kept_options(path: Path) -> dict[str, Any]:
    """The options that the run at `path` was begun with; none where there is no run, or a damaged one."""
    try:
        return dict(json.loads((path / "config.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
