"""No artifact is handed out before it has trained: its gradients, predictions and losses against PyTorch, on samples at random.

Every gradient over several steps, so that a later one meets what earlier ones and predictions left in memory; finite differences
of the loss at some weights; the losses of a run of training. In float64 on PyTorch's side. Dropout, whose draws differ from runtime
to runtime, is switched off for it. Refuses an artifact whose errors are above what rounding explains: a fixed share, or several times
those of PyTorch in float32 with weights that are off by about as much as that rounds. docs/gate.md has the limits and their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime import Trainer
from export import reference
from export.card import Recipe, normalisation, recipe
from export.kinks import Sides
from export.network import Network
from export.ticket import Floats, Ticket, TicketError

GRADIENT_STEPS, LOSS_STEPS = 5, 50
SAMPLES = 4  # of a step, at most: fewer elements lie on a kink, and the reference is slow
# Of a parameter's gradient by norm, as a share of its norm, but of at least FLOOR of the network's largest.
LARGEST_ERROR = 5e-4
FLOOR = 0.01
LARGEST_DIFFERENCE = 1e-3  # of a loss, as a share of it or of 1
LARGEST_OUTPUT_ERROR = 1e-4  # of a prediction, as a share of the largest one or of 1
TIMES_FLOAT32 = 5  # as far off as PyTorch in float32, the worst of
PERTURBED = 3  # runs with weights that are moved by this share:
PERTURBATION = 4e-6
MOST_KINKS = 3  # elements that may lie on the other side of a kink in a step
DIFFERENCES = 6  # weights of a parameter whose gradient is compared with a finite difference
LARGEST_MEDIAN = 5e-3  # of their errors, as a share of the parameter's largest gradient
STEP = 1e-6  # of these

Places = Mapping[str, NDArray[np.intp]]
Tensors = dict[str, torch.Tensor]
Batch = tuple[Floats, NDArray[Any]]


class GateError(TicketError):
    """An artifact that does not train as its ticket says; nothing of it is written."""


@dataclass(frozen=True)
class Passed:
    """Of each parameter the largest error of its gradient, as a share of its norm, and the most that was allowed in a step; the
    median error of its finite differences, as a share of its largest element. Of the predictions and of the losses the largest error, and the
    most that was allowed."""

    gradients: Mapping[str, float]
    allowed: Mapping[str, float]
    finite_differences: Mapping[str, float]
    outputs: float
    outputs_allowed: float
    losses: float
    losses_allowed: float

    def to_json(self) -> dict[str, Any]:
        return {
            "gradients": dict(self.gradients),
            "largest_gradient_error": max(self.gradients.values()),
            "finite_differences": dict(self.finite_differences),
            "output_difference": self.outputs,
            "loss_difference": self.losses,
            "gradient_steps": GRADIENT_STEPS,
            "loss_steps": LOSS_STEPS,
            "allowed": {
                "gradients": dict(self.allowed),
                "finite_differences": LARGEST_MEDIAN,
                "output_difference": self.outputs_allowed,
                "loss_difference": self.losses_allowed,
            },
            "reference": f"torch {torch.__version__}, float64",
        }


def check(ticket: Ticket, places: Places, open_trainer: Callable[[], Trainer]) -> Passed:
    """Of the artifact of `ticket`, without dropout, that `open_trainer` opens anew each time. `places`: where the trainer's values of a
    parameter stand in the whole one, row-major. Raises GateError naming the parameter, its error and the step."""
    gate = _Gate(ticket, places, np.random.default_rng(0))
    with open_trainer() as trainer:
        errors, allowed, differences = gate.gradients(trainer)
    with open_trainer() as trainer:
        return Passed(errors, allowed, differences, gate.output_error, gate.output_allowed, *gate.losses(trainer))


def without_dropout(ticket: Ticket) -> Ticket:
    """The same with every dropout's probability 0."""
    network = ticket.network
    if all(node.op != "dropout" for node in network.nodes):
        return ticket
    nodes = tuple(
        replace(node, attrs={**node.attrs, "probability": 0.0}) if node.op == "dropout" else node
        for node in network.nodes
    )
    return replace(ticket, network=Network(network.input_shape, network.parameters, nodes, network.loss))


