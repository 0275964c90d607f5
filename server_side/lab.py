"""What an experiment works with: a finished search, read from its run directory, and the means to train as it did.

    RUN_DIR/experiments/LABEL/   identity.json   STAGE/ (training_folder.py)   results.json

identity.json holds what the results depend on: the experiment, its options, the search. Another one is refused. Nothing of
the search is trained again; one that is not finished is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.atomic import write_file
from export.ticket import load_ticket
from server_side import report
from server_side.controls import Values, apply_masks
from server_side.data import ARRAYS, Split
from server_side.errors import UsageError
from server_side.experiments import FOLDER
from server_side.find import prepare
from server_side.models import Model, load_model
from server_side.options import Options
from server_side.presets import PRESETS
from server_side.rounds import Round
from server_side.run_directory import kept_options
from server_side.search import Search
from server_side.stability import with_rewind_step
from server_side.stacked_program import StackedProgram
from server_side.stage import STACK_SIZE
from server_side.training import Job, Recipe, Training, Watch
from server_side.training_folder import TrainingFolder
from server_side.workers import Team

IDENTITY = "identity.json"
LABEL = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, eq=False)
class Place:
    """A search, and in `rounds` what it found; empty while it is not run."""

    search: Search
    rounds: list[Round]

    @property
    def name(self) -> str:
        """Of its data."""
        return self.search.data.name

    def rewound(self, seed: int) -> Values:
        """Search.rewound of what was found."""
        return self.search.rewound(self.rounds, seed)

    def fresh(self, seed: int, *purpose: str | int) -> Values:
        """Search.fresh."""
        return self.search.fresh(seed, *purpose)


@dataclass(frozen=True, eq=False)
class Lab(Place):
    """A finished search and a place for an experiment on it. `options` are those of the experiment; `found` is what `find`
    told in results.json; `number` is the round whose tickets are asked about, by default that of the search's ticket; `path` is
    the experiment's own folder."""

    found: dict[str, Any]
    number: int
    options: Any
    path: Path
    watch: Watch

    @property
    def chosen(self) -> Round:
        return self.rounds[self.number]

    @property
    def seeds(self) -> range:
        return self.search.seeds

    def ticket_start(self, seed: int) -> Values:
        """The weights that the chosen round's ticket of `seed` started from, pruned ones 0."""
        return apply_masks(self.chosen.start[seed], self.chosen.masks[seed])

    def check_rewound(self) -> None:
        """Raises UsageError where the search's tickets started from weights that were trained further than to the rewind
        step: what an experiment starts there has less training behind it than they have."""
        if (retrain := self.search.options.retrain) != "weights":
            raise UsageError(
                f"'{self.search.directory.path}' was searched with retrain {retrain}: its tickets start from trained weights, and "
                "this compares them with networks that start from those of the rewind step; take a run with --retrain weights"
            )

    def train(
        self,
        stage: str,
        jobs: Iterable[Job],
        *,
        model: Model | None = None,
        recipe: Recipe | None = None,
        split: Split | None = None,
    ) -> dict[str, Training]:
        """Every job by its name, by the search's engine, with its model, recipe and data unless others are given; what the
        folder of `stage` holds is taken from there. Raises Interrupted as a search does. A stage is trained once, with all
        its jobs: those that are stacked share their bits with the others of the stack."""
        jobs = list(jobs)
        assert len({job.name for job in jobs}) == len(jobs), "two jobs of one name"
        self.watch.begin(f"{stage}, {len(jobs)} networks")
        ours = self.search.stage(TrainingFolder(self.path / stage))
        ours = replace(ours, model=model or ours.model, recipe=recipe or ours.recipe, split=split or ours.split)
        return replace(ours, team=Team(self.path, ours.team.worker, self.watch)).train(jobs)

    def model(self, width: float) -> Model:
        """The search's model with its hidden widths multiplied by `width`; raises UsageError where it has no such argument."""
        model = _of_width(self.search.model.name, self.search.data.input_shape, self.search.data.classes, width)
        return model.from_seed() if self.search.options.init_from_seed else model

    def accuracies(self, networks: list[Values], *, model: Model | None = None) -> NDArray[np.float64]:
        """(networks,) accuracy on the test part of networks with these weights, as they are."""
        device = self.search.device()
        program = StackedProgram((model or self.search.model).factory().to(device))
        split = self.search.split
        test = torch.from_numpy(split.x_test).to(device), torch.from_numpy(split.y_test).to(device)
        found = []
        for first in range(0, len(networks), STACK_SIZE):
            some = networks[first : first + STACK_SIZE]
            stack = {name: torch.from_numpy(np.stack([values[name] for values in some])).to(device) for name in some[0]}
            found.append(program.evaluate(stack, test)[1])
        return np.concatenate(found)

    def check(self, name: str) -> None:
        """Raises UsageError where the folder belongs to another experiment than `name`, other options or another search."""
        if (path := self.path / IDENTITY).exists():
            _check_same(self.path, _read(path), self._identity(name))

    def begin(self, name: str) -> None:
        """Makes the folder for experiment `name`; raises UsageError as `check` does."""
        self.check(name)
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.path / IDENTITY, json.dumps(self._identity(name), indent=1, sort_keys=True).encode())

    def conclude(self, name: str, stages: list[tuple[str, int, int]], result: dict[str, Any]) -> dict[str, Any]:
        """Writes results.json and renews the run's report; returns what --json prints."""
        told = {
            **self._identity(name),
            "label": self.path.name,
            "trainings": sum(trainings for _, trainings, _ in stages),
            "steps": sum(steps for _, _, steps in stages),
            "result": result,
        }
        write_file(self.path / "results.json", json.dumps(told, indent=1, allow_nan=False).encode())
        search = self.search
        page = search.directory.path / "report.html"
        ticket = load_ticket(search.directory.path / "ticket")
        best = self.rounds[int(self.found["round"])]
        write_file(page, report.render(search, self.rounds, best, ticket, self.found).encode())
        return {**told, "report": str(page)}

    def _identity(self, name: str) -> dict[str, Any]:
        run = self.search.directory
        digest = hashlib.sha256(json.dumps([run.options, run.facts], sort_keys=True).encode()).hexdigest()
        options = {} if self.options is None else dataclasses.asdict(self.options)
        known = json.loads(json.dumps(options))
        return {
            "experiment": name,
            "round": self.number,
            "options": known,
            "search": digest,
            "ticket_hash": self.found["ticket_hash"],
        }


