"""TensorBoard and MLflow behind one interface; each package is imported only where it is used.

TensorBoard: tensorboard/ in the run directory, a run a training (`round-03/seed0-ticket`) and `rounds` over all. MLflow: at
MLFLOW_TRACKING_URI, else mlflow.db in the run directory; one run with a child a training.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from server_side.tracking import Curves

EXPERIMENT = "pocket-ticket"  # where MLFLOW_EXPERIMENT_NAME is not set
BATCH = 1000  # the most metrics that an MLflow server takes at once


class Tracker(Protocol):
    """Where a search is logged. Any method may raise what its package raises."""

    @property
    def place(self) -> str:
        """What tells it from other trackers, a server's address among it."""

    def begin(self, run: str | None, options: Mapping[str, str]) -> str | None:
        """Takes up `run`, what an earlier start got from here, or begins one."""

    def drop_round(self, number: int) -> None:
        """Removes what is logged of a round."""

    def log_training(self, number: int, name: str, curves: Curves) -> None:
        """A finished training of round `number`."""

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        """The means of a round."""

    def log_result(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """The end of the search; `files` are files and directories."""


def open_tracker(name: str, folder: Path) -> Tracker:
    """The tracker of a run directory."""
    return TensorBoard(folder) if name == "tensorboard" else MLflow(folder)


class TensorBoard:
    """Event files, of which it shows the figures; the report and the ticket are beside them anyway."""

    place = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def begin(self, run: str | None, options: Mapping[str, str]) -> None:
        if not self.folder.exists():
            rows = "\n".join(f"| {name} | {value} |" for name, value in options.items())
            with self._writer("rounds", "options") as writer:
                writer.add_text("options", f"| option | value |\n|---|---|\n{rows}")

    def drop_round(self, number: int) -> None:
        shutil.rmtree(self.folder / _folder(number), ignore_errors=True)
        for path in (self.folder / "rounds").glob(f"*.{_folder(number)}"):
            path.unlink()

    def log_training(self, number: int, name: str, curves: Curves) -> None:
        with self._writer(f"{_folder(number)}/{name}") as writer:
            for tag, (steps, values) in curves.items():
                for step, value in zip(steps, values, strict=True):
                    writer.add_scalar(tag, value, step)

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        self._log("rounds", _folder(number), figures, number)

    def log_result(self, figures: Mapping[str, float], files: list[Path]) -> None:
        self._log("rounds", "result", figures, 0)

    def _log(self, run: str, suffix: str, figures: Mapping[str, float], step: int) -> None:
        with self._writer(run, suffix) as writer:
            for tag, value in figures.items():
                writer.add_scalar(tag, value, step)

    def _writer(self, run: str, suffix: str = "curves") -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / run), filename_suffix=f".{suffix}")


class MLflow:
    """One run of an experiment, tagged by the run directory's name, and in it a child run a training."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        folder = folder.resolve()
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self.place = f"mlflow {given or 'mlflow.db'}"
        self._folder, self._files = folder, None if given else (folder / "mlflow-files").as_uri()
        self._client = MlflowClient(tracking_uri=given or f"sqlite:///{folder}/mlflow.db")
        self._experiment = self._run = ""

    def begin(self, run: str | None, options: Mapping[str, str]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        there = self._client.get_experiment_by_name(name)
        if there is None:
            self._experiment = self._client.create_experiment(name, artifact_location=self._files)
        else:
            self._experiment = there.experiment_id
        if run is None:
            run = self._client.create_run(self._experiment, run_name=self._folder.name).info.run_id
            for option, value in options.items():
                self._client.log_param(run, option, value)
        self._run = run
        return run

    def drop_round(self, number: int) -> None:
        its = f"tags.`mlflow.parentRunId` = '{self._run}' and tags.round = '{number}'"
        while found := self._client.search_runs([self._experiment], its, max_results=BATCH):
            for child in found:
                self._client.delete_run(child.info.run_id)

    def log_training(self, number: int, name: str, curves: Curves) -> None:
        tags = {"mlflow.parentRunId": self._run, "round": str(number)}
        child = self._client.create_run(self._experiment, tags=tags, run_name=f"{_folder(number)} {name}").info.run_id
        self._log(
            child, [(tag, value, step) for tag, pair in curves.items() for step, value in zip(*pair, strict=True)]
        )
        self._client.set_terminated(child)

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        self._log(self._run, [(tag, value, number) for tag, value in figures.items()])

    def log_result(self, figures: Mapping[str, float], files: list[Path]) -> None:
        self._log(self._run, [(tag, value, 0) for tag, value in figures.items()])
        for path in files:
            if path.is_dir():
                self._client.log_artifacts(self._run, str(path), path.name)
            else:
                self._client.log_artifact(self._run, str(path))
        self._client.set_terminated(self._run)

    def _log(self, run: str, rows: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, step) for tag, value, step in rows]
        for first in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics[first : first + BATCH])


def _folder(number: int) -> str:
    return f"round-{number:02d}"
