"""The algorithm: train, prune, rewind, again (Frankle & Carbin 2019), with its controls beside it in every round.

Rewinding is three independent choices: where the mask comes from (the previous round's weights, or always the dense
network's), which weights the ticket starts from (those at the rewind step), and where its schedule starts (that step).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.ticket import Ticket
from server_side import methods
from server_side.controls import Values, apply_masks, shuffle_masks
from server_side.data import Dataset, Split
from server_side.errors import UsageError
from server_side.ladder import Ladder, ladder
from server_side.models import Model
from server_side.options import Options
from server_side.prune import LayerCollapse, Masks, checked, live_count
from server_side.run_directory import RunDirectory
from server_side.seeds import derive, generator
from server_side.stacked import StackedEngine
from server_side.training import Job, Recipe, Training, Watch, evaluation_steps
from server_side.verdict import Measured
from server_side.workers import Claim, Team, Unit

STACK_SIZE = 64


@dataclass(frozen=True)
class Round:
    """One density: what was trained there, the masks it was trained with and the weights, of all positions, that its
    tickets started from, by seed. Round 0 is dense."""

    number: int
    density: float
    masks: dict[int, Masks]
    start: dict[int, Values]
    trainings: dict[str, Training]
    measured: dict[str, Measured]

    def layer_densities(self, seed: int) -> dict[str, float]:
        return {name: float(mask.mean()) for name, mask in self.masks[seed].items()}


@dataclass(frozen=True)
class Search:
    """Everything a search needs, checked; `run()` is the algorithm."""

    options: Options
    data: Dataset
    split: Split
    model: Model
    recipe: Recipe
    rewind_step: int
    directory: RunDirectory
    watch: Watch
    team: Team

    @property
    def seeds(self) -> range:
        return range(self.options.seed, self.options.seed + self.options.seeds)

    @property
    def tolerance(self) -> float:
        return float(self.options.filled("accuracy_tolerance"))

    def run(self, after_round: Callable[[list[Round]], None] = lambda rounds: None) -> list[Round]:
        """All rounds, the dense one first; finished trainings are taken from the run directory. Calls `after_round` with
        the rounds so far. Raises UsageError where a dense network or a ticket diverges; a control may."""
        rounds = [self._dense_round()]
        after_round(rounds)
        for number in range(1, len(self.ladder.rungs)):
            try:
                masks = self._masks(rounds, number)
            except LayerCollapse as collapse:
                if number == 1:
                    raise UsageError(f"{collapse}; take a smaller prune_fraction") from collapse
                break
            rounds.append(self._pruned_round(rounds, number, masks))
            after_round(rounds)
            if self.options.until_accuracy_falls and self._has_fallen(rounds[-1]):
                break
        return rounds

    def _dense_round(self) -> Round:
        everything = self.keeper.all_live()
        start = {seed: self.theta(seed) for seed in self.seeds}
        kept = {self.rewind_step} if self.rewind_step else set()
        if self.options.method == "early-bird":
            kept |= set(methods.early_bird_checks(evaluation_steps(self.recipe, 0)))
        jobs = [
            Job(seed, "dense", 0, start[seed], everything, snapshot_steps=tuple(sorted(kept))) for seed in self.seeds
        ]
        return self._round(0, jobs, dict.fromkeys(self.seeds, everything), start, {})

    def _pruned_round(self, rounds: list[Round], number: int, masks: dict[int, Masks]) -> Round:
        """Its tickets start from weights of the rewind step or from those that decided their masks."""
        if self.options.retrain == "weights":
            start = {seed: self._rewound(rounds, seed) for seed in self.seeds}
        elif self.options.method in methods.MOVING:
            start = {seed: training.final for seed, training in self._mask_trainings(rounds, number).items()}
        else:
            start = {seed: self._deciding(rounds, seed) for seed in self.seeds}
        dense = {"dense": rounds[0].measured["dense"]}
        return self._round(number, list(self._jobs(start, masks, number)), masks, start, dense)

    def _masks(self, rounds: list[Round], number: int) -> dict[int, Masks]:
        """Of round `number`, by seed, from the rounds before it. Raises LayerCollapse."""
        method = self.options.method
        if method in methods.MOVING:
            return {seed: checked(training.masks) for seed, training in self._mask_trainings(rounds, number).items()}
        if method == "early-bird":
            birds = {s: methods.early_bird(self.keeper, _dense(rounds, s), number) for s in self.seeds}
            return {seed: bird.mask or self.keeper.all_live() for seed, bird in birds.items()}
        if method in methods.SCORED:
            return {seed: self._scored(rounds, seed, number) for seed in self.seeds}
        found = {}
        for seed in self.seeds:
            deciding, before = self._deciding(rounds, seed), rounds[-1].masks[seed]
            found[seed] = methods.by_magnitude(self.keeper, deciding, before, number)
        return found

    def _scored(self, rounds: list[Round], seed: int, number: int) -> Masks:
        batches = methods.score_batches(self.split, seed, self.recipe.batch)
        method, module = self.options.method, self.model.factory()
        return methods.by_score(method, self.keeper, module, batches, self._rewound(rounds, seed), seed, number)

    def _mask_trainings(self, rounds: list[Round], number: int) -> dict[int, Training]:
        """The trainings of a round in which the masks moved; always stacked, the device's runtime has no such thing."""
        strength = float(self.options.regularisation or 0.0)
        jobs = [
            methods.moving_job(self.options.method, self.keeper, rounds[0].start[seed], seed, number, strength)
            for seed in self.seeds
        ]
        trained = self._trained(number, jobs)
        return {job.seed: trained[job.name] for job in jobs}

    def _deciding(self, rounds: list[Round], seed: int) -> Values:
        """The trained weights that decided the masks of the round that is to come."""
        if len(rounds) > 1 and self.options.method == "iterative":
            return rounds[-1].trainings[f"seed{seed}-ticket"].final
        return _dense(rounds, seed).final

    def _rewound(self, rounds: list[Round], seed: int) -> Values:
        if self.rewind_step == 0:
            return rounds[0].start[seed]
        return _dense(rounds, seed).snapshots[self.rewind_step]

    def theta(self, seed: int) -> Values:
        """The initial weights of replicate `seed`."""
        return {name: value.numpy() for name, value in self.model.initial_weights(derive(seed, "init")).items()}

    @functools.cached_property
    def ladder(self) -> Ladder:
        """Live weights after each round."""
        return ladder(self.model.network, self.options)

    @functools.cached_property
    def keeper(self) -> methods.Keeper:
        """What turns scores into the masks of a round."""
        return methods.Keeper(self.model.network, self.ladder, self.options.structure)

    def untrainable(self) -> str | None:
        """What in the network or recipe this search cannot train, and what to do about it; None if it can train all."""
        operators = {node.op for node in self.model.network.nodes}
        if "embedding" in operators:
            return (
                "an embedding reads whole numbers, but a search trains on normalised samples; leave the embedding out"
            )
        if self.on_device_engine and self._unfit is not None:
            return f"{self._unfit}; the device engine trains by the same format, so take --engine stacked"
        return None

    def warnings(self) -> list[str]:
        """What a user should know before a long search."""
        told = []
        if (unfit := self._unfit) is not None:
            told.append(f"{unfit}: the ticket can be found, but no .tkt for devices can be made of it")
        together = (self.options.stack_size or STACK_SIZE) if self.options.engine == "stacked" else 1
        workers, trainings = self.team.worker.size, self.training_count(1)
        if workers > (shared := -(-trainings // together)) and (self.options.replica_workers or 1) == 1:
            less = "" if together == 1 else f"; --stack-size {max(1, trainings // workers)} gives them more"
            told.append(f"{workers} workers share about {shared} programs a round, and some have nothing to do{less}")
        return told

    @functools.cached_property
    def _unfit(self) -> str | None:
        """A limit of the device's format that the network or the recipe exceeds."""
        from server_side.device_engine import unfit_for_devices

        return unfit_for_devices(self.model.network, self.recipe, self.theta(self.options.seed))

    def training_count(self, number: int) -> int:
        """Trainings of round `number`."""
        return self.options.seeds * (1 if number == 0 else 1 + self.options.reinits + self.options.shuffles)

    def step_count(self, number: int) -> int:
        """Training steps of round `number`, over all its trainings."""
        rewound = 0 if number == 0 else 1 + self.options.shuffles
        return self.training_count(number) * self.recipe.steps - self.options.seeds * rewound * self.rewind_step

    def _jobs(self, start: dict[int, Values], masks: dict[int, Masks], number: int) -> Iterable[Job]:
        """The tickets of a round, from the weights `start`, and their controls, all with the budget of the dense network.

        A ticket starts from the dense weights of the rewind step k and trains from there to the end: k steps went into its
        weights before. So did they into a shuffle's, which starts from the same weights. A reinit's fresh weights have no
        step behind them: it starts at step 0 and trains k steps more (in open_lth: `start_at_step_zero`).
        """
        first, held = self.rewind_step, self.options.retrain == "fine-tune"
        for seed in self.seeds:
            masked = apply_masks(start[seed], masks[seed])
            yield Job(seed, "ticket", 0, masked, masks[seed], first, holds_rate=held)
        for seed in self.seeds:
            for index in range(self.options.reinits):
                fresh = self.model.initial_weights(derive(seed, "reinit", number, index))
                values = apply_masks({name: value.numpy() for name, value in fresh.items()}, masks[seed])
                yield Job(seed, "reinit", index, values, masks[seed])
            for index in range(self.options.shuffles):
                shuffled = shuffle_masks(masks[seed], generator(seed, "shuffle", number, index))
                masked = apply_masks(start[seed], shuffled)
                yield Job(seed, "shuffle", index, masked, shuffled, first, holds_rate=held)

    def _round(
        self,
        number: int,
        jobs: list[Job],
        masks: dict[int, Masks],
        start: dict[int, Values],
        measured: Mapping[str, Measured],
    ) -> Round:
        """Trains `jobs`; `measured` is what is known of the round without them."""
        trainings = self._trained(number, jobs)
        kinds = {
            kind: measure([[trainings[j.name] for j in jobs if (j.kind, j.seed) == (kind, s)] for s in self.seeds])
            for kind in dict.fromkeys(job.kind for job in jobs)
        }
        return Round(number, self._density(masks), masks, start, trainings, {**measured, **kinds})

    def _trained(self, number: int, jobs: list[Job]) -> dict[str, Training]:
        """Every job of a round, in their order: from the run directory where it is finished, else trained now and saved."""
        self.watch.begin_round(number, self._density({job.seed: job.masks for job in jobs}), len(jobs))
        trainings: dict[str, Training] = {}
        together = len(jobs) < (self.options.replica_workers or 1)

        def is_done(unit: Unit) -> bool:
            for job in unit.jobs:
                if job.name not in trainings and (training := self.directory.load(number, job)) is not None:
                    trainings[job.name] = training
            done = all(job.name in trainings for job in unit.jobs)
            if done:  # a kill may have come between the training and the end of its checkpoint
                unit.checkpoint.unlink(missing_ok=True)
            return done

        def finished(job: Job, training: Training) -> None:
            if self.team.worker.rank == 0 or not together:
                self.directory.save(number, job, training)
            trainings[job.name] = training

        if self.options.engine != "stacked" and all(job.moving is None for job in jobs):
            units = [self._unit([job], self.directory.job_checkpoint(number, job)) for job in jobs]
            train = functools.partial(self._train_on_device_engine, finished)
            if not self.on_device_engine:
                train = functools.partial(self._train_large, finished, together)
            self.team.work_off(units, is_done, train)
        else:
            stacks = enumerate(self._stacks(jobs))
            units = [self._unit(s, self.directory.stack_checkpoint(number, s[0].kind, i)) for i, s in stacks]
            self.team.work_off(units, is_done, functools.partial(self._train_stacks, finished))
        return {job.name: trainings[job.name] for job in jobs}

    def _stacks(self, jobs: list[Job]) -> list[list[Job]]:
        """Jobs that are trained as one program: of the same steps, rates and moves of masks, and not too many together. The
        number of workers is no part of it."""
        by_start: dict[Any, list[Job]] = defaultdict(list)
        for job in jobs:
            by_start[job.first_step, job.holds_rate, job.moving].append(job)
        size = self.options.stack_size or STACK_SIZE
        return [group[i : i + size] for group in by_start.values() for i in range(0, len(group), size)]

    def _unit(self, jobs: list[Job], checkpoint: Path) -> Unit:
        return Unit(tuple(jobs), checkpoint, sum(self.recipe.steps - job.first_step for job in jobs))

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
        engine.train(units, claim, self.watch, finished)

    def _train_stacks(self, finished: Callable[[Job, Training], None], units: list[Unit], claim: Claim) -> None:
        """A stack is trained whole or not at all: in another grouping its bits might differ."""
        engine = StackedEngine(self.model, self.split, self.recipe, self.device())
        for unit in units:
            with claim(unit) as watch:
                if watch is not None:
                    for job, training in zip(
                        unit.jobs, engine.train(list(unit.jobs), unit.checkpoint, watch), strict=True
                    ):
                        finished(job, training)

    def _density(self, masks: dict[int, Masks]) -> float:
        """Share of live weights among all that could be pruned; every seed has the same, but for groups."""
        first = next(iter(masks.values()))
        return (self.ladder.excluded + live_count(first, tuple(first))) / self.ladder.live[0]

    def device(self) -> torch.device:
        return torch.device(self.options.accelerator)

    @property
    def on_device_engine(self) -> bool:
        return self.options.engine == "device"

    def _has_fallen(self, last: Round) -> bool:
        gap = last.measured["dense"].validation_accuracy.mean() - last.measured["ticket"].validation_accuracy.mean()
        return bool(gap > self.tolerance)

    def ticket(self, chosen: Round, card: dict[str, object]) -> Ticket:
        """The chosen round's ticket of the seed with the best validation accuracy, ready to export."""
        seed = self.best_seed(chosen)
        masks = chosen.masks[seed]
        early = chosen.trainings[f"seed{seed}-ticket"].early
        return Ticket(self.model.network, apply_masks(chosen.start[seed], masks), masks, early, card)

    def best_seed(self, chosen: Round) -> int:
        return int(self.seeds[int(np.argmax(chosen.measured["ticket"].validation_accuracy))])


def measure(by_seed: list[list[Training]]) -> Measured:
    """One value a seed, the mean over its copies that did not diverge."""
    sound = [[training for training in copies if training.diverged_step is None] for copies in by_seed]

    def averaged(value_of: str) -> np.ndarray:
        return np.array([np.mean([_figure(t, value_of) for t in copies]) if copies else np.nan for copies in sound])

    return Measured(
        averaged("accuracy"),
        averaged("accuracy_end"),
        averaged("validation_accuracy"),
        averaged("early_stop"),
        sum(map(len, by_seed)) - sum(map(len, sound)),
    )


def _figure(training: Training, name: str) -> float:
    return {
        "accuracy": training.early_accuracy,
        "accuracy_end": training.final_accuracy,
        "validation_accuracy": float(training.validation_accuracy[training.early_index]),
        "early_stop": float(training.early_step),
    }[name]


def _dense(rounds: list[Round], seed: int) -> Training:
    return rounds[0].trainings[f"seed{seed}-dense"]
