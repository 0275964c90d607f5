"""Who takes part in benchmarks/find_speed.py: trainings of LeNet-300-100, each contender in processes of its own.

A contender stands still until it is asked for an interval: 100 steps of each of its replicas and then the validation part,
as in the protocol of the paper. All train on the same samples by the same recipe; none is told of the others.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.find_rival import open_lth
from server_side.controls import apply_masks
from server_side.data import Dataset, Split, load_data, split
from server_side.device_engine import DeviceEngine
from server_side.ladder import Ladder, ladder
from server_side.models import Model, load_model
from server_side.options import Options
from server_side.presets import PRESETS
from server_side.prune import Masks
from server_side.stacked import StackedEngine
from server_side.stacked_program import Arithmetic, same_bits_on
from server_side.training import Job, Recipe

MODEL = "lenet-300-100"
STEPS, INTERVAL, EVALUATED = 50_000, 100, 5_000  # samples after each interval
RECIPE = Recipe("adam", 1.2e-3, 0.0, 0.0, batch=60, steps=STEPS, evaluate_every=INTERVAL)
ROUNDS = 20

Interval = Callable[[int], None]  # of the number of what is trained, where a contender has several


@dataclass(frozen=True)
class Contender:
    """`workers` processes of `threads` threads, in which `kind` trains `replicas` replicas each."""

    kind: str
    replicas: int = 1
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    precision: str = "32-true"
    compiled: bool = False
    path: Path | None = None  # of the rival's checkout
    evaluated: int = 0  # samples that the rival measures after each interval


@dataclass
class Crew:
    """The running processes of one contender; `interval` lets all of them do one."""

    contender: Contender
    connections: list[Connection] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)

    def start(self, source: str) -> None:
        """Raises RuntimeError with its message where one of them fails."""
        context = multiprocessing.get_context("spawn")
        for _ in range(self.contender.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.contender, source), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)
        for connection in self.connections:
            self._receive(connection)

    def interval(self, which: int = 0) -> float:
        """The seconds of CPU time that it took, of all processes and threads."""
        for connection in self.connections:
            connection.send(which)
        return sum(self._receive(connection) for connection in self.connections)

    def _receive(self, connection: Connection) -> float:
        try:
            answer: float | str = connection.recv()
        except EOFError:
            answer = "its process has ended"
        if isinstance(answer, str):
            raise RuntimeError(f"{self.contender.kind}: {answer}")
        return answer

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()


def _serve(connection: Connection, contender: Contender, source: str) -> None:
    """The main function of a contender's process: an interval for each number it is sent, until it is killed."""
    torch.set_num_threads(contender.threads)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            interval = KINDS[contender.kind](contender, source, Path(scratch))
            interval(0)  # warm-up
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")
            return
        connection.send(0.0)
        while True:
            which, began = connection.recv(), time.process_time()
            interval(which)
            connection.send(time.process_time() - began)


def dataset(source: str) -> Dataset:
    """`source` as of the search, or `random`: as many samples of the same shape as MNIST's."""
    if source != "random":
        return load_data(source)
    draw = np.random.default_rng(0)
    parts = {n: (draw.integers(0, 256, (n, 28, 28), np.uint8), draw.integers(0, 10, n)) for n in (60_000, 10_000)}
    return Dataset("random", *parts[60_000], *parts[10_000], tuple(map(str, range(10))))


def _split(source: str) -> Split:
    return split(dataset(source), PRESETS[MODEL].defaults["validation"], 0)


@cache
def _model() -> Model:
    return load_model(MODEL, (28, 28), 10)


@cache
def lenet_ladder() -> Ladder:
    """The quotas of the paper: 20 % of each layer a round, 10 % of the output layer."""
    return ladder(_model().network, Options(rounds=ROUNDS).resolve(PRESETS[MODEL].defaults))


def _random_masks(number: int) -> Masks:
    """Of a round of the ladder, as many live weights in each layer as its tickets have."""
    draw, live = np.random.default_rng(number), lenet_ladder().rungs[number]
    masks = {}
    for name, shape in lenet_ladder().shapes.items():
        masks[name] = (draw.permutation(math.prod(shape)) < live[name]).reshape(shape)
    return masks


def _jobs(number: int, count: int) -> list[Job]:
    """Controls, of which nothing but their figures is kept, at the density of round `number`."""
    masks = _random_masks(number)
    starts = [{k: v.numpy() for k, v in _model().initial_weights(seed).items()} for seed in range(count)]
    return [Job(seed, "reinit", 0, apply_masks(start, masks), masks) for seed, start in enumerate(starts)]