def open_lab(run: Path, label: str, options: Any, watch: Watch, number: int | None = None) -> Lab:
    """The lab of a run directory for an experiment called `label` on the tickets of round `number`, by default the chosen one;
    nothing is written. Raises UsageError where the run is damaged, not finished, has no such round, or is of other data or
    versions than there are now."""
    if not LABEL.fullmatch(label):
        raise UsageError(f"label '{label}': take small letters, digits, dots and dashes")
    kept = kept_options(run)
    if not kept:
        raise UsageError(f"run directory '{run}' holds no search; find a ticket first, or name its directory")
    if unknown := sorted(set(kept) - {field.name for field in fields(Options)}):
        raise UsageError(f"run directory '{run}' was begun with '{unknown[0]}', which is unknown here; find it anew")
    _check_named(run, kept)
    search = prepare(Options(**{**kept, "output_dir": str(run), "quiet": True}), watch)
    torch.set_num_threads(search.options.threads)
    found = _read(run / "results.json")
    if not found.get("complete"):
        raise _unfinished(run)
    found |= {"ticket": str(run / "ticket"), "report": str(run / "report.html")}  # the run may have been moved
    finished = _Finished(**{field.name: getattr(search, field.name) for field in fields(search)})
    there, _ = with_rewind_step(finished)
    rounds = there.run(lambda rounds: len(rounds) == len(found["rounds"]))
    search = replace(search, rewind_step=there.rewind_step)
    number = int(found["round"]) if number is None else number
    if not 1 <= number < len(rounds):
        raise UsageError(f"round {number}: '{run}' has the rounds 1 to {len(rounds) - 1}")
    return Lab(search, rounds, found, number, options, run / FOLDER / label, watch)


@functools.cache
def _of_width(name: str, input_shape: tuple[int, ...], classes: int, width: float) -> Model:
    return load_model(name, input_shape, classes, width)


class _Finished(Search):
    """A search all of whose trainings are on disk."""

    def train_round(self, number: int, jobs: list[Job]) -> dict[str, Training]:
        folder = self.directory.round_folder(number)
        trainings = {job.name: folder.load(job) for job in jobs}
        if None in trainings.values():
            raise _unfinished(self.directory.path)
        return {name: training for name, training in trainings.items() if training is not None}


def _unfinished(run: Path) -> UsageError:
    return UsageError(
        f"the search in '{run}' is not finished; let python -m server_side.find --config {run}/config.json --output-dir {run} end"
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or a damaged one."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _check_named(run: Path, kept: dict[str, Any]) -> None:
    """Raises UsageError where data or model were Python objects, of which a run directory has no more than a hash."""
    model = str(kept.get("model", ""))
    nameless = [
        *(["data were given as arrays"] if kept.get("data") == ARRAYS else []),
        *([f"model '{model}' cannot be imported"] if model and model not in PRESETS and ":" not in model else []),
    ]
    if nameless:
        raise UsageError(
            f"run directory '{run}': its {' and its '.join(nameless)}, so an experiment cannot have them again; run find_ticket "
            "with a model in an importable module and data by a source, e.g. npz:FILE or package.module:function"
        )


def _check_same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UsageError naming what differs."""
    remedy = "give it a --label of its own, or remove that folder"
    if there.get("experiment") != wanted["experiment"]:
        raise UsageError(f"'{path}' holds experiment {there.get('experiment')}, not {wanted['experiment']}; {remedy}")
    for name in ("search", "ticket_hash"):
        if there.get(name) != wanted[name]:
            raise UsageError(f"'{path}' holds an experiment on another search; {remedy}")
    if there.get("round") != wanted["round"]:
        raise UsageError(f"'{path}' holds an experiment on round {there.get('round')}, not {wanted['round']}; {remedy}")
    known = there.get("options", {})
    for name in sorted({*known, *wanted["options"]}):
        before, now = known.get(name), wanted["options"].get(name)
        if before != now:
            raise UsageError(f"'{path}' holds an experiment with {name} {before!r}, not {now!r}; {remedy}")
