"""Kills a training process at every entry into the kernel and every return from it while it makes a step and saves.

A process of its own forks one child a place; the child is traced by ptrace(2), so no call is missed. After each death
the checkpoint must restore to the state before the step or after it, and training must go on to the same bytes.

python -m tests.device_runtime.kill_in_save FOLDER      prints one JSON object; "failures" says what did not hold
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_runtime import CheckpointWarning, PocketTicketError, Trainer
from device_runtime import checkpoint as files
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import ADAM, Recipe, artifact

TRACE_ME, PEEK_USER, POKE_USER, NEXT_SYSCALL, SET_OPTIONS, MARK_SYSCALLS = 0, 3, 6, 24, 0x4200, 1
CALL_NUMBER, THIRD_ARGUMENT, WRITE = 15 * 8, 12 * 8, 1  # x86-64: orig_rax, rdx and the number of write(2)
MAX_STOPS = 2000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.ptrace.restype = ctypes.c_long

NET = nets.mlp((6, 5, 3), 0.6, recipe=Recipe(ADAM, 8))
X, Y = nets.task(NET, 20)
STEPS, BROKEN = 3, b"broken"


def ptrace(request: int, pid: int, address: int, data: int) -> int:
    ctypes.set_errno(0)
    result = int(libc.ptrace(request, pid, address, data))
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}: {os.strerror(ctypes.get_errno())}")
    return result


def next_stop(pid: int) -> bool:
    """Lets the child run to its next entry into the kernel or return from it; False if it has ended."""
    while True:
        ptrace(NEXT_SYSCALL, pid, 0, 0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if status != 0:
                raise RuntimeError(f"the child ended with status {status}")
            return False
        if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
            return True


def started(work: Callable[[], None]) -> int:
    """A child that waits, traced, before it begins with `work`."""
    pid = os.fork()
    if pid == 0:
        try:
            ptrace(TRACE_ME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise PermissionError("a child may not be traced here")
    ptrace(SET_OPTIONS, pid, 0, MARK_SYSCALLS)
    return pid


def halve_write(pid: int) -> bool:
    """Makes the write(2) that the child enters write half; False if it enters no such call."""
    if platform.machine() != "x86_64" or ptrace(PEEK_USER, pid, CALL_NUMBER, 0) != WRITE:
        return False
    size = ptrace(PEEK_USER, pid, THIRD_ARGUMENT, 0)
    ptrace(POKE_USER, pid, THIRD_ARGUMENT, size // 2)
    return size > 1 and next_stop(pid)


def killed_at(work: Callable[[], None], stop: int, *, torn: bool = False) -> tuple[bool, bool]:
    """Whether the child came as far as the `stop`-th stop and died there; with `torn`, whether in half a write."""
    pid = started(work)
    for _ in range(stop):
        if not next_stop(pid):
            return False, False
    halved = torn and halve_write(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True, halved


@dataclass(frozen=True)
class Scene:
    """What lies there before the step, and which states may be restored after the kill."""

    name: str
    newest: bytes | None
    previous: bytes | None
    may_be: tuple[str, ...]
    kept: bytes | None = None
    partial: bytes | None = None

    def prepare(self, path: Path) -> None:
        files.remove(path)
        contents = {path: self.newest, files.previous_path(path): self.previous}
        contents |= {files.partial_path(path): self.partial, Path(f"{path}.kept"): self.kept}
        for file, content in contents.items():
            if content is not None:
                file.write_bytes(content)


def restored(scene: Scene, trainer: Trainer, path: Path) -> bytes | None:
    """The state, or None for none. Only of a generation that was broken before may a warning tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if scene.newest == BROKEN else "error", CheckpointWarning)
        return trainer.save() if trainer.restore(path, missing_ok=True) else None


def faults(scene: Scene, path: Path, states: dict[bytes | None, str], final: bytes) -> tuple[str, list[str]]:
    """What the files restore to, and what is wrong with that."""
    found = []
    with Trainer.open(artifact(NET)) as trainer:
        try:
            state = states.get(restored(scene, trainer, path), "a mixture")
        except (PocketTicketError, CheckpointWarning) as error:
            return "an error", [f"restores not at all: {error}"]
        if state not in scene.may_be:
            found.append(f"restores to {state}")
        trainer.fit(X, Y, steps=STEPS + 1, checkpoint=path, checkpoint_every=1)
    if path.read_bytes() != final:
        found.append("goes on to other values")
    if left := {file.name for file in path.parent.iterdir()} - {path.name, files.previous_path(path).name}:
        found.append(f"still has {sorted(left)} after the next save")
    return state, found


def play(scene: Scene, path: Path, states: dict[bytes | None, str], *, links: bool, torn: bool) -> dict[str, object]:
    """Every stop of one scene, one after the other, until the child comes through."""
    by_name = {name: content for content, name in states.items()}
    before, final = by_name["old"], by_name["new"]
    assert before is not None
    assert final is not None
    seen: Counter[str] = Counter()
    failures, kills = [], 0
    with Trainer.open(artifact(NET)) as trainer:
        trainer.restore(before)

        def step_and_save() -> None:
            if not links:
                os.link = no_links
            trainer.fit(X, Y, steps=STEPS + 1, checkpoint=path, checkpoint_every=1)

        died = True
        for stop in range(1, MAX_STOPS):
            scene.prepare(path)
            died, halved = killed_at(step_and_save, stop, torn=torn)
            if died and torn and not halved:
                continue
            state, found = faults(scene, path, states, final)
            failures += [f"{scene.name}, stop {stop}: {fault}" for fault in found]
            seen[state] += 1
            kills += died
            if not died:
                break
    if died:
        failures.append(f"{scene.name}: no end after {MAX_STOPS} stops")
    return {"scene": scene.name, "links": links, "torn": torn, "kills": kills, "seen": seen, "failures": failures}


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "no hard links here")


def made_states() -> dict[bytes | None, str]:
    states: dict[bytes | None, str] = {None: "nothing"}
    with Trainer.open(artifact(NET)) as trainer:
        for name, steps in (("older", STEPS - 1), ("old", STEPS), ("new", STEPS + 1)):
            trainer.fit(X, Y, steps=steps)
            states[trainer.save()] = name
    return states


def main(folder: Path) -> dict[str, object]:
    states = made_states()
    _, older, old, _ = states
    scenes = [
        Scene("no generation", None, None, ("nothing", "new")),
        Scene("one generation", old, None, ("old", "new")),
        Scene("two generations", old, older, ("old", "new")),
        Scene("newest broken", BROKEN, old, ("old", "new")),
        Scene("killed while it wrote", old, older, ("old", "new"), kept=old, partial=b"half"),
        Scene("killed before its end", old, BROKEN, ("old", "new"), kept=older),
        Scene("killed before its end, newest broken", BROKEN, older, ("old", "new"), kept=old),
    ]
    variants = [(True, False), (False, False), (True, True)]
    path = folder / "run.tkc"
    try:
        runs = [play(scene, path, states, links=links, torn=torn) for scene in scenes for links, torn in variants]
    except PermissionError as error:
        return {"cannot": str(error)}
    return {"runs": runs}


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
