"""Trains the jobs of one stage, a round of a search or a part of an experiment, by the engine that the options name.

What its folder holds is taken from there, the rest is trained and saved one by one, so that a killed command goes on with
the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from server_side.data import Split
from server_side.models import Model
from server_side.options import Options
from server_side.stacked import StackedEngine
from server_side.training import Job, Recipe, Training, Watch
from server_side.training_folder import TrainingFolder

STACK_SIZE = 64


@dataclass(frozen=True)
class Stage:
    """Where trainings are kept and what they are made with."""

    folder: TrainingFolder
    model: Model
    split: Split
    recipe: Recipe
    options: Options
    watch: Watch

    def train(self, jobs: list[Job]) -> dict[str, Training]:
        """Every job by its name, in their order. Raises Interrupted with what is under way saved, UsageError where a job that
        is no control diverges."""
        self.folder.create()
        done = {job.name: self.folder.load(job) for job in jobs}
        trainings = {name: training for name, training in done.items() if training is not None}
        if self.options.engine == "device" and all(job.moving is None for job in jobs):
            self._train_on_device_engine(jobs, trainings)
        else:
            engine = StackedEngine(self.model, self.split, self.recipe, torch.device(self.options.accelerator))
            for position, stack in enumerate(_stacks(jobs)):
                self._train_stack(engine, position, stack, trainings)
        return {job.name: trainings[job.name] for job in jobs}

    def _train_on_device_engine(self, jobs: list[Job], trainings: dict[str, Training]) -> None:
        from server_side.device_engine import DeviceEngine  # needs the compiled core: only where it is used

        def finished(job: Job, training: Training) -> None:
            self.folder.save(job, training)
            trainings[job.name] = training
            self.folder.job_checkpoint(job).unlink(missing_ok=True)

        there = [job for job in jobs if job.name in trainings]
        self._advance_finished(there)
        for job in there:  # a kill may have come between the training and the end of its checkpoint
            self.folder.job_checkpoint(job).unlink(missing_ok=True)
        left = [job for job in jobs if job.name not in trainings]
        engine = DeviceEngine(self.model.network, self.split, self.recipe, self.options.threads)
        engine.train(left, {job.name: self.folder.job_checkpoint(job) for job in left}, self.watch, finished)

    def _train_stack(
        self, engine: StackedEngine, position: int, stack: list[Job], trainings: dict[str, Training]
    ) -> None:
        """A stack is trained whole or not at all: in another grouping its bits might differ."""
        checkpoint = self.folder.stack_checkpoint(stack[0].kind, position)
        if all(job.name in trainings for job in stack):
            self._advance_finished(stack)
            checkpoint.unlink(missing_ok=True)
            return
        for job, training in zip(stack, engine.train(stack, checkpoint, self.watch), strict=True):
            self.folder.save(job, training)
            trainings[job.name] = training
        checkpoint.unlink(missing_ok=True)

    def _advance_finished(self, jobs: list[Job]) -> None:
        self.watch.advanced(sum(self.recipe.steps - job.first_step for job in jobs), np.nan, np.nan)


def _stacks(jobs: list[Job]) -> list[list[Job]]:
    """Jobs that are trained as one program: of the same steps, rates, snapshots and moves of masks, at most STACK_SIZE
    together."""
    by_start: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        by_start[job.first_step, job.holds_rate, job.snapshot_steps, job.moving].append(job)
    return [group[i : i + STACK_SIZE] for group in by_start.values() for i in range(0, len(group), STACK_SIZE)]