class Gate:
    """A training.Watch that lets the `parties` threads of an engine go from one evaluation to the next when it is told."""

    def __init__(self, parties: int) -> None:
        self._go, self._done = threading.Barrier(parties + 1), threading.Barrier(parties + 1)

    def interval(self) -> None:
        self._go.wait()
        self._done.wait()

    def begin(self, what: str) -> None:
        pass

    def advanced(self, replica_steps: int, train_loss: float, validation_accuracy: float) -> None:
        if not math.isnan(validation_accuracy):
            self._done.wait()
            self._go.wait()

    def stop_requested(self) -> bool:
        return False

    def start(self, train: Callable[[], object]) -> None:
        """Runs the engine in a thread, to its first evaluation."""

        def run() -> None:
            try:
                train()
            finally:  # it never ends by itself: what waits for it must not wait for ever
                self._done.abort()

        threading.Thread(target=run, daemon=True).start()
        self._done.wait()


def stacked(contender: Contender, source: str, scratch: Path) -> Interval:
    """The stacked engine, with the masks of the seventh round; its time does not depend on them."""
    arithmetic = Arithmetic(contender.precision, contender.compiled)
    engine = StackedEngine(_model(), _split(source), RECIPE, torch.device(contender.device), arithmetic)
    gate = Gate(1)
    jobs = _jobs(7, contender.replicas)

    def train() -> None:
        torch.set_num_threads(contender.threads)  # of the thread that computes
        with same_bits_on(contender.device, precision=contender.precision):
            engine.train(jobs, scratch / "stack.pt", gate)

    gate.start(train)
    return lambda which: gate.interval()


def device(contender: Contender, source: str, scratch: Path) -> Interval:
    """The device engine at each density of the ladder, a replica a thread."""
    engine = DeviceEngine(_model().network, _split(source), RECIPE, contender.replicas)
    gates = []
    for number in range(ROUNDS + 1):
        gate = Gate(contender.replicas)
        jobs = _jobs(number, contender.replicas)
        paths = {job.name: scratch / f"{number}-{job.name}" for job in jobs}

        def train(jobs: list[Job] = jobs, paths: Mapping[str, Path] = paths, gate: Gate = gate) -> None:
            engine.train(jobs, paths, lambda job: nullcontext(gate), lambda job, training: None)

        gate.start(train)
        gates.append(gate)
    return lambda which: gates[which].interval()


def plain_torch(contender: Contender, source: str, scratch: Path) -> Interval:
    """A training as one writes it by hand, with what makes it fast: data on the device, the fused optimizer, no mask, nothing
    read back between two evaluations."""
    data, place = _split(source), torch.device(contender.device)
    x, y = torch.from_numpy(data.x_train).to(place), torch.from_numpy(data.y_train).to(place)
    x_validation = torch.from_numpy(data.x_validation).to(place)
    y_validation = torch.from_numpy(data.y_validation).to(place)
    model = _model().factory().to(place)
    optimizer = torch.optim.Adam(model.parameters(), RECIPE.learning_rate, fused=True)
    order, step = torch.randperm(len(x), device=place), 0

    def train_step(rows: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def interval(which: int) -> None:
        nonlocal order, step
        for _ in range(INTERVAL):
            if (step + 1) * RECIPE.batch > len(x):
                order, step = torch.randperm(len(x), device=place), 0
            train_step(order[step * RECIPE.batch : (step + 1) * RECIPE.batch])
            step += 1
        _evaluate(model, x_validation, y_validation)

    return interval


def _evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    with torch.no_grad():
        scores = model(x)
        return F.cross_entropy(scores, y).item(), (scores.argmax(1) == y).float().mean().item()


def _open_lth(contender: Contender, source: str, scratch: Path) -> Interval:
    """By itself it would measure 10,000 samples once an epoch."""
    assert contender.path is not None
    gate = Gate(1)
    train = open_lth(contender.path, dataset(source), RECIPE, _random_masks(7), scratch, contender.evaluated)
    gate.start(lambda: _counting(train, gate, contender.threads))
    return lambda which: gate.interval()


def _counting(train: Callable[[Callable[[], None]], None], gate: Gate, threads: int) -> None:
    torch.set_num_threads(threads)
    steps = 0

    def before_step() -> None:
        nonlocal steps
        if steps and steps % INTERVAL == 0:
            gate.advanced(INTERVAL, math.nan, 0.0)
        steps += 1

    train(before_step)


KINDS: Mapping[str, Callable[[Contender, str, Path], Interval]] = {
    "PyTorch": plain_torch,
    "stacked": stacked,
    "device": device,
    "open_lth": _open_lth,
}
