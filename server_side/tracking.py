"""A search as experiment trackers show it: the curves of each training, the means of each round, the result and its files.

A round is logged once it is finished, and once in all: tracking.json in the run directory says how far each tracker is, so a
search that goes on, or one that is finished, logs what is missing. A tracker that fails is told of once and left out; the
search goes on without it. Decides nothing: the same ticket with any tracker or none.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.atomic import write_file
from server_side.errors import UsageError

if TYPE_CHECKING:
    from server_side.rounds import Round
    from server_side.search import Search
    from server_side.trackers import Tracker
    from server_side.training import Training

PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}  # and what pip calls them
PIP = {"mlflow": "mlflow-skinny"}
CURVES = ("train_loss", "validation_loss", "validation_accuracy")
FIGURES = ("accuracy", "accuracy_end", "validation_accuracy", "early_stop_step")
STATE = "tracking.json"

Curves = Mapping[str, tuple[list[int], list[float]]]  # steps and values by name, what is not finite left out


def check(name: str | None) -> None:
    """Raises UsageError where what a tracker needs is not installed."""
    needed = PACKAGES.get(name or "", ())
    if name == "mlflow" and "MLFLOW_TRACKING_URI" in os.environ:
        needed = needed[:1]  # the others are for a database of one's own
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        raise UsageError(
            f"tracker {name}: {', '.join(missing)} not installed; pip install "
            f"{' '.join(PIP.get(package, package) for package in missing)}, or leave it out"
        )


class Tracking:
    """Follows one search in the tracker that its options name, if any. Raises nothing."""

    def __init__(self, search: Search) -> None:
        self.search, self.name = search, search.options.tracker
        self._failed = False
        self._tracker: Tracker | None = None
        self._states: dict[str, Any] = {}

    def after_round(self, rounds: list[Round]) -> None:
        """Logs all of them that are not logged yet."""
        self._guarded(lambda tracker, state: self._log_rounds(tracker, state, rounds))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Logs what `result`, that of --json, says of the whole search, and its files."""
        self._guarded(lambda tracker, state: self._log_result(tracker, state, result))

    def _guarded(self, log: Callable[[Tracker, dict[str, Any]], None]) -> None:
        if self.name is None or self._failed:
            return
        try:
            if self._tracker is None:
                self._tracker = self._opened()
            log(self._tracker, self._states[self._tracker.place])
        except Exception as error:  # whatever a package of others raises, days of training do not hang on it
            self._failed = True
            told = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"find: warning: tracker {self.name}: {told}; the search goes on without it", file=sys.stderr)

    def _opened(self) -> Tracker:
        from server_side.trackers import open_tracker

        try:
            self._states = dict(json.loads((self.search.directory.path / STATE).read_text()))
        except (OSError, ValueError, TypeError):
            self._states = {}
        tracker = open_tracker(str(self.name), self.search.directory.path)
        state = self._states.setdefault(tracker.place, {"rounds": 0, "finished": False})
        state["run"] = tracker.begin(state.get("run"), self._options())
        self._save()
        return tracker

    def _save(self) -> None:
        content = json.dumps(self._states, indent=1, sort_keys=True) + "\n"
        write_file(self.search.directory.path / STATE, content.encode())

    def _options(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.search.options.identity().items() if value is not None}

    def _log_rounds(self, tracker: Tracker, state: dict[str, Any], rounds: list[Round]) -> None:
        for r in rounds[state["rounds"] :]:
            tracker.drop_round(r.number)  # what a start that was killed here may have logged of it
            for name, training in r.trainings.items():
                tracker.log_training(r.number, name, curves(training))
            tracker.log_round(r.number, round_figures(r))
            state["rounds"] = r.number + 1
            self._save()

    def _log_result(self, tracker: Tracker, state: dict[str, Any], result: Mapping[str, Any]) -> None:
        if state["finished"]:
            return
        files = [Path(result["report"]), Path(result["ticket"])]
        tracker.log_result(result_figures(result), files)
        state["finished"] = True
        self._save()


def curves(training: Training) -> Curves:
    """Over the steps of a training."""
    found = {}
    for name in CURVES:
        values = getattr(training, name)
        known = np.isfinite(values)
        found[name] = (training.steps[known].tolist(), values[known].tolist())
    return found


def round_figures(r: Round) -> dict[str, float]:
    """Means over seeds, as `figure/kind`, and the density."""
    figures: dict[str, float] = {"density": r.density}
    for kind, measured in r.measured.items():
        of_kind = measured.to_json()
        figures |= {f"{name}/{kind}": of_kind[name] for name in FIGURES if of_kind[name] is not None}
    return figures


def result_figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Of the chosen ticket; what the verdict says as 0 or 1, without what it could not say."""
    judged = {name: result["verdict"][name] for name in ("winning", "matching", "equivalent", "stable")}
    figures = {
        "density": result["density"],
        "round": result["round"],
        "accuracy/dense": result["dense"]["accuracy"],
        "accuracy/ticket": result["ticket_at_density"]["accuracy"],
        **judged,
    }
    return {f"result/{name}": float(value) for name, value in figures.items() if value is not None}
