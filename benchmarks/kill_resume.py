"""Kills a training at random moments, takes it up again, and holds every loss and the last values against a training that
was never interrupted, bit for bit. Each second step is saved, so that many kills land inside a save and others cost a step.
With --java a JVM trains, by the SDK for Java, and saves each step, so that no step whose end was told may be lost.

    python -m benchmarks.kill_resume [--java] [--cycles 1000] [--seed 0] [--json FILE]

Exit code 0 if all is equal, 1 if not. What is measured is safety, not speed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime import CheckpointWarning, Trainer
from device_runtime import checkpoint as files

RECORD = struct.Struct("<Qf4x")  # a step and the loss it began with
SAMPLES, LAST_STEPS, CHECKPOINT_EVERY, SEED = 50, 21, 2, 4
JAVA_CHECKPOINT_EVERY = 1
DURING_START = 10  # one kill in so many comes before the training has begun


@dataclass(frozen=True)
class Life:
    """`command` trains in a folder up to a step; killed within `longest_seconds` of its start."""

    command: Callable[[Path, int], list[str]]
    longest_seconds: float


@dataclass
class Report:
    """What happened to the training, and whether it is the one never interrupted."""

    cycles: int
    killed: int = 0
    killed_at_start: int = 0
    killed_in_save: int = 0
    steps: int = 0
    losses_compared: int = 0
    losses_of_repeated_steps: int = 0
    unlike_losses: int = 0
    same_values: bool = False
    same_checkpoint: bool = False
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Losses, exported values and state of the optimizer."""
        return self.same_values and self.same_checkpoint and self.unlike_losses == 0 and self.losses_compared > 0


def train(folder: Path, steps: int) -> None:
    """One life of the training; a warning of a damaged generation ends it, since a kill may damage none."""
    warnings.simplefilter("error", CheckpointWarning)
    losses = os.open(folder / "losses", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with np.load(folder / "data.npz") as arrays, Trainer.open(folder / "net.tkt", seed=SEED) as trainer:
        x, y = arrays["x"], arrays["y"]
        trainer.restore(folder / "run.tkc", missing_ok=True)
        print("ready", flush=True)
        trainer.fit(
            x,
            y,
            steps=trainer.progress.step + LAST_STEPS if steps == 0 else steps,
            checkpoint=folder / "run.tkc",
            checkpoint_every=CHECKPOINT_EVERY,
            on_step=lambda progress: os.write(losses, RECORD.pack(progress.step, progress.loss)) > 0,
        )
        trainer.export(folder / "trained.tkt")


def python_command(folder: Path, steps: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.kill_resume", "--life", str(folder), str(steps)]


def java_command(folder: Path, steps: int) -> list[str]:
    from tests.java import jvm

    numbers = (steps, SEED, JAVA_CHECKPOINT_EVERY, LAST_STEPS)
    return jvm.command("io.pocketticket.Life", str(folder), *map(str, numbers), options=("-XX:TieredStopAtLevel=1",))


PYTHON, JAVA = Life(python_command, 0.04), Life(java_command, 0.25)


def live(command: list[str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": path})


def leftovers(folder: Path) -> list[tuple[str, int, int]]:
    """What stands beside the two generations only while one is being saved; a new one differs in time or inode."""
    facts = [(path.name, path.stat()) for path in sorted(folder.glob("run.tkc.*")) if path.suffix != ".previous"]
    return [(name, stat.st_ino, stat.st_mtime_ns) for name, stat in facts]


def kill_once(folder: Path, life: Life, moments: random.Random, report: Report) -> None:
    before = leftovers(folder)
    process = live(life.command(folder, 10**15))
    assert process.stdout is not None
    with process.stdout:
        at_start = moments.randrange(DURING_START) == 0
        if not at_start and process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the training ended by itself with exit code {process.wait()}")
        time.sleep(moments.uniform(0, life.longest_seconds))
        process.send_signal(signal.SIGKILL)
        report.killed += process.wait() == -signal.SIGKILL
    report.killed_at_start += at_start
    after = leftovers(folder)
    report.killed_in_save += bool(after) and after != before


def compare(folder: Path, content: bytes, x: NDArray[Any], y: NDArray[Any], report: Report) -> None:
    with Trainer.open(content, seed=SEED) as trainer:
        trainer.restore(folder / "run.tkc")
        report.steps, checkpoint = trainer.progress.step, trainer.save()
    with Trainer.open(content, seed=SEED) as trainer:
        wanted = trainer.fit(x, y, steps=report.steps).losses
        report.same_values = trainer.export() == (folder / "trained.tkt").read_bytes()
        report.same_checkpoint = trainer.save() == checkpoint
    records = list(RECORD.iter_unpack((folder / "losses").read_bytes()))
    report.losses_compared = len(records)
    report.losses_of_repeated_steps = len(records) - len({step for step, _ in records})
    report.unlike_losses = sum(np.float32(loss).tobytes() != wanted[step - 1].tobytes() for step, loss in records)


def stress(folder: Path, cycles: int, seed: int, life: Life = PYTHON, *, progress: bool = False) -> Report:
    """The whole of it in an empty folder."""
    from tests.device_runtime import nets
    from tests.device_runtime.tkt_writer import ADAM, Recipe, artifact

    net = nets.mlp((8, 10, 4), 0.5, recipe=Recipe(ADAM, 8, learning_rate=1e-3))
    x, y = nets.task(net, SAMPLES)
    content = artifact(net)
    (folder / "net.tkt").write_bytes(content)
    np.savez(folder / "data.npz", allow_pickle=False, x=x, y=y)
    (folder / "x.f32").write_bytes(x.astype("<f4").tobytes())
    (folder / "y.i32").write_bytes(y.astype("<i4").tobytes())
    moments, report, begun = random.Random(seed), Report(cycles), time.perf_counter()
    for cycle in range(cycles):
        kill_once(folder, life, moments, report)
        if progress and cycle % 100 == 99:
            print(f"{cycle + 1} cycles, {report.killed_in_save} kills in a save", file=sys.stderr, flush=True)
    last = live(life.command(folder, 0))
    last.communicate()
    if last.returncode != 0:
        raise RuntimeError(f"the last life ended with exit code {last.returncode}")
    if leftovers(folder) or not files.previous_path(folder / "run.tkc").exists():
        raise RuntimeError(f"the last save left {sorted(path.name for path in folder.iterdir())}")
    compare(folder, content, x, y, report)
    report.seconds = time.perf_counter() - begun
    return report


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_resume", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000, help="lives that end by SIGKILL (default: %(default)s)")
    parser.add_argument("--java", action="store_true", help="train by the SDK for Java (builds it; needs a JDK, JUnit)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--life", nargs=2, metavar=("FOLDER", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.life:
        train(Path(arguments.life[0]), int(arguments.life[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        life = JAVA if arguments.java else PYTHON
        report = stress(Path(folder), arguments.cycles, arguments.seed, life, progress=True)
    result = asdict(report) | {"equal": report.equal}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in result.items():
        print(f"{name.replace('_', ' '):>24}  {value if name != 'seconds' else round(value, 1)}")
    return 0 if report.equal and not (arguments.java and report.losses_of_repeated_steps) else 1


if __name__ == "__main__":
    sys.exit(main())
