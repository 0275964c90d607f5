"""What a training step of a stack costs the host, eagerly and replayed: the least a GPU waits for, however small its work is.

There need be no GPU: the network has LeNet-300-100's operations with 6 and 2 hidden units on digits, so that next to nothing is
computed, and of what is recorded (server_side/recorded_step.py) a replay does nothing. Handing a CUDA graph to the driver, some
microseconds, is not in it, and neither are evaluations.

    python -m benchmarks.host_time [--rounds 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.circumstances import circumstances
from server_side.controls import apply_masks
from server_side.data import load_data, split
from server_side.ladder import ladder
from server_side.methods import Keeper, at_random
from server_side.models import load_model
from server_side.options import Options
from server_side.recorded_step import Step
from server_side.stacked import StackedEngine
from server_side.training import Job, Recipe

MODEL, WIDTH, STACKS, SEEDS = "lenet-300-100-digits", 0.02, (5, 20, 60), 5
STEPS = {"eager": 100, "replayed": 2000}
RESULT = Path(__file__).parent / "results" / "host_time.json"


class Silent:
    """A training.Watch."""

    def begin(self, what: str) -> None:
        """Nothing is shown."""

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        """Nor counted."""

    def stop_requested(self) -> bool:
        return False


def first_alone(step: Step) -> Step:
    """A recording whose replays do nothing after the first, by which it is judged."""
    left: Iterator[Step] = iter([step])

    def replay() -> None:
        next(left, _nothing)()

    return replay


def _nothing() -> None:
    pass


def microseconds(way: str, replicas: int, scratch: Path) -> float:
    """Of a step of a training of STEPS."""
    data = load_data("digits")
    parts, model = split(data, 0.1, 0), load_model(MODEL, data.input_shape, data.classes, WIDTH)
    steps = STEPS[way]
    recipe = Recipe("adam", 1.2e-3, 0.0, 0.0, batch=60, steps=steps, evaluate_every=steps)
    keeper = Keeper(model.network, ladder(model.network, Options(rounds=3).resolve({})), "none")
    masks = at_random(keeper, 0, 3)
    start = {name: value.numpy() for name, value in model.initial_weights(0).items()}
    jobs = [Job(n % SEEDS, "reinit", n // SEEDS, apply_masks(start, masks), masks) for n in range(replicas)]
    recorder = first_alone if way == "replayed" else None
    with patch("server_side.stacked.recorder_of", lambda device: recorder):
        engine = StackedEngine(model, parts, recipe, torch.device("cpu"))
        began = time.perf_counter()
        engine.train(jobs, scratch / "checkpoint.pt", Silent())
    (scratch / "checkpoint.pt").unlink()
    return 1e6 * (time.perf_counter() - began) / steps


def measure(rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    before = circumstances()
    found: dict[str, list[float]] = {f"{way}, {replicas} replicas": [] for replicas in STACKS for way in STEPS}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds + 1):
            print(f"host_time: round {number}/{rounds}", file=sys.stderr)
            for replicas in STACKS:
                for way in STEPS:
                    taken = microseconds(way, replicas, Path(scratch))
                    if number > 0:  # the first warms up
                        found[f"{way}, {replicas} replicas"].append(taken)
    told = {name: {"median": median(of), "lowest": min(of), "highest": max(of)} for name, of in found.items()}
    return {"benchmark": "host_time", "rounds": rounds, **before, "microseconds_per_step": told}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_time", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    result = measure(arguments.rounds)
    print(f"host's time of a step, microseconds, median [lowest, highest]; {result['device']}\n")
    for name, told in result["microseconds_per_step"].items():
        print(f"  {name:<24}{told['median']:8,.0f} [{told['lowest']:,.0f}, {told['highest']:,.0f}]")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
