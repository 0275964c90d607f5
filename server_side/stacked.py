"""Trains many replicas of one network as a single batched program: torch.func over parameters stacked on a new axis.

Pruned weights stay exactly 0: their gradients are masked before the optimizer sees them, so neither momentum nor weight
decay can move them. Goes on from its own checkpoint to the same bits; never regroups a stack that was begun. A control that
diverges stays in its stack, as NaN, and touches no other replica.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from export.atomic import write_file
from server_side.controls import Values
from server_side.data import Split
from server_side.models import Model
from server_side.seeds import BatchOrder
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

Stack = dict[str, torch.Tensor]
EVALUATION_BATCH = 1000


class StackedEngine:
    """Keeps the data on `device` and trains stacks of jobs there. Jobs of one stack share their step range."""

    def __init__(self, model: Model, split: Split, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.module = model.factory().to(device)
        self.x = torch.from_numpy(split.x_train).to(device)
        self.y = torch.from_numpy(split.y_train).to(device)
        self.validation = (
            torch.from_numpy(split.x_validation).to(device),
            torch.from_numpy(split.y_validation).to(device),
        )
        self.test = (torch.from_numpy(split.x_test).to(device), torch.from_numpy(split.y_test).to(device))
        self._gradients = vmap(grad_and_value(self._loss))

    def _loss(self, parameters: Stack, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(self.module, parameters, (x,)), y)

    def train(self, jobs: list[Job], checkpoint: Path, watch: Watch) -> list[Training]:
        """Trains `jobs` to the end, or saves to `checkpoint` and raises Interrupted; an old checkpoint there is taken up."""
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

    def evaluate(self, parameters: Stack, part: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and accuracy of every replica on `part`, (replicas,) float64 each."""
        x, y = part
        loss = torch.zeros(len(next(iter(parameters.values()))), dtype=torch.float64, device=self.device)
        hits = torch.zeros_like(loss)
        forward = vmap(lambda parameters, x: functional_call(self.module, parameters, (x,)), in_dims=(0, None))
        with torch.no_grad():
            for start in range(0, len(x), EVALUATION_BATCH):
                labels = y[start : start + EVALUATION_BATCH]
                logits = forward(parameters, x[start : start + EVALUATION_BATCH])
                losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
                loss += losses.view(len(logits), -1).double().sum(1)
                hits += (logits.argmax(2) == labels).double().sum(1)
        return (loss / len(x)).cpu().numpy(), (hits / len(x)).cpu().numpy()


