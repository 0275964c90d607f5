"""Trains stacks of jobs, up to 64 replicas as one batched PyTorch program, on a GPU or a CPU.

Pruned weights stay exactly 0: their gradients are masked before the optimizer sees them, so neither momentum nor weight
decay can move them. Goes on from its own checkpoint to the same bits; never regroups a stack that was begun. A control that
diverges stays in its stack, as NaN, and touches no other replica. On a GPU the step is recorded (recorded_step.py).
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.atomic import write_file
from server_side.data import Split
from server_side.models import Model
from server_side.moving import GATE_RATE, mover
from server_side.recorded_step import RecordedStep, recorder_of
from server_side.schedule import learning_rates
from server_side.seeds import BatchOrder, derive
from server_side.stacked_program import FLOAT32, Arithmetic, Stack, StackedProgram, drops, seeded
from server_side.training import (
    ADAM_BETAS,
    ADAM_EPSILON,
    CHECKPOINT_SECONDS,
    Interrupted,
    Job,
    Recipe,
    Training,
    Watch,
    diverged,
    evaluation_steps,
)


class StackedEngine:
    """Keeps the data on `device` and trains stacks of jobs there. Jobs of one stack share their steps, their rates, how
    their masks move and whether and how they are distilled."""

    def __init__(
        self,
        model: Model,
        split: Split,
        recipe: Recipe,
        device: torch.device,
        arithmetic: Arithmetic = FLOAT32,
    ) -> None:
        self.model, self.recipe, self.device, self.arithmetic = model, recipe, device, arithmetic
        self.train_part, self.validation, self.test = (
            (torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
            for x, y in (
                (split.x_train, split.y_train),
                (split.x_validation, split.y_validation),
                (split.x_test, split.y_test),
            )
        )

    def train(self, jobs: list[Job], checkpoint: Path, watch: Watch) -> list[Training]:
        """Trains `jobs` to the end, or saves to `checkpoint` and raises Interrupted; an old checkpoint
        there is taken up."""
        run = _Run(self, jobs)
        if run.restore(checkpoint):
            watch.advanced(len(jobs) * (run.step - jobs[0].first_step), float("nan"), float("nan"))
        saved = time.monotonic()
        while run.step < self.recipe.steps:
            run.advance(watch)
            stop = watch.stop_requested()
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                run.save(checkpoint)
                saved = time.monotonic()
            if stop:
                raise Interrupted
        run.save(checkpoint)  # the caller saves the trainings one by one and may be killed in between
        return run.trainings()


class _Run:
    """The state of one stack; `advance` makes a step of every replica."""

    def __init__(self, engine: StackedEngine, jobs: list[Job]) -> None:
        self.engine, self.jobs, recipe = engine, jobs, engine.recipe
        moving = jobs[0].moving
        self.mover = None if moving is None else mover(moving, recipe)
        module = engine.model.factory().to(engine.device)
        taught = jobs[0].distillation
        self.program = StackedProgram(
            module,
            label_smoothing=recipe.label_smoothing,
            trains=self.mover,
            distils=None if taught is None else taught.setting,
            draws=drops(engine.model.network),
            arithmetic=engine.arithmetic,
        )
        lessons = [job.distillation.teacher for job in jobs if job.distillation is not None]
        self.teachers = {name: self._stacked([teacher[name] for teacher in lessons]) for name in (lessons or [{}])[0]}
        self.step = jobs[0].first_step
        start = {name: self._stacked([job.start[name] for job in jobs]) for name in jobs[0].start}
        trained = {name: start[name] for name in self.program.parameter_names}
        if self.mover is not None:
            trained |= self.mover.extra(trained)
        self.parameters = {name: nn.Parameter(value) for name, value in trained.items()}
        self.buffers = {name: value for name, value in start.items() if name not in self.parameters}
        self.masks = {
            name: self._stacked([job.masks[name].astype(np.float32) for job in jobs])
            for name in jobs[0].masks
            if moving is not None or not all(job.masks[name].all() for job in jobs)
        }
        self.optimizer = self._optimizer(recipe)
        self.orders = {
            job.order_seed: BatchOrder(job.order_seed, len(engine.train_part[0]), recipe.batch) for job in jobs
        }
        self._order_of = np.array([list(self.orders).index(job.order_seed) for job in jobs])
        self.rates = learning_rates(recipe, self.step, recipe.steps, held=jobs[0].holds_rate)
        self.evaluations = evaluation_steps(recipe, self.step)
        self._due = frozenset(self.evaluations)
        self.curves: dict[str, list[Any]] = {"train_loss": [], "validation_loss": [], "validation_accuracy": []}
        self.lowest = np.full(len(jobs), np.inf)
        self.diverged = np.full(len(jobs), -1)  # the step at which it was noticed
        self.early = self._copy()
        self.snapshots: dict[int, Stack] = {}
        self._loss_sum = torch.zeros(len(jobs), device=engine.device)
        self._loss_count = 0
        self._told: list[torch.Tensor] = []
        self._rate: torch.Tensor | float = 0.0
        self._make_step: Callable[[], None]
        self._measure: Callable[[], None]
        self._measured = torch.zeros(2, len(jobs), dtype=torch.float64, device=engine.device)  # losses and accuracies
        self._make_step, self._measure = self._step_alike, self._measure_alike
        record = recorder_of(engine.device)
        self._recorded = record is not None and self.mover is None and not self.program.draws
        if record is not None and self._recorded:
            self._make_step = RecordedStep(self._step_alike, self._moving_tensors, record)
            self._measure = RecordedStep(self._measure_alike, lambda: [self._measured], record)
            self._rate = torch.zeros((), device=engine.device)
        self._visit()

    @property
    def values(self) -> Stack:
        """Parameters and buffers as they are; not copies."""
        return {**{name: p.detach() for name, p in self.parameters.items()}, **self.buffers}

    def _copy(self) -> Stack:
        return {name: value.clone() for name, value in self.values.items()}

    def _stacked(self, arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.engine.device)

    def _optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        own = [p for name, p in self.parameters.items() if name in self.program.parameter_names]
        extra = [p for name, p in self.parameters.items() if name not in self.program.parameter_names]
        groups: list[dict[str, Any]] = [{"params": own}]
        if extra:
            groups.append({"params": extra, "weight_decay": 0.0})  # it would hold gates half open
        return make_optimizer(recipe, groups)

    def advance(self, watch: Watch) -> None:
        """One step of every replica, and the evaluation if one is due."""
        rate = float(self.rates[self.step - self.jobs[0].first_step])
        self._tell(self._host_tensors(), rate)
        if self.mover is None:
            self._make_step()
        else:
            detached = {name: p.detach() for name, p in self.parameters.items()}
            gradients = self._differentiate()
            moved = self.mover.replaces_update(self.step, detached, self.masks, gradients)
            if moved is None:
                self._update(gradients)
                self.mover.after_update(rate, detached)
            else:
                self._move(moved)
        self.step += 1
        self._loss_count += 1
        if self._visit():
            sound = self.diverged < 0
            train_loss, accuracy = (self.curves[name][-1][sound] for name in ("train_loss", "validation_accuracy"))
            watch.advanced(
                0, *(float(values.mean()) if sound.any() else float("nan") for values in (train_loss, accuracy))
            )
        watch.advanced(len(self.jobs), float("nan"), float("nan"))

    def _host_tensors(self) -> list[torch.Tensor]:
        """What a step is told: which samples each replica sees, (replicas, batch), and what their augmentation has drawn."""
        augmentation, batch = self.engine.recipe.augmentation, self.engine.recipe.batch
        told = [self._of_replicas({seed: order.indices(self.step) for seed, order in self.orders.items()})]
        if augmentation is not None:
            size = self.engine.train_part[0].shape[-2:]
            drawn = {seed: augmentation.draws(seed, self.step, batch, size) for seed in self.orders}
            told.append(self._of_replicas(drawn))
        return told

    def _tell(self, told: list[torch.Tensor], rate: float) -> None:
        """What is recorded reads where it read when it was recorded."""
        if self._recorded and self._told:
            for there, new in zip(self._told, told, strict=True):
                there.copy_(new, non_blocking=True)
        else:
            self._told = [new.to(self.engine.device) for new in told]
        if isinstance(self._rate, torch.Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate

    def _step_alike(self) -> None:
        """A step that differs from others in numbers within tensors alone."""
        self._update(self._differentiate())

    def _measure_alike(self) -> None:
        self._measured.copy_(self.program.measure(self.values, self.engine.validation))

    def _moving_tensors(self) -> list[torch.Tensor]:
        """All that such a step writes and the next one reads."""
        state = [
            value for of in self.optimizer.state.values() for value in of.values() if isinstance(value, torch.Tensor)
        ]
        return [*self.values.values(), *state, self._loss_sum]

    def _differentiate(self) -> Stack:
        """The gradients of this step's batches; also moves the buffers and counts the losses."""
        x, y = self._batch()
        detached = {name: p.detach() for name, p in self.parameters.items()}
        taught = [self.program.scores(self.teachers, x)] if self.teachers else []
        with self._drawing():
            gradients, after, loss = self.program.gradients(detached, self.buffers, x, y, *taught)
        for name, buffer in self.buffers.items():
            buffer.copy_(after[name])
        self._loss_sum += loss.detach()
        return gradients

    def _update(self, gradients: Stack) -> None:
        for name, parameter in self.parameters.items():
            mask = self.masks.get(name)
            parameter.grad = gradients[name] if mask is None else gradients[name] * mask
        capturing = self.engine.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        for group, factor in zip(self.optimizer.param_groups, (1.0, GATE_RATE), strict=False):
            group["lr"] = self._rate if factor == 1.0 else factor * self._rate
            group["capturable"] = capturing  # torch asks for it there, and warns where it is set elsewhere
        self.optimizer.step()

    def _move(self, masks: Stack) -> None:
        """What was dropped or grown has no past: its moments are 0."""
        for name, mask in masks.items():
            stays = mask * self.masks[name]
            for state in self.optimizer.state[self.parameters[name]].values():
                if isinstance(state, torch.Tensor) and state.shape == mask.shape:
                    state.mul_(stays)
        self.masks = masks

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of this step, a batch a replica."""
        (x, y), (rows, *drawn) = self.engine.train_part, self._told
        batch = x[rows]
        if (augmentation := self.engine.recipe.augmentation) is not None:
            pictures = batch.view(*batch.shape[:2], -1, *batch.shape[-2:])  # grey ones may have no channel
            batch = augmentation.apply(pictures, drawn[0]).view(batch.shape)
        return batch, y[rows]

    def _of_replicas(self, by_seed: dict[int, NDArray[np.int64]]) -> torch.Tensor:
        """(replicas, ...) of what each seed's replicas share, in the order of `orders`."""
        return torch.from_numpy(np.stack(list(by_seed.values()))[self._order_of])

    def _drawing(self) -> contextlib.AbstractContextManager[None]:
        """Dropout draws by the stack's first replica and the step, so that nothing needs to be kept."""
        if not self.program.draws:
            return contextlib.nullcontext()
        return seeded(derive(self.jobs[0].order_seed, "dropout", self.step), self.engine.device)

    def _visit(self) -> bool:
        """Evaluates, keeps the best weights and a snapshot, where this step asks for it."""
        if self.step in self.jobs[0].snapshot_steps:
            self.snapshots[self.step] = self._copy()
        if self.step not in self._due:
            return False
        self._measure()
        loss, accuracy = self._measured.cpu().numpy().copy()
        for position in np.flatnonzero(~np.isfinite(loss) & (self.diverged < 0)):
            if not self.jobs[position].is_control:
                raise diverged(self.jobs[position], self.step, self.engine.recipe)
            self.diverged[position] = self.step
        better = (loss < self.lowest) & (self.diverged < 0)
        self.lowest = np.where(better, loss, self.lowest)
        if better.any():
            chosen = torch.from_numpy(np.flatnonzero(better)).to(self.engine.device)
            for name, value in self.values.items():
                self.early[name][chosen] = value[chosen]
        train_loss = self._loss_sum.double().cpu().numpy() / max(self._loss_count, 1)
        self.curves["train_loss"].append(train_loss if self._loss_count else np.full(len(self.jobs), np.nan))
        self.curves["validation_loss"].append(loss)
        self.curves["validation_accuracy"].append(accuracy)
        for curve in self.curves.values():
            curve[-1][self.diverged >= 0] = np.nan
        self._loss_sum.zero_()
        self._loss_count = 0
        return True

    def save(self, path: Path) -> None:
        """Atomic: the old checkpoint stays until the new one is on the disk."""
        state = {
            "jobs": [job.name for job in self.jobs],
            "step": self.step,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "buffers": self.buffers,
            "masks": self.masks,
            "optimizer": self.optimizer.state_dict(),
            "curves": {name: torch.from_numpy(np.array(rows)) for name, rows in self.curves.items()},
            "lowest": torch.from_numpy(self.lowest),
            "diverged": torch.from_numpy(self.diverged),
            "early": self.early,
            "snapshots": self.snapshots,
            "loss_sum": self._loss_sum,
            "loss_count": self._loss_count,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(path, buffer.getvalue())

    def restore(self, path: Path) -> bool:
        """False, and nothing changed, if there is no checkpoint of these replicas or it is damaged."""
        try:
            state = torch.load(path, map_location=self.engine.device, weights_only=True)
            if state["jobs"] != [job.name for job in self.jobs] or "snapshots" not in state:
                return False
        except Exception:  # torch raises many kinds for damaged files
            return False
        self.step = state["step"]
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state["parameters"][name])
        self.buffers, self.masks = state["buffers"], state["masks"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.curves = {name: list(rows.cpu().numpy()) for name, rows in state["curves"].items()}
        self.lowest, self.diverged = state["lowest"].cpu().numpy(), state["diverged"].cpu().numpy()
        self.early, self.snapshots = state["early"], state["snapshots"]
        self._loss_sum, self._loss_count = state["loss_sum"], state["loss_count"]
        return True

    def trainings(self) -> list[Training]:
        """Tests every replica at its early stop and at the end; controls leave their weights behind. Raises RuntimeError if
        a pruned weight has moved."""
        final = self.values
        _, early_accuracy = self.program.evaluate(self.early, self.engine.test)
        _, final_accuracy = self.program.evaluate(final, self.engine.test)
        sound = torch.from_numpy(self.diverged < 0).to(self.engine.device)
        for name, mask in self.masks.items():
            if torch.any(final[name][sound][mask[sound] == 0] != 0):
                raise RuntimeError(f"a pruned weight of '{name}' is no longer 0")
        masks: Stack = {}
        if self.mover is not None:
            masks = {name: mask.bool() for name, mask in self.mover.final_masks(final, self.masks).items()}
            self.early, final = self.mover.plain(self.early), self.mover.plain(final)
        early_accuracy[self.diverged >= 0] = final_accuracy[self.diverged >= 0] = np.nan
        return [
            Training(
                steps=np.array(self.evaluations),
                train_loss=np.array(self.curves["train_loss"])[:, position],
                validation_loss=np.array(self.curves["validation_loss"])[:, position],
                validation_accuracy=np.array(self.curves["validation_accuracy"])[:, position],
                early_accuracy=float(early_accuracy[position]),
                final_accuracy=float(final_accuracy[position]),
                early={} if job.drops_weights else _of(self.early, position),
                final={} if job.drops_weights else _of(final, position),
                snapshots={} if job.drops_weights else {s: _of(stack, position) for s, stack in self.snapshots.items()},
                masks=_of(masks, position),
                diverged_step=int(self.diverged[position]) if self.diverged[position] >= 0 else None,
            )
            for position, job in enumerate(self.jobs)
        ]


def make_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The recipe's, at its highest rate, for groups of parameters."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, rate, ADAM_BETAS, ADAM_EPSILON, weight_decay=decay, fused=True)


def _of(stack: Stack, position: int) -> dict[str, Any]:
    return {name: value[position].cpu().numpy().copy() for name, value in stack.items()}
