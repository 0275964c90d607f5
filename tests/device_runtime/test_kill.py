"""Death and damage of checkpoint files: a kill at any system call of a save, any subset of it on the disk, any flipped bit."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kill_resume
from device_runtime import CheckpointWarning, CorruptCheckpoint, Trainer
from device_runtime import checkpoint as files
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import artifact

ROOT = Path(__file__).parents[2]


def test_a_kill_at_any_system_call_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}  # it forks
    command = [sys.executable, "-m", "tests.device_runtime.kill_in_save", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if "cannot" in result:
        pytest.skip(result["cannot"])
    assert [failure for run in result["runs"] for failure in run["failures"]] == []
    assert len(result["runs"]) == 21
    for run in result["runs"]:
        assert len(run["seen"]) == 2, run  # both ends of the save were met
        assert run["kills"] >= (20 if not run["torn"] else 0), run


def test_a_flipped_bit_is_found_in_either_generation(tmp_path: Path) -> None:
    path, net = tmp_path / "run.tkc", nets.mlp((4, 3, 2), 0.5)
    x, y = nets.task(net, 12)
    previous = files.previous_path(path)
    with Trainer.open(artifact(net), optimizer="adam") as trainer:
        trainer.fit(x, y, steps=1)
        old = trainer.save(path)
        trainer.fit(x, y, steps=2)
        new = trainer.save(path)
        for place in range(len(new)):
            for file, content in ((path, new), (previous, old)):
                broken = bytearray(content)
                broken[place] ^= 1 << place % 8
                with pytest.raises(CorruptCheckpoint):
                    trainer.restore(bytes(broken))
                file.write_bytes(broken)
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    trainer.restore(path)
                assert trainer.save() == (old if file == path else new)
                assert [warning.category for warning in told] == [CheckpointWarning] * (file == path)
                file.write_bytes(content)
        path.write_bytes(broken)
        previous.write_bytes(broken)
        with pytest.raises(CorruptCheckpoint, match="previous"):
            trainer.restore(path)


class Disk:
    """What a disk without a journal may hold after the power went: between two syncs of the directory, any subset of the
    changes to names; content only of files that were synced."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.synced = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.pending: list[tuple[str, tuple[Any, ...]]] = []
        self.possible: list[dict[str, bytes]] = []
        for name in ("replace", "link", "unlink"):
            patch.setattr(os, name, self.noting(name, getattr(os, name)))
        self.fsync = os.fsync
        patch.setattr(os, "fsync", self.sync)

    def noting(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def noted(*paths: Any, **settings: Any) -> None:
            call(*paths, **settings)
            self.change(name, *(Path(path).name for path in paths))

        return noted

    def sync(self, handle: int) -> None:
        self.fsync(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self.synced, self.pending = self.after(self.pending), []
        else:
            file = Path(os.readlink(f"/proc/self/fd/{handle}"))
            self.change("create", file.name, file.read_bytes())

    def change(self, *change: Any) -> None:
        self.pending.append((change[0], change[1:]))
        for count in range(len(self.pending) + 1):
            self.possible += [self.after(list(subset)) for subset in combinations(self.pending, count)]

    def after(self, changes: list[tuple[str, tuple[Any, ...]]]) -> dict[str, bytes]:
        names = dict(self.synced)
        for call, (first, *second) in changes:
            if call == "create":
                names[first] = second[0]
            elif call == "unlink":
                names.pop(first, None)
            elif first in names:
                names[second[0]] = names[first]
                if call == "replace":
                    del names[first]
        return names


@pytest.mark.parametrize("newest", [b"good 2", b"broken"])
def test_no_subset_of_a_save_on_the_disk_loses_every_good_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest: bytes
) -> None:
    path = tmp_path / "run.tkc"
    files.save_generation(path, b"good 1")
    files.save_generation(path, newest)
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path, patch)
        files.save_generation(path, b"good 3")
    assert len(disk.possible) > 10
    assert {"run.tkc": b"good 3", "run.tkc.previous": newest} == disk.synced
    for names in disk.possible:
        kept = [names.get(f"run.tkc{suffix}", b"") for suffix in ("", ".kept", ".previous")]
        assert any(content.startswith(b"good") for content in kept), names


def test_a_training_killed_at_random_moments_is_the_training_never_interrupted(tmp_path: Path) -> None:
    report = kill_resume.stress(tmp_path, cycles=15, seed=1)
    assert report.equal, report
    assert report.killed == 15
    assert report.losses_compared > 20
