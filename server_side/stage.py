"""Trains the jobs of one stage, a round of a search or a part of an experiment, by the engine that the options name.

What its folder holds is taken from there, the rest is trained, by this worker or by another of its team, and saved one by
one, so that a killed command goes on with the same bits.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from server_side.data import Split
from server_side.models import Model
from server_side.options import Options
from server_side.stacked import StackedEngine
from server_side.stacked_program import Arithmetic
from server_side.training import Job, Recipe, Training
from server_side.training_folder import TrainingFolder
from server_side.workers import Claim, Team, Unit

STACK_SIZE = 64


@dataclass(frozen=True)
class Stage:
    """Where trainings are kept and what they are made with; `team`: who makes them."""

    folder: TrainingFolder
    model: Model
    split: Split
    recipe: Recipe
    options: Options
    team: Team

    def train(self, jobs: list[Job]) -> dict[str, Training]:
        """Every job by its name, in their order. Raises Interrupted with what is under way saved, UsageError where a job that
        is no control diverges."""
        self.folder.create()
        trainings: dict[str, Training] = {}
        together = len(jobs) < (self.options.replica_workers or 1)

        def is_done(unit: Unit) -> bool:
            for job in unit.jobs:
                if job.name not in trainings and (training := self.folder.load(job)) is not None:
                    trainings[job.name] = training
            done = all(job.name in trainings for job in unit.jobs)
            if done:  # a kill may have come between the training and the end of its checkpoint
                unit.checkpoint.unlink(missing_ok=True)
            return done

        def finished(job: Job, training: Training) -> None:
            if self.team.worker.rank == 0 or not together:
                self.folder.save(job, training)
            trainings[job.name] = training

        if self.options.engine == "stacked" or any(job.needs_stack for job in jobs):
            stacks = enumerate(self._stacks(jobs))
            units = [self._unit(s, self.folder.stack_checkpoint(s[0].kind, position)) for position, s in stacks]
            self.team.work_off(units, is_done, functools.partial(self._train_stacks, finished))
        else:
            units = [self._unit([job], self.folder.job_checkpoint(job)) for job in jobs]
            if self.options.engine == "device":
                train = functools.partial(self._train_on_device_engine, finished)
            else:
                train = functools.partial(self._train_large, finished, together)
            self.team.work_off(units, is_done, train)
        return {job.name: trainings[job.name] for job in jobs}

    def _unit(self, jobs: list[Job], checkpoint: Path) -> Unit:
        return Unit(tuple(jobs), checkpoint, sum(self.recipe.steps - job.first_step for job in jobs))

    def _stacks(self, jobs: list[Job]) -> list[list[Job]]:
        """Jobs that are trained as one program: of the same steps, rates, snapshots, moves of masks and distillation, and not
        too many together. The number of workers is no part of it."""
        by_start: dict[Any, list[Job]] = defaultdict(list)
        for job in jobs:
            taught = None if job.distillation is None else job.distillation.setting
            by_start[job.first_step, job.holds_rate, job.snapshot_steps, job.moving, taught].append(job)
        size = self.options.stack_size or STACK_SIZE
        return [group[i : i + size] for group in by_start.values() for i in range(0, len(group), size)]

    def _train_on_device_engine(
        self, finished: Callable[[Job, Training], None], units: list[Unit], claim: Claim
    ) -> None:
        from server_side.device_engine import DeviceEngine  # needs the compiled core: only where it is used

        of_job = {unit.jobs[0].name: unit for unit in units}
        checkpoints = {name: unit.checkpoint for name, unit in of_job.items()}
        engine = DeviceEngine(self.model.network, self.split, self.recipe, self.options.threads)
        engine.train([unit.jobs[0] for unit in units], checkpoints, lambda job: claim(of_job[job.name]), finished)

    def _train_large(
        self, finished: Callable[[Job, Training], None], together: bool, units: list[Unit], claim: Claim
    ) -> None:
        from server_side.fabric_engine import FabricEngine  # an extra of the package

        engine = FabricEngine(self.model, self.split, self.recipe, self.options, self.team.worker, together=together)
        engine.train(units, claim, self.team.watch, finished)

    def _train_stacks(self, finished: Callable[[Job, Training], None], units: list[Unit], claim: Claim) -> None:
        """A stack is trained whole or not at all: in another grouping its bits might differ."""
        options = self.options
        arithmetic = Arithmetic(options.precision or "32-true", options.compile)
        engine = StackedEngine(self.model, self.split, self.recipe, torch.device(options.accelerator), arithmetic)
        for unit in units:
            with claim(unit) as watch:
                if watch is not None:
                    trained = engine.train(list(unit.jobs), unit.checkpoint, watch)
                    for job, training in zip(unit.jobs, trained, strict=True):
                        finished(job, training)
