"""Files and tickets are whole or not there, with the permissions of the umask.

Kills are real: a process that sends itself SIGKILL at the nth call to the disk.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export import atomic
from export.ticket import JSON_NAME, load_ticket
from tests.export.tickets import golden_ticket, small_ticket

KILL = """
import os, signal, sys
from pathlib import Path
from export import atomic
from tests.export.tickets import golden_ticket
calls = 0
def lethal(name, real):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("fsync", "rename", "replace"):
    lethal(name, getattr(os, name))
target = Path(sys.argv[1])
if sys.argv[3] == "ticket":
    golden_ticket("tiny").save(target)
else:
    atomic.write_file(target, b"new")
print("survived")
"""


def killed_at(call: int, target: Path, what: str) -> bool:
    """Runs the write in a process that dies at its nth call to the disk; whether it died."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILL, str(target), str(call), what]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False, text=True)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


def test_a_ticket_killed_at_any_call_is_absent_or_whole(tmp_path: Path) -> None:
    whole = []
    for call in range(1, 10):
        target = tmp_path / f"ticket{call}"
        died = killed_at(call, target, "ticket")
        whole.append(target.exists())
        if target.exists():
            assert load_ticket(target) == golden_ticket("tiny")
        if not died:
            break
    assert whole == [False, False, False, False, True, True]  # 2 files, their folder, the rename; the parent; survived


def test_a_file_killed_at_any_call_is_old_or_new(tmp_path: Path) -> None:
    contents = []
    for call in range(1, 10):
        target = tmp_path / f"file{call}"
        target.write_bytes(b"old")
        died = killed_at(call, target, "file")
        contents.append(target.read_bytes())
        if not died:
            break
    assert contents == [b"old", b"old", b"new", b"new"]  # the file, the rename; the folder; survived


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_a_refusing_disk_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: BaseException
) -> None:
    def refuse(*arguments: object) -> None:
        raise failure

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, call, refuse)
    if call != "replace":
        with pytest.raises(type(failure)):
            small_ticket().save(tmp_path / "ticket")
    if call != "rename":
        with pytest.raises(type(failure)):
            atomic.write_file(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = small_ticket().save(tmp_path / "ticket")
        atomic.write_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in (path, path / JSON_NAME, tmp_path / "file")] == [0o750, 0o640, 0o640]