class _Run:
    """The state of one stack: parameters, moments, best weights so far, curves, and the step they stand at."""

    def __init__(self, engine: StackedEngine, jobs: list[Job]) -> None:
        self.engine, self.jobs, recipe = engine, jobs, engine.recipe
        self.step = jobs[0].first_step
        self.parameters = {
            name: nn.Parameter(self._stacked([job.start[name] for job in jobs])) for name in jobs[0].start
        }
        self.masks = {
            name: self._stacked([job.masks[name].astype(np.float32) for job in jobs])
            for name in jobs[0].masks
            if not all(job.masks[name].all() for job in jobs)
        }
        self.optimizer = self._optimizer(recipe)
        self.orders = {job.seed: BatchOrder(job.seed, len(engine.x), recipe.batch) for job in jobs}
        self.evaluations = evaluation_steps(recipe, self.step)
        self._due = frozenset(self.evaluations)
        self.curves: dict[str, list[Any]] = {"train_loss": [], "validation_loss": [], "validation_accuracy": []}
        self.lowest = np.full(len(jobs), np.inf)
        self.diverged = np.full(len(jobs), -1)  # the step at which it was noticed
        self.early = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.snapshot: Stack | None = None
        self._loss_sum = torch.zeros(len(jobs), device=engine.device)
        self._loss_count = 0
        self._visit()

    def _stacked(self, arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.engine.device)

    def _optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        values = list(self.parameters.values())
        if recipe.optimizer == "adam":
            return torch.optim.Adam(
                values, recipe.learning_rate, ADAM_BETAS, ADAM_EPSILON, weight_decay=recipe.weight_decay, fused=True
            )
        return torch.optim.SGD(
            values, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )

    def advance(self, watch: Watch) -> None:
        """One step of every replica, and the evaluation if one is due."""
        per_seed = {seed: order.indices(self.step) for seed, order in self.orders.items()}
        index = torch.from_numpy(np.stack([per_seed[job.seed] for job in self.jobs])).to(self.engine.device)
        detached = {name: p.detach() for name, p in self.parameters.items()}
        gradients, loss = self.engine._gradients(detached, self.engine.x[index], self.engine.y[index])
        for name, parameter in self.parameters.items():
            mask = self.masks.get(name)
            parameter.grad = gradients[name] if mask is None else gradients[name] * mask
        self.optimizer.step()
        self.step += 1
        self._loss_sum += loss.detach()
        self._loss_count += 1
        if self._visit():
            sound = self.diverged < 0
            train_loss, accuracy = (self.curves[name][-1][sound] for name in ("train_loss", "validation_accuracy"))
            watch.advanced(
                0, *(float(values.mean()) if sound.any() else float("nan") for values in (train_loss, accuracy))
            )
        watch.advanced(len(self.jobs), float("nan"), float("nan"))

    def _visit(self) -> bool:
        """Evaluates, keeps the best weights and the snapshot, where this step asks for it."""
        if self.step == self.jobs[0].snapshot_step:
            self.snapshot = {name: p.detach().clone() for name, p in self.parameters.items()}
        if self.step not in self._due:
            return False
        detached = {name: p.detach() for name, p in self.parameters.items()}
        loss, accuracy = self.engine.evaluate(detached, self.engine.validation)
        for position in np.flatnonzero(~np.isfinite(loss) & (self.diverged < 0)):
            if not self.jobs[position].is_control:
                raise diverged(self.jobs[position], self.step, self.engine.recipe)
            self.diverged[position] = self.step
        better = (loss < self.lowest) & (self.diverged < 0)
        self.lowest = np.where(better, loss, self.lowest)
        for position in np.flatnonzero(better):
            for name, value in detached.items():
                self.early[name][position] = value[position]
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
            "optimizer": self.optimizer.state_dict(),
            "curves": {name: torch.from_numpy(np.array(rows)) for name, rows in self.curves.items()},
            "lowest": torch.from_numpy(self.lowest),
            "diverged": torch.from_numpy(self.diverged),
            "early": self.early,
            "snapshot": self.snapshot,
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
            if state["jobs"] != [job.name for job in self.jobs] or "diverged" not in state:
                return False
        except Exception:  # torch raises many kinds for damaged files
            return False
        self.step = state["step"]
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curves = {name: list(rows.cpu().numpy()) for name, rows in state["curves"].items()}
        self.lowest, self.diverged = state["lowest"].cpu().numpy(), state["diverged"].cpu().numpy()
        self.early, self.snapshot = state["early"], state["snapshot"]
        self._loss_sum, self._loss_count = state["loss_sum"], state["loss_count"]
        return True

    def trainings(self) -> list[Training]:
        """Tests every replica at its early stop and at the end; controls leave their weights behind. Raises RuntimeError if
        a pruned weight has moved."""
        final = {name: p.detach() for name, p in self.parameters.items()}
        _, early_accuracy = self.engine.evaluate(self.early, self.engine.test)
        _, final_accuracy = self.engine.evaluate(final, self.engine.test)
        sound = torch.from_numpy(self.diverged < 0).to(self.engine.device)
        for name, mask in self.masks.items():
            if torch.any(final[name][sound][mask[sound] == 0] != 0):
                raise RuntimeError(f"a pruned weight of '{name}' is no longer 0")
        early_accuracy[self.diverged >= 0] = final_accuracy[self.diverged >= 0] = np.nan
        return [
            Training(
                steps=np.array(self.evaluations),
                **{name: np.array(rows)[:, position] for name, rows in self.curves.items()},
                early_accuracy=float(early_accuracy[position]),
                final_accuracy=float(final_accuracy[position]),
                early={} if job.is_control else _of(self.early, position),
                final={} if job.is_control else _of(final, position),
                snapshot=None if self.snapshot is None or job.is_control else _of(self.snapshot, position),
                diverged_step=int(self.diverged[position]) if self.diverged[position] >= 0 else None,
            )
            for position, job in enumerate(self.jobs)
        ]


def _of(stack: Stack, position: int) -> Values:
    return {name: value[position].cpu().numpy().copy() for name, value in stack.items()}
