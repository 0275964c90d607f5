"""Trains one replica at a time by Lightning Fabric, for networks that fill a GPU: mixed precision, and data parallel.

Where a round has fewer replicas than the launch has workers, all of them train each replica together, every one a part of its
batches (DistributedDataParallel); otherwise each worker trains its own. Pruned weights stay exactly 0: gradients are masked before the
optimizer sees them. Goes on from its checkpoint to the same bits. Refuses training in which masks move.
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
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from export.atomic import write_file
from server_side import training
from server_side.data import Split
from server_side.models import Model, Weights
from server_side.options import Options
from server_side.schedule import learning_rates
from server_side.seeds import BatchOrder, derive
from server_side.stacked import make_optimizer
from server_side.stacked_program import drops, seeded
from server_side.training import Interrupted, Job, Recipe, Training, Watch, diverged, evaluation_steps
from server_side.workers import Claim, Unit, Worker

AGREE_STEPS = 8  # workers that train together ask each other that often whether to stop or to save
Part = tuple[NDArray[np.float32], NDArray[np.int64]]


class FabricEngine:
    """Trains jobs in this worker, or `together` in all workers of the launch, which then all call `train`."""

    def __init__(
        self, model: Model, split: Split, recipe: Recipe, options: Options, worker: Worker, *, together: bool
    ) -> None:
        self.model, self.split, self.recipe = model, split, recipe
        self.rank, self.size = (worker.rank, worker.size) if together else (0, 1)
        # TF32 is a setting of the GPU's, which same_bits_on has made
        precision = "32-true" if options.precision is None or options.precision == "tf32" else options.precision
        alone: int | list[int] = [worker.local_rank] if options.accelerator == "cuda" else 1
        self.fabric = Fabric(
            accelerator=options.accelerator,
            devices=worker.local_size if together else alone,
            num_nodes=worker.size // worker.local_size if together else 1,
            strategy="ddp" if together else "auto",
            precision=precision,
            plugins=[TorchElasticEnvironment()] if together else None,
        )
        self.fabric.launch()

    def train(self, units: list[Unit], claim: Claim, watch: Watch, finished: Callable[[Job, Training], None]) -> None:
        """Trains the job of each unit that is to be had, and calls `finished` with it, in each worker of those that train it.
        Raises Interrupted, with the state saved, where one of them is asked to stop."""
        if self.size > 1:
            here = {unit.jobs[0].name: unit for unit in units}
            units = [here[name] for name in self.fabric.broadcast(list(here))]
        for unit in units:
            with claim(unit) if self.rank == 0 else contextlib.nullcontext(watch) as claimed:
                if claimed is not None:
                    finished(unit.jobs[0], _Run(self, unit.jobs[0]).train(unit.checkpoint, claimed))

    def total(self, *values: float) -> NDArray[np.float64]:
        """The sums over all workers that train together."""
        here: Any = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        here = self.fabric.all_reduce(here, reduce_op="sum")
        return np.asarray(here.cpu().numpy())


class _Run:
    """One job, in one worker."""

    def __init__(self, engine: FabricEngine, job: Job) -> None:
        self.engine, self.job, self.fabric, recipe = engine, job, engine.fabric, engine.recipe
        self.module = engine.model.factory().to(self.fabric.device)
        if engine.size > 1 and self.fabric.device.type == "cuda":  # on a CPU there is none
            convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
            self.module = convert(self.module)
        values = dict([*self.module.named_parameters(), *self.module.named_buffers()])
        self.values = {name: values[name] for name in job.start}
        self._load({name: torch.from_numpy(value) for name, value in job.start.items()})
        self._in_training = [part for part in self.module.modules() if part.training]
        self.draws = drops(engine.model.network)
        self.masks = {
            name: torch.from_numpy(mask).to(self.fabric.device) for name, mask in job.masks.items() if not mask.all()
        }
        self.optimizer = make_optimizer(recipe, [{"params": list(self.module.parameters())}])
        self.order = BatchOrder(job.order_seed, len(engine.split.x_train), recipe.batch)
        self.step = job.first_step
        self.rates = learning_rates(recipe, self.step, recipe.steps, held=job.holds_rate)
        self.evaluations = evaluation_steps(recipe, self.step)
        self.curves: list[tuple[float, float, float]] = []  # train loss, validation loss and accuracy
        self.early: Weights = {}
        self.snapshots: dict[int, Weights] = {}
        self.diverged_step: int | None = None
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        self._loss_count = 0

    def train(self, checkpoint: Path, watch: Watch) -> Training:
        """From the checkpoint, if there is one, to the end."""
        if self._restore(checkpoint):
            watch.advanced(self.step - self.job.first_step, np.nan, np.nan)
        model, stepper = self.fabric.setup(self.module, self.optimizer)
        if not self.curves:
            self._visit(watch)
        saved = time.monotonic()
        while self.step < self.engine.recipe.steps and self.diverged_step is None:
            stop, save = self._agreed(watch.stop_requested(), time.monotonic() - saved > training.CHECKPOINT_SECONDS)
            if stop or save:
                self._save(checkpoint)
                saved = time.monotonic()
            if stop:
                raise Interrupted
            self._advance(model, stepper)
            watch.advanced(1, np.nan, np.nan)
            self._visit(watch)
        watch.advanced(self.engine.recipe.steps - self.step, np.nan, np.nan)
        return self._training()

    def _agreed(self, stop: bool, save: bool) -> tuple[bool, bool]:
        if self.engine.size == 1:
            return stop, save
        if self.step % AGREE_STEPS:
            return False, False
        stops, saves = self.engine.total(stop, save)
        return bool(stops), bool(saves)

    def _advance(self, model: Any, stepper: Any) -> None:
        x, y = self._batch()
        self._set_training(True)
        stepper.zero_grad()
        with self._drawing():
            loss = F.cross_entropy(model(x), y, label_smoothing=self.engine.recipe.label_smoothing)
        self.fabric.backward(loss)
        for name, parameter in self.module.named_parameters():
            if name in self.masks and parameter.grad is not None:
                parameter.grad.mul_(self.masks[name])
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[self.step - self.job.first_step])
        stepper.step()
        self.step += 1
        self._loss_sum += loss.detach()
        self._loss_count += 1

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """This worker's part of the step's batch."""
        split, augmentation = self.engine.split, self.engine.recipe.augmentation
        part = slice(self.engine.rank, None, self.engine.size)
        rows = self.order.indices(self.step)
        x = torch.from_numpy(split.x_train[rows[part]]).to(self.fabric.device)
        if augmentation is not None:
            size = x.shape[-2:]
            draws = augmentation.draws(self.job.order_seed, self.step, len(rows), size)[part]
            pictures = x.view(len(x), -1, *size)  # grey ones may have no channel
            x = augmentation.apply(pictures, draws).view(x.shape)
        return x, torch.from_numpy(split.y_train[rows[part]]).to(self.fabric.device)

    def _drawing(self) -> contextlib.AbstractContextManager[None]:
        """Dropout draws by the step and the worker, so that nothing needs to be kept."""
        if not self.draws:
            return contextlib.nullcontext()
        return seeded(derive(self.job.order_seed, "dropout", self.step, self.engine.rank), self.fabric.device)

    def _set_training(self, training: bool) -> None:
        for part in self._in_training:
            part.training = training

    def _visit(self, watch: Watch) -> None:
        """Keeps a snapshot and evaluates, where this step asks for it."""
        if self.engine.size > 1 and self.step in (*self.job.snapshot_steps, *self.evaluations):
            for buffer in self.module.buffers():  # running statistics: those of the first worker
                torch.distributed.broadcast(buffer, 0)
        if self.step in self.job.snapshot_steps:
            self.snapshots[self.step] = self._copy()
        if self.step not in self.evaluations:
            return
        loss, accuracy = self._evaluate((self.engine.split.x_validation, self.engine.split.y_validation))
        if not np.isfinite(loss):
            if not self.job.is_control:
                raise diverged(self.job, self.step, self.engine.recipe)
            self.diverged_step = self.step
            return
        if not self.curves or loss < min(before for _, before, _ in self.curves):
            self.early = self._copy()
        loss_sum, count = self.engine.total(float(self._loss_sum), self._loss_count)
        train_loss = loss_sum / count if count else np.nan
        self.curves.append((train_loss, loss, accuracy))
        self._loss_sum.zero_()
        self._loss_count = 0
        watch.advanced(0, train_loss, accuracy)

    def _evaluate(self, part: Part) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy, each worker on its share of `part`."""
        self._set_training(False)
        share = slice(self.engine.rank, None, self.engine.size)
        x, y = part[0][share], torch.from_numpy(part[1][share]).to(self.fabric.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        hits = torch.zeros_like(loss)
        with torch.no_grad(), self.fabric.autocast():
            for start in range(0, len(x), size := self.engine.recipe.batch):
                labels = y[start : start + size]
                scores = self.module(torch.from_numpy(x[start : start + size]).to(self.fabric.device)).float()
                loss += F.cross_entropy(scores, labels, reduction="none").double().sum()
                hits += (scores.argmax(1) == labels).sum()
        losses, right = self.engine.total(float(loss), float(hits)) / len(part[0])
        return float(losses), float(right)

    def _copy(self) -> Weights:
        return {name: value.detach().to("cpu", copy=True) for name, value in self.values.items()}

    @torch.no_grad()
    def _load(self, weights: Weights) -> None:
        for name, value in weights.items():
            self.values[name].copy_(value)

    def _save(self, path: Path) -> None:
        """By the first of the workers, atomically."""
        loss_sum = self.engine.total(float(self._loss_sum))[0]
        state = {
            "job": self.job.name,
            "step": self.step,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "curves": torch.tensor(self.curves, dtype=torch.float64),
            "early": self.early,
            "snapshots": self.snapshots,
            "loss": (float(loss_sum) / self.engine.size, self._loss_count),
        }
        if self.engine.rank == 0:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_file(path, buffer.getvalue())

    def _restore(self, path: Path) -> bool:
        """False, and nothing changed, if there is no checkpoint of this job or it is damaged."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = bool(state["job"] == self.job.name)
        except Exception:  # torch raises many kinds for damaged files
            found = False
        if (readers := self.engine.total(found)[0]) < self.engine.size:
            if readers:
                raise RuntimeError(f"'{path}' is not there for all workers that train together")
            return False
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.curves = state["step"], [(t, v, a) for t, v, a in state["curves"].tolist()]
        self.early, self.snapshots = state["early"], state["snapshots"]
        loss, self._loss_count = state["loss"]
        self._loss_sum.fill_(loss)
        return True

    def _training(self) -> Training:
        """Of a control its figures alone; those after it diverged are NaN. Raises RuntimeError if a pruned weight has moved."""
        final, whole = self._copy(), self.diverged_step is None
        for name, mask in self.masks.items():
            if whole and torch.any(final[name][~mask.cpu()]):
                raise RuntimeError(f"a pruned weight of '{name}' is no longer 0")
        missing = [(np.nan, np.nan, np.nan)] * (len(self.evaluations) - len(self.curves))
        train_loss, loss, accuracy = np.array([*self.curves, *missing]).T
        test = self.engine.split.x_test, self.engine.split.y_test
        final_accuracy = self._evaluate(test)[1] if whole else np.nan
        self._load(self.early)
        early_accuracy = self._evaluate(test)[1] if whole else np.nan
        kept = ({}, {}, {}) if self.job.drops_weights else (self.early, final, self.snapshots)
        early, final, snapshots = _arrays(kept)
        return Training(
            np.array(self.evaluations), train_loss, loss, accuracy, early_accuracy, final_accuracy, early, final, snapshots,
            diverged_step=self.diverged_step,
        )  # fmt: skip


def _arrays(tree: Any) -> Any:
    """The tensors of a tuple or dict, at any depth, as arrays."""
    if isinstance(tree, dict):
        return {key: _arrays(value) for key, value in tree.items()}
    return tuple(_arrays(value) for value in tree) if isinstance(tree, tuple) else tree.numpy()
