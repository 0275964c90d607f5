"""The algorithm: train, prune, rewind, again (Frankle & Carbin 2019), with its controls beside it in every round.

Rewinding is three independent choices: where the mask comes from (the previous round's weights, or always the dense
network's), which weights the ticket starts from (those at the rewind step), and where its schedule starts (that step).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from export.ticket import Ticket
from server_side import methods
from server_side.controls import Values, apply_masks, moved_onto, with_signs_of
from server_side.data import Dataset, Split
from server_side.errors import UsageError
from server_side.fit import Footprint, Limits, footprint, parse_bytes
from server_side.ladder import Ladder, ladder
from server_side.models import Model
from server_side.options import Options
from server_side.prune import LayerCollapse, Masks, checked, live_count
from server_side.recorded_step import recorder_of
from server_side.rounds import Round, copies_by_kind, dense_training, measure
from server_side.run_directory import RunDirectory
from server_side.seeds import derive, generator
from server_side.stack_memory import StackMemory, stack_memory
from server_side.stacked_program import drops
from server_side.stage import STACK_SIZE, Stage
from server_side.training import Job, Recipe, Training, evaluation_steps
from server_side.training_folder import TrainingFolder
from server_side.verdict import Measured
from server_side.workers import Team

REWIND_PARTS = (256, 64, 16, 8, 4)  # of the steps, where the rewind step is to be found
ROUNDS_BEYOND = 5  # the first that may fit, as far as that can be told beforehand


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
    team: Team

    @property
    def seeds(self) -> range:
        return range(self.options.seed, self.options.seed + self.options.seeds)

    @property
    def tolerance(self) -> float:
        return float(self.options.filled("accuracy_tolerance"))

    def run(self, after_round: Callable[[list[Round]], bool | None] = lambda rounds: False) -> list[Round]:
        """All rounds, the dense one first; finished trainings are taken from the run directory. Calls `after_round` with
        the rounds so far, which may say that they are enough. Raises UsageError where a dense network or a ticket diverges; a control may."""
        rounds = [self.dense_round()]
        after_round(rounds)
        for number in range(1, len(self.ladder.rungs)):
            try:
                masks = self._masks(rounds, number)
            except LayerCollapse as collapse:
                if number == 1:
                    raise UsageError(f"{collapse}; take a smaller prune_fraction") from collapse
                break
            rounds.append(self._pruned_round(rounds, number, masks))
            enough = after_round(rounds)
            if enough or (self.options.until_accuracy_falls and self._has_fallen(rounds[-1])):
                break
        return rounds

    @property
    def rewind_candidates(self) -> tuple[int, ...]:
        """The steps that are looked at where the rewind step is to be found."""
        if self.options.rewind_step != "auto":
            return ()
        return tuple(sorted({0, *(max(1, self.recipe.steps // part) for part in REWIND_PARTS)}))

    def extra_training_count(self) -> int:
        """Trainings besides those of the rounds, at most."""
        return self.options.seeds * (2 * len(self.rewind_candidates) + int(self.options.stability))

    def dense_round(self) -> Round:
        everything = self.keeper.all_live()
        start = {seed: self.theta(seed) for seed in self.seeds}
        kept = set(self.rewind_candidates) | {self.rewind_step} - {0}
        if self.options.method == "early-bird":
            kept |= set(methods.early_bird_checks(evaluation_steps(self.recipe, 0)))
        jobs = [
            Job(seed, "dense", 0, start[seed], everything, snapshot_steps=tuple(sorted(kept))) for seed in self.seeds
        ]
        return self._round(0, jobs, dict.fromkeys(self.seeds, everything), start, {})

    def _pruned_round(self, rounds: list[Round], number: int, masks: dict[int, Masks]) -> Round:
        """Its tickets start from weights of the rewind step or from those that decided their masks."""
        if self.rewinds_weights:
            start = {seed: self.rewound(rounds, seed) for seed in self.seeds}
        elif self.options.method == "early-bird":
            birds = {
                seed: methods.early_bird(self.keeper, dense_training(rounds, seed), number).step for seed in self.seeds
            }
            start = {seed: dense_training(rounds, seed).snapshots[step or 0] for seed, step in birds.items()}
        elif self.options.method in methods.MOVING:
            start = {seed: training.final for seed, training in self._mask_trainings(rounds, number).items()}
        else:
            start = {seed: self._deciding(rounds, seed) for seed in self.seeds}
        known = {"dense": rounds[0].measured["dense"]}
        return self._round(number, list(self._jobs(start, masks, number)), masks, start, known)

    def _masks(self, rounds: list[Round], number: int) -> dict[int, Masks]:
        """Of round `number`, by seed, from the rounds before it. Raises LayerCollapse."""
        method = self.options.method
        if method in methods.MOVING:
            return {seed: checked(training.masks) for seed, training in self._mask_trainings(rounds, number).items()}
        if method == "early-bird":
            birds = {s: methods.early_bird(self.keeper, dense_training(rounds, s), number) for s in self.seeds}
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
        return methods.by_score(method, self.keeper, module, batches, self.rewound(rounds, seed), seed, number)

    def _mask_trainings(self, rounds: list[Round], number: int) -> dict[int, Training]:
        """The trainings of a round in which the masks moved; always stacked, the device's runtime has no such thing."""
        strength = float(self.options.regularisation or 0.0)
        jobs = [
            methods.moving_job(self.options.method, self.keeper, rounds[0].start[seed], seed, number, strength)
            for seed in self.seeds
        ]
        trained = self.train_round(number, jobs)
        return {job.seed: trained[job.name] for job in jobs}

    def _deciding(self, rounds: list[Round], seed: int) -> Values:
        """The trained weights that decided the masks of the round that is to come."""
        if len(rounds) > 1 and self.options.method == "iterative":
            return rounds[-1].trainings[f"seed{seed}-ticket"].final
        return dense_training(rounds, seed).final

    def rewound(self, rounds: list[Round], seed: int) -> Values:
        """The dense network's weights of `seed` at the rewind step, which a ticket of any mask would start from."""
        if self.rewind_step == 0:
            return rounds[0].start[seed]
        return dense_training(rounds, seed).snapshots[self.rewind_step]

    def theta(self, seed: int) -> Values:
        """The initial weights of replicate `seed`."""
        return self.fresh(seed, "init")

    def fresh(self, seed: int, *purpose: str | int) -> Values:
        """Initial weights of a draw of their own."""
        drawn = self.model.initial_weights(derive(seed, *purpose))
        return {name: value.numpy() for name, value in drawn.items()}

    @functools.cached_property
    def ladder(self) -> Ladder:
        """Live weights after each round; with a device's limits and no end of its own it ends some rounds after the first
        that may fit. Raises UsageError where none does."""
        whole = ladder(self.model.network, self.options)
        if not self.stops_at_first_fit:
            return whole
        keeper = methods.Keeper(self.model.network, whole, "none")
        start, timeless = self.theta(self.options.seed), replace(self.limits, step_ms=None)
        if not timeless:  # a time is another in every start, and the rounds must be the same
            return whole
        found = Footprint(0, 0, 0)
        for number in range(1, len(whole.rungs)):
            try:
                masks = methods.at_random(keeper, self.options.seed, number)
            except LayerCollapse:
                if not whole.is_global:
                    break
                return whole  # at random; a search may do better, and goes on until a ticket fits
            found = self._footprint(apply_masks(start, masks), masks, timeless)
            if found.fits(timeless):
                return replace(whole, rungs=whole.rungs[: number + 1 + ROUNDS_BEYOND])
        raise UsageError(
            f"{timeless}: no ticket of this model fits; with {whole.densities[-1]:.2%} of the weights it takes {found}"
        )

    @functools.cached_property
    def limits(self) -> Limits:
        """What a device has."""
        options = self.options
        return Limits(
            None if options.fit_bytes is None else parse_bytes(options.fit_bytes, "fit_bytes"),
            None if options.fit_arena is None else parse_bytes(options.fit_arena, "fit_arena"),
            options.fit_step_ms,
        )

    def _footprint(self, start: Values, masks: Masks, limits: Limits) -> Footprint:
        """About what a ticket of these weights takes on a device; its card will be longer."""
        card = {
            "task": self.data.name,
            "labels": list(self.data.labels),
            "input": {"mean": self.split.mean.tolist(), "inverse_std": self.split.inverse_std.tolist()},
            "recipe": self.recipe.to_card(epochs=0),
        }
        return footprint(Ticket(self.model.network, start, masks, start, card), limits)

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
        for node in self.model.network.nodes:
            places = math.prod(self.model.network.shapes[node.inputs[0]][1:])
            samples = self.recipe.batch // (self.options.replica_workers or 1)
            if node.op == "batch_norm" and samples * places == 1:
                return f"'{node.name}', a batch norm, finds no spread in one sample; take a --batch of at least 2"
        if self.on_device_engine and self._unfit is not None:
            return f"{self._unfit}; the device engine trains by the same format, so take --engine stacked"
        return None

    @functools.cached_property
    def stack_memory(self) -> StackMemory | None:
        """Of the largest stack of its rounds; None where nothing is stacked."""
        if self.options.engine != "stacked":
            return None
        most = max(self.training_count(number) for number in range(len(self.ladder.rungs)))
        replicas = min(most, self.options.stack_size or STACK_SIZE)
        recorded = recorder_of(self.device()) is not None and not drops(self.model.network)
        precision = self.options.precision or "32-true"
        return stack_memory(self.model, self.split, self.recipe, replicas, precision, recorded=recorded)

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
        controls = self.options.reinits + self.options.same_signs + self.options.shuffles
        masks = int(self.options.method in methods.MOVING)
        return self.options.seeds * (1 if number == 0 else 1 + controls + masks)

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
                values = apply_masks(self.fresh(seed, "reinit", number, index), masks[seed])
                yield Job(seed, "reinit", index, values, masks[seed])
            for index in range(self.options.same_signs):
                fresh = self.fresh(seed, "same_sign", number, index)
                values = apply_masks(with_signs_of(fresh, start[seed], masks[seed]), masks[seed])
                yield Job(seed, "same_sign", index, values, masks[seed])
            for index in range(self.options.shuffles):
                random = generator(seed, "shuffle", number, index)
                shuffled = self.keeper.shuffled(masks[seed], number, random)
                if self.rewinds_weights:
                    masked = apply_masks(start[seed], shuffled)
                else:  # where the ticket was trained to 0 nothing is left to start from
                    masked = moved_onto(start[seed], masks[seed], shuffled, random)
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
        trainings = self.train_round(number, jobs)
        kinds = {kind: measure(copies) for kind, copies in copies_by_kind(jobs, trainings, self.seeds).items()}
        return Round(number, self.density(masks[self.seeds[0]]), masks, start, trainings, {**measured, **kinds})

    def train_round(self, number: int, jobs: list[Job]) -> dict[str, Training]:
        """Every job of a round, in their order: from the run directory where it is finished, else trained now and saved."""
        density = self.density(jobs[0].masks)
        self.team.watch.begin(
            f"round {number}/{len(self.ladder.rungs) - 1}, {density:.1%} of the weights, {len(jobs)} networks"
        )
        return self.stage(self.directory.round_folder(number)).train(jobs)

    def stage(self, folder: TrainingFolder) -> Stage:
        """What trains jobs into `folder` as this search does."""
        return Stage(folder, self.model, self.split, self.recipe, self.options, self.team)

    def density(self, masks: Masks) -> float:
        """Share of live weights among all that could be pruned; every seed of a round has the same, but for groups."""
        pruned = sum(mask.size for mask in masks.values()) - live_count(masks, tuple(masks))
        return (self.ladder.live[0] - pruned) / self.ladder.live[0]

    def device(self) -> torch.device:
        return torch.device(self.options.accelerator)

    @property
    def on_device_engine(self) -> bool:
        return self.options.engine == "device"

    @property
    def rewinds_weights(self) -> bool:
        """Whether tickets start from weights of the dense network's training, at the rewind step."""
        return self.options.retrain == "weights"

    @property
    def stops_at_first_fit(self) -> bool:
        """Whether rounds go on until a ticket fits the device, and no longer."""
        return bool(self.limits) and not (self.options.rounds or self.options.target_density or self.options.n_of_m)

    def ended(self, rounds: list[Round]) -> str | None:
        """Why a search made fewer rounds than it was asked for; None where it made them all."""
        made, planned = len(rounds) - 1, len(self.ladder.rungs) - 1
        if made == planned:
            asked = self.options.rounds
            return f"round {made + 1} would have removed no weight" if asked and made < asked else None
        if self.options.until_accuracy_falls and self._has_fallen(rounds[-1]):
            return "the accuracy fell"
        if self.stops_at_first_fit:
            return "a ticket fits"
        return f"round {made + 1} would have taken the last live weight of a layer"

    def _has_fallen(self, last: Round) -> bool:
        gap = last.measured["dense"].validation_accuracy.mean() - last.measured["ticket"].validation_accuracy.mean()
        return bool(gap > self.tolerance)

    def ticket(self, chosen: Round, card: dict[str, object]) -> Ticket:
        """The chosen round's ticket of the seed with the best validation accuracy, ready to export."""
        seed = self.best_seed(chosen)
        masks = chosen.masks[seed]
        early = chosen.trainings[f"seed{seed}-ticket"].early
        drawn = self.model.drawn(derive(seed, "init"))
        return Ticket(self.model.network, apply_masks(chosen.start[seed], masks), masks, early, card, drawn)

    def best_seed(self, chosen: Round) -> int:
        return int(self.seeds[int(np.argmax(chosen.measured["ticket"].validation_accuracy))])
