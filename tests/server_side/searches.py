"""Small searches for tests: a tiny network on blobs of two moons' worth of noise, trained for a few dozen steps."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from server_side.find import main, prepare
from server_side.options import Options
from server_side.search import Search

# The command's arguments for such a search.
SMALL = [
    *("--data", "tests.server_side.searches:blobs", "--model", "tests.server_side.searches:Tiny", "--seeds", "3"),
    *("--rounds", "3", "--reinits", "2", "--steps", "60it", "--evaluate-every", "10it", "--batch", "16"),
    *("--validation", "0.2", "--engine", "stacked", "--threads", "1"),
]


class Watcher:
    """A training.Watch that counts, and asks to stop after `stop_after` calls of advanced."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.replica_steps = 0
        self.calls = 0

    def begin(self, what: str) -> None:
        pass

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        self.replica_steps += replica_steps
        self.calls += 1

    def stop_requested(self) -> bool:
        return self.stop_after is not None and self.calls >= self.stop_after


class Tiny(nn.Module):
    """20 -> 16 -> 8 -> 4."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        first, second = round(16 * width), round(8 * width)
        self.fc1, self.fc2, self.out = nn.Linear(20, first), nn.Linear(first, second), nn.Linear(second, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(torch.relu(self.fc2(torch.relu(self.fc1(x)))))
        return y


def normed() -> Any:
    return nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


def blobs() -> dict[str, Any]:
    """Four classes around random centres, 320 training and 80 test samples of 20 features."""
    generator = np.random.default_rng(7)
    centres = generator.normal(size=(4, 20)) * 0.7
    y = generator.integers(0, 4, 400)
    x = (centres[y] + generator.normal(size=(400, 20))).astype(np.float32)
    return {"x": x[:320], "y": y[:320], "x_test": x[320:], "y_test": y[320:]}


def options(path: Path, **changes: Any) -> Options:
    """Options of a search that takes a second."""
    settings: dict[str, Any] = {
        "data": f"{__name__}:blobs",
        "model": f"{__name__}:Tiny",
        "seeds": 2,
        "rounds": 2,
        "reinits": 1,
        "shuffles": 1,
        "steps": "40it",
        "evaluate_every": "10it",
        "batch": 16,
        "validation": 0.2,
        "engine": "stacked",
        "threads": 1,
        "output_dir": str(path),
        "quiet": True,
    }
    return Options(**{**settings, **changes})


def search(path: Path, watch: Watcher | None = None, **changes: Any) -> Search:
    """A prepared search with its run directory made."""
    torch.set_num_threads(1)
    prepared = prepare(options(path, **changes), watch or Watcher())
    prepared.directory.create()
    return prepared


def run_worker(arguments: list[str], environment: dict[str, str], told: str) -> None:
    """The command in a process of its own, with these variables set; what it prints goes to the file `told`."""
    os.environ.update(environment)
    with open(told, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(main(arguments))
