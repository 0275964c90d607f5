"""The algorithm: train, prune, rewind, again (Frankle & Carbin 2019), with its controls beside it in every round.

Rewinding is three independent choices: where the mask comes from (the previous round's weights, or always the dense
network's), which weights the ticket starts from (those at the rewind step), and where its schedule starts (that step).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from export.network import Network
from export.ticket import Ticket
from server_side.controls import Values, apply_masks, shuffle_masks
from server_side.data import Dataset, Split
from server_side.errors import UsageError
from server_side.models import Model
from server_side.options import Options
from server_side.prune import LayerCollapse, Masks, prune_global, prune_layerwise, removed_count
from server_side.run_directory import RunDirectory
from server_side.seeds import derive, generator
from server_side.stacked import StackedEngine
from server_side.training import Job, Recipe, Training, Watch
from server_side.verdict import Measured

STACK_SIZE = 64


@dataclass(frozen=True)
class Round:
    """One density: what was trained there and the masks it was trained with. Round 0 is dense."""

    number: int
    density: float
    masks: dict[int, Masks]
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

    @property
    def seeds(self) -> range:
        return range(self.options.seed, self.options.seed + self.options.seeds)

    @property
    def tolerance(self) -> float:
        return float(self.options.filled("accuracy_tolerance"))

    def run(self, after_round: Callable[[list[Round]], None] = lambda rounds: None) -> list[Round]:
        """All rounds, the dense one first; finished trainings are taken from the run directory. Calls `after_round` with
        the rounds so far. Raises UsageError where a dense network or a ticket diverges; a control may."""
        theta0 = {seed: self.theta(seed) for seed in self.seeds}
        everything = {name: np.ones(shape, np.bool_) for name, shape in _prunable_shapes(self.model.network).items()}
        masks = dict.fromkeys(self.seeds, everything)
        snapshot = self.rewind_step or None
        dense_jobs = [Job(seed, "dense", 0, theta0[seed], masks[seed], snapshot_step=snapshot) for seed in self.seeds]
        rounds = [self._round(0, dense_jobs, masks, None)]
        after_round(rounds)
        dense = {seed: rounds[0].trainings[f"seed{seed}-dense"] for seed in self.seeds}
        rewind = {seed: self._rewind(dense[seed], theta0[seed]) for seed in self.seeds}
        deciding = {seed: dense[seed].final for seed in self.seeds}
        for number in range(1, len(self.ladder())):
            try:
                masks = {seed: self._prune(deciding[seed], masks[seed]) for seed in self.seeds}
            except LayerCollapse as collapse:
                if number == 1:
                    raise UsageError(f"{collapse}; take a smaller prune_fraction") from collapse
                break
            rounds.append(self._round(number, list(self._jobs(rewind, masks, number)), masks, rounds[0]))
            after_round(rounds)
            if self.options.schedule == "iterative":
                deciding = {seed: rounds[-1].trainings[f"seed{seed}-ticket"].final for seed in self.seeds}
            if self.options.until_accuracy_falls and self._has_fallen(rounds[-1]):
                break
        return rounds

    def theta(self, seed: int) -> Values:
        """The initial weights of replicate `seed`."""
        return {name: value.numpy() for name, value in self.model.initial_weights(derive(seed, "init")).items()}

    def ladder(self) -> list[int]:
        """Live weights after each round, the dense count first."""
        sizes = {name: int(np.prod(shape)) for name, shape in _prunable_shapes(self.model.network).items()}
        total = sum(sizes.values())
        ladder = [total]
        limit = self.options.target_density
        while len(ladder) <= (self.options.rounds or 10_000):
            if self.options.rounds is None and limit is not None and ladder[-1] <= limit * total:
                break
            if self.options.scope == "global":
                after = {"all": sum(sizes.values())}
                after["all"] -= removed_count(after["all"], self._fraction())
            else:
                after = {name: n - removed_count(n, self._fractions()[name]) for name, n in sizes.items()}
            if after == sizes:
                break
            sizes = after
            ladder.append(sum(sizes.values()))
        return ladder

    def emptied_layer(self) -> str | None:
        """A layer that the first round would leave without a weight, as far as that is known before training."""
        if self.options.scope == "global":
            return None
        shapes, fractions = _prunable_shapes(self.model.network), self._fractions()
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        return next((name for name, size in sizes.items() if removed_count(size, fractions[name]) == size), None)

    def untrainable(self) -> str | None:
        """What in the network or recipe this search cannot train, and what to do about it; None if it can train all."""
        operators = {node.op for node in self.model.network.nodes}
        if "embedding" in operators:
            return (
                "an embedding reads whole numbers, but a search trains on normalised samples; leave the embedding out"
            )
        if not self.on_device_engine and (stuck := sorted(operators & {"batch_norm", "dropout"})):
            return f"engine {self.options.engine}: the stacked engine cannot train {stuck[0]}; take --engine device"
        if self.on_device_engine and self._unfit is not None:
            return f"{self._unfit}; the device engine trains by the same format, so take --engine stacked"
        return None

    def warnings(self) -> list[str]:
        """What a user should know before a long search."""
        unfit = self._unfit
        return [f"{unfit}: the ticket can be found, but no .tkt for devices can be made of it"] if unfit else []

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

    def _fraction(self) -> float:
        """Share of the live weights that a round removes."""
        return float(self.options.filled("prune_fraction"))

    def _fractions(self) -> dict[str, float]:
        """The same by layer, in layerwise scope."""
        *inner, output = self.model.network.prunable
        return {**dict.fromkeys(inner, self._fraction()), output: float(self.options.filled("output_prune_fraction"))}

    def _rewind(self, dense: Training, theta0: Values) -> Values:
        if self.rewind_step == 0:
            return theta0
        if dense.snapshot is None:
            raise RuntimeError(f"the dense training has no weights of step {self.rewind_step}")
        return dense.snapshot

    def _prune(self, weights: Values, masks: Masks) -> Masks:
        if self.options.scope == "global":
            return prune_global(weights, masks, self._fraction(), self.model.network.prunable)
        return prune_layerwise(weights, masks, self._fractions())

    def _jobs(self, rewind: dict[int, Values], masks: dict[int, Masks], number: int) -> Iterable[Job]:
        """The tickets of a round and their controls, all with the budget of the dense network.

        A ticket starts from the dense weights of the rewind step k and trains from there to the end: k steps went into its
        weights before. So did they into a shuffle's, which starts from the same weights. A reinit's fresh weights have no
        step behind them: it starts at step 0 and trains k steps more (in open_lth: `start_at_step_zero`).
        """
        for seed in self.seeds:
            yield Job(seed, "ticket", 0, apply_masks(rewind[seed], masks[seed]), masks[seed], self.rewind_step)
        for seed in self.seeds:
            for index in range(self.options.reinits):
                fresh = self.model.initial_weights(derive(seed, "reinit", number, index))
                values = apply_masks({name: value.numpy() for name, value in fresh.items()}, masks[seed])
                yield Job(seed, "reinit", index, values, masks[seed])
            for index in range(self.options.shuffles):
                shuffled = shuffle_masks(masks[seed], generator(seed, "shuffle", number, index))
                yield Job(seed, "shuffle", index, apply_masks(rewind[seed], shuffled), shuffled, self.rewind_step)

    def _round(self, number: int, jobs: list[Job], masks: dict[int, Masks], dense: Round | None) -> Round:
        trainings = self._trained(number, jobs)
        measured = {} if dense is None else {"dense": dense.measured["dense"]}
        for kind in dict.fromkeys(job.kind for job in jobs):
            measured[kind] = measure(
                [[trainings[j.name] for j in jobs if j.kind == kind and j.seed == s] for s in self.seeds]
            )
        return Round(number, _density(masks), masks, trainings, measured)

    def _trained(self, number: int, jobs: list[Job]) -> dict[str, Training]:
        """Every job of a round, in their order: from the run directory where it is finished, else trained now and saved."""
        self.watch.begin_round(number, _density({job.seed: job.masks for job in jobs}), len(jobs))
        done = {job.name: self.directory.load(number, job) for job in jobs}
        trainings = {name: training for name, training in done.items() if training is not None}

        def finished(job: Job, training: Training) -> None:
            self.directory.save(number, job, training)
            trainings[job.name] = training
            self.directory.job_checkpoint(number, job).unlink(missing_ok=True)

        if self.on_device_engine:
            from server_side.device_engine import DeviceEngine  # needs the compiled core: only where it is used

            there = [job for job in jobs if job.name in trainings]
            self._advance_finished(there)
            for job in there:  # a kill may have come between the training and the end of its checkpoint
                self.directory.job_checkpoint(number, job).unlink(missing_ok=True)
            engine = DeviceEngine(self.model.network, self.split, self.recipe, self.options.threads)
            left = {job.name: self.directory.job_checkpoint(number, job) for job in jobs if job.name not in trainings}
            engine.train([job for job in jobs if job.name in left], left, self.watch, finished)
        else:
            for position, stack in enumerate(_stacks(jobs)):
                self._train_stack(number, position, stack, trainings)
        return {job.name: trainings[job.name] for job in jobs}

    def _train_stack(self, number: int, position: int, stack: list[Job], trainings: dict[str, Training]) -> None:
        """A stack is trained whole or not at all: in another grouping its bits might differ."""
        checkpoint = self.directory.stack_checkpoint(number, position)
        if all(job.name in trainings for job in stack):
            self._advance_finished(stack)
            checkpoint.unlink(missing_ok=True)
            return
        for job, training in zip(stack, self._stacked().train(stack, checkpoint, self.watch), strict=True):
            self.directory.save(number, job, training)
            trainings[job.name] = training
        checkpoint.unlink(missing_ok=True)

    def _advance_finished(self, jobs: list[Job]) -> None:
        self.watch.advanced(sum(self.recipe.steps - job.first_step for job in jobs), np.nan, np.nan)

    def _stacked(self) -> StackedEngine:
        return StackedEngine(self.model, self.split, self.recipe, self.device())

    def device(self) -> torch.device:
        return torch.device(self.options.accelerator)

    @property
    def on_device_engine(self) -> bool:
        return self.options.engine == "device"

    def _has_fallen(self, last: Round) -> bool:
        gap = last.measured["dense"].validation_accuracy.mean() - last.measured["ticket"].validation_accuracy.mean()
        return bool(gap > self.tolerance)

    def ticket(self, chosen: Round, rewind_of: Round, card: dict[str, object]) -> Ticket:
        """The chosen round's ticket of the seed with the best validation accuracy, ready to export."""
        seed = self.best_seed(chosen)
        start = self._rewind(rewind_of.trainings[f"seed{seed}-dense"], self.theta(seed))
        masks = chosen.masks[seed]
        early = chosen.trainings[f"seed{seed}-ticket"].early
        return Ticket(self.model.network, apply_masks(start, masks), masks, early, card)

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


def _stacks(jobs: list[Job]) -> list[list[Job]]:
    """Jobs that are trained as one program: of the same first step, at most STACK_SIZE together."""
    by_start: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        by_start[job.first_step].append(job)
    return [group[i : i + STACK_SIZE] for group in by_start.values() for i in range(0, len(group), STACK_SIZE)]


def _prunable_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    shapes = network.parameter_shapes
    return {name: shapes[name] for name in network.prunable}


def _density(masks: dict[int, Masks]) -> float:
    """Share of live weights; every seed has the same."""
    first = next(iter(masks.values()))
    return sum(int(mask.sum()) for mask in first.values()) / sum(mask.size for mask in first.values())
