"""Every method and every experiment on the embedded data set, digits; what defines each is tested beside it, on blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server_side import experiments
from server_side.data import load_data
from tests.server_side.experiments import finished, told
from tests.server_side.searches import search
from tests.server_side.test_methods import EVERY

SHORT: dict[str, Any] = {
    "data": "digits",
    "model": "lenet-300-100-digits",
    "steps": "30it",
    "evaluate_every": "10it",
    "batch": 32,
    "engine": "device",
    "seeds": 2,
    "rounds": 1,
    "prune_fraction": 0.6,
    "accuracy_tolerance": 0.9,
}

SMALLER = {
    "size-sweep": ("--widths", "[1, 1.5]"),
    "transfer": (f"--data+={__name__}:negatives",),
}


def negatives() -> dict[str, Any]:
    """Light and dark exchanged."""
    digits = load_data("digits")
    return {"x": 16 - digits.x_train, "y": digits.y_train, "x_test": 16 - digits.x_test, "y_test": digits.y_test}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("digits"), **SHORT)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_learns_digits_at_its_density(tmp_path: Path, method: str) -> None:
    small = search(tmp_path, **SHORT, method=method)
    dense, pruned = small.run()
    assert [sum(int(mask.sum()) for mask in r.masks[1].values()) for r in (dense, pruned)] == small.ladder.live
    assert all(mask.any() for mask in pruned.masks[1].values())
    assert pruned.measured["ticket"].accuracy.mean() > 0.3  # by chance a tenth


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_runs_on_digits(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, name, str(run), *SMALLER.get(name, ()))["result"]