class _Gate:
    """The reference's side."""

    def __init__(self, ticket: Ticket, places: Places, random: np.random.Generator) -> None:
        self.ticket, self.places, self.random = ticket, places, random
        self.network, self.document = ticket.network, ticket.network.to_json()
        self.recipe: Recipe = recipe(ticket)
        self.input = normalisation(ticket)
        self.state = {parameter.name for parameter in self.network.parameters if parameter.state}
        self.masks = {name: torch.from_numpy(mask.copy()) for name, mask in ticket.masks.items()}
        self.output_error = self.output_allowed = 0.0
        self.of_outputs = np.random.default_rng(1)  # its own: the batches do not depend on what is predicted

    def gradients(self, trainer: Trainer) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        worst: dict[str, float] = {}
        most: dict[str, float] = {}
        for step in range(GRADIENT_STEPS):
            batch = self.batch(trainer.batch, part=step == 2)  # one of them is not full
            values = self.values(trainer)
            self.predict(trainer, values, batch[0], step)
            trainer.compute_gradients(*batch)
            found, wanted = self.named(trainer.gradients, state=False), self.wanted(values, batch, torch.float64)
            rounded = self.rounded(values, batch, wanted)
            room = {name: max(LARGEST_ERROR, TIMES_FLOAT32 * error) for name, error in rounded.items()}
            for name, error in self.least_errors(values, batch, found, wanted, room).items():
                worst[name], most[name] = max(worst.get(name, 0.0), error), max(most.get(name, 0.0), room[name])
                if not error <= (allowed := room[name]):
                    raise GateError(
                        f"the gradient of '{name}' is off by {error:.2g} of its norm in step {step} (allowed: {allowed:.2g})"
                    )
            trainer.train_step(*self.batch(trainer.batch))
        return worst, most, self.differences(values, batch, found)

    def predict(self, trainer: Trainer, values: Tensors, x: Floats, step: int) -> None:
        wanted = self.outputs(values, x, torch.float64)
        scale = max(1.0, float(wanted.abs().max()))
        runs = [self.outputs(self.moved(values, self.of_outputs), x, torch.float32) for _ in range(PERTURBED)]
        rounded = max(float((run - wanted).abs().max()) for run in runs) / scale
        error = float((torch.from_numpy(trainer.predict(x)) - wanted).abs().max()) / scale
        allowed = max(LARGEST_OUTPUT_ERROR, TIMES_FLOAT32 * rounded)
        self.output_error, self.output_allowed = max(self.output_error, error), max(self.output_allowed, allowed)
        if not error <= allowed:
            raise GateError(f"a prediction is off by {error:.2g} in step {step} (allowed: {allowed:.2g})")

    def outputs(self, values: Tensors, x: Floats, dtype: torch.dtype) -> torch.Tensor:
        """What a trainer predicts, by PyTorch."""
        samples = reference.normalised(torch.from_numpy(x).to(dtype), self.input)
        with torch.no_grad():
            scores = reference.run(self.document, {n: v.to(dtype) for n, v in values.items()}, samples)
        if self.network.loss == "cross_entropy":
            return torch.softmax(scores, 1)
        return torch.sigmoid(scores) if self.network.loss == "bce" else scores

    def losses(self, trainer: Trainer) -> tuple[float, float]:
        values = self.values(trainer)
        exact, single = (
            _Training(self, values, torch.float64),
            _Training(self, self.moved(values, self.random), torch.float32),
        )
        worst = rounded = 0.0
        for step in range(LOSS_STEPS):
            batch = self.batch(trainer.batch)
            wanted, theirs, found = exact.step(batch), single.step(batch), trainer.train_step(*batch)
            scale = max(1.0, abs(wanted))
            rounded = max(rounded, abs(theirs - wanted) / scale)
            worst = max(worst, abs(found - wanted) / scale)
            allowed = max(LARGEST_DIFFERENCE, TIMES_FLOAT32 * rounded)
            if not abs(found - wanted) / scale <= allowed:
                raise GateError(f"the loss of step {step} is {found:.6g}, by PyTorch {wanted:.6g}")
        return worst, allowed

    def batch(self, most: int, *, part: bool = False) -> Batch:
        """Raw samples around the mean of the training data, with targets at random."""
        count = max(2, min(most, SAMPLES) - part) if most > 1 else 1
        shape, outputs = self.network.input_shape, self.network.output_shape[0]
        if any(node.op == "embedding" for node in self.network.nodes):
            x: NDArray[Any] = self.random.integers(0, self.entries(), (count, *shape))
        else:
            along = (-1,) + (1,) * (len(shape) - 1)
            mean, inverse_std = self.input.mean.reshape(along), self.input.inverse_std.reshape(along)
            x = mean + self.random.standard_normal((count, *shape)) / np.where(inverse_std == 0, 1, inverse_std)
        if self.network.loss == "cross_entropy":
            return x.astype(np.float32), self.random.integers(0, outputs, count).astype(np.int32)
        y = self.random.random((count, outputs))
        return x.astype(np.float32), (y if self.network.loss == "mse" else y.round()).astype(np.float32)

    def entries(self) -> int:
        """How many embeddings there are to choose from."""
        tables = [node.params["weight"] for node in self.network.nodes if node.op == "embedding"]
        return min(self.network.parameter_shapes[name][0] for name in tables)

    def loss(self, values: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        dtype = next(iter(values.values())).dtype
        x = reference.normalised(torch.from_numpy(batch[0]).to(dtype), self.input)
        y = torch.from_numpy(batch[1]).to(torch.int64 if batch[1].dtype == np.int32 else dtype)
        scores = reference.run(self.document, values, x, training=True)
        return reference.loss(self.network, self.recipe, scores, y)

    def wanted(self, values: Tensors, batch: Batch, dtype: torch.dtype) -> Tensors:
        """PyTorch's gradients; the running statistics of `values` stay."""
        own = {n: value.to(dtype, copy=True).requires_grad_(n not in self.state) for n, value in values.items()}
        self.loss(own, batch).backward()  # type: ignore[no-untyped-call]
        zero = {name: torch.zeros_like(value) for name, value in own.items()}
        return {name: zero[name] if v.grad is None else v.grad for name, v in own.items() if name not in self.state}

    def values(self, trainer: Trainer) -> Tensors:
        return self.named(trainer.values, state=True)

    def named(self, flat: Floats, *, state: bool) -> Tensors:
        """A trainer's values or gradients as whole parameters, pruned weights 0."""
        found, start = {}, 0
        for parameter in self.network.parameters:
            if parameter.name in self.state and not state:
                continue
            places = self.places[parameter.name]
            whole = np.zeros(parameter.size)
            whole[places] = flat[start : start + len(places)]
            found[parameter.name] = torch.from_numpy(whole.reshape(parameter.shape))
            start += len(places)
        return found

    def errors(self, found: Tensors, wanted: Tensors) -> dict[str, float]:
        live = {name: self.live(name, value) for name, value in wanted.items()}
        floor = FLOOR * max(float(value.norm()) for value in live.values())
        scales = {name: max(float(value.norm()), floor, 1e-30) for name, value in live.items()}
        return {name: float((self.live(name, found[name]) - live[name]).norm()) / scales[name] for name in live}

    def least_errors(
        self, values: Tensors, batch: Batch, found: Tensors, wanted: Tensors, room: Mapping[str, float]
    ) -> dict[str, float]:
        """With elements that lie on the kink of a ReLU, but for rounding, on the side where the errors are least; tried where
        some are above their `room` alone, so that a sound artifact is not refused by the luck of one element."""
        errors, at = self.errors(found, wanted), Sides()
        for _ in range(MOST_KINKS):
            if all(errors[name] <= room[name] for name in errors):
                break
            with at:
                self.wanted(values, batch, torch.float64)
            tried = []
            for place in at.nearest():
                with (other := Sides({*at.turned, place})):
                    tried.append((self.errors(found, self.wanted(values, batch, torch.float64)), other))
            best = min(tried, key=lambda one: max(one[0].values()), default=(errors, at))
            if max(best[0].values()) >= max(errors.values()):
                break
            errors, at = best
        return errors

    def rounded(self, values: Tensors, batch: Batch, wanted: Tensors) -> dict[str, float]:
        """How far off PyTorch is in float32, at most."""
        runs = [
            self.errors(self.wanted(self.moved(values, self.random), batch, torch.float32), wanted)
            for _ in range(PERTURBED)
        ]
        return {name: max(run[name] for run in runs) for name in wanted}

    def moved(self, values: Tensors, random: np.random.Generator) -> Tensors:
        share = {name: torch.from_numpy(random.standard_normal(value.shape)) for name, value in values.items()}
        return {name: value * (1 + PERTURBATION * share[name]) for name, value in values.items()}

    def live(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return value[self.masks[name]] if name in self.masks else value.flatten()

    def differences(self, values: Tensors, batch: Batch, found: Tensors) -> dict[str, float]:
        """Central ones at the weights of the largest gradients and at some others, as errors of `found`."""
        worst = {}
        floor = FLOOR * max(float(gradient.abs().max()) for gradient in found.values())
        with torch.no_grad():
            for name, gradient in found.items():
                flat = gradient.flatten().numpy()
                live = np.flatnonzero(self.ticket.masks[name]) if name in self.masks else np.arange(flat.size)
                largest = live[np.argsort(-np.abs(flat[live]), kind="stable")[: DIFFERENCES // 2]]
                chosen = {*largest.tolist(), *self.random.choice(live, DIFFERENCES - len(largest)).tolist()}
                scale = max(float(np.abs(flat).max()), floor, 1e-30)
                errors = [abs(self.slope(values, batch, name, place) - flat[place]) / scale for place in chosen]
                worst[name] = float(np.median(errors))  # a kink of relu or a maximum may lie at one of them
                if not worst[name] <= LARGEST_MEDIAN:
                    raise GateError(
                        f"the gradient of '{name}' is off by {worst[name]:.2g} of its largest from finite differences"
                    )
        return worst

    def slope(self, values: Tensors, batch: Batch, name: str, place: int) -> float:
        losses = []
        for sign in (1.0, -1.0):
            moved = {other: value.clone() for other, value in values.items()}
            moved[name].view(-1)[place] += sign * STEP
            losses.append(self.loss(moved, batch).item())
        return (losses[0] - losses[1]) / (2 * STEP)

    def rate_factor(self, step: int) -> float:
        r = self.recipe
        since = step - r.warmup_steps
        if since < 0:
            return (step + 1) / r.warmup_steps
        if r.schedule == "constant":
            return 1.0
        if r.schedule == "step":
            return float(r.schedule_factor ** (since // r.schedule_steps))
        done = min(since / r.schedule_steps, 1.0)
        left = 0.5 * (1 + np.cos(np.pi * done)) if r.schedule == "cosine" else 1 - done
        return float(r.schedule_factor + (1 - r.schedule_factor) * left)


class _Training:
    """A run of training by the recipe, in PyTorch."""

    def __init__(self, gate: _Gate, values: Tensors, dtype: torch.dtype) -> None:
        self.gate = gate
        self.values = {n: v.to(dtype, copy=True).requires_grad_(n not in gate.state) for n, v in values.items()}
        self.trained = [value for value in self.values.values() if value.requires_grad]
        self.optimizer = reference.optimizer(gate.recipe, self.trained)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, gate.rate_factor)

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        loss = self.gate.loss(self.values, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, mask in self.gate.masks.items():
            gradient = self.values[name].grad
            assert gradient is not None
            gradient.mul_(mask)
        if self.gate.recipe.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.trained, self.gate.recipe.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()
