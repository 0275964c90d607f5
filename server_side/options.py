"""Every option of a search, with its default and its meaning: the command line, the saved config and the API share it.

Options left at None take the value of the model's preset, else FALLBACKS. `resolve` fills them in and checks them all.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from server_side.errors import UsageError

FALLBACKS: Mapping[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "batch": 64,
    "steps": "20ep",
    "evaluate_every": "1ep",
    "validation": 0.1,
    "prune_fraction": 0.2,
    "accuracy_tolerance": 0.002,
}


@dataclass(frozen=True)
class Options:
    """Options of a search; densities, shares and accuracies are fractions of 1."""

    data: str = "digits"
    """digits, idx:DIR (original MNIST-style files), npz:FILE (x, y, optional x_test, y_test) or package.module:function"""
    model: str | None = None
    """lenet-300-100, lenet-300-100-digits or package.module:factory (default: lenet-300-100-digits for digits)"""
    seeds: int = 5
    """independent replicates, trained side by side; intervals are over them"""
    seed: int = 0
    """number of the first replicate; the others follow"""

    rounds: int | None = None
    """rounds of pruning (default: 12, or as many as target_density takes)"""
    target_density: float | None = None
    """stop at this share of live weights; with rounds, each round keeps target_density ** (1 / rounds)"""
    until_accuracy_falls: bool = False
    """stop after the first round whose validation accuracy is more than accuracy_tolerance below dense"""
    prune_fraction: float | None = None
    """share of the live weights removed each round"""
    output_prune_fraction: float | None = None
    """the same for the output layer (default: prune_fraction); layerwise scope only"""
    scope: Literal["layerwise", "global"] = "layerwise"
    """compare magnitudes within each layer, or over all of them"""
    schedule: Literal["iterative", "oneshot"] = "iterative"
    """take the weights that decide the mask from the previous round, or always from the dense network"""
    rewind_step: str = "0it"
    """step whose weights the ticket starts from, e.g. 0it (initialisation), 500it or 2ep"""
    reinits: int = 3
    """controls per ticket with its mask and fresh weights; 0 leaves them out"""
    shuffles: int = 1
    """controls per ticket with its weights and each layer's mask shuffled; 0 leaves them out"""

    optimizer: Literal["adam", "sgd"] | None = None
    """how every network is trained, here and on the device"""
    learning_rate: float | None = None
    """constant"""
    momentum: float = 0.0
    """of sgd"""
    weight_decay: float = 0.0
    """L2, added to the gradient"""
    batch: int | None = None
    """samples a step"""
    steps: str | None = None
    """length of a training, always run to the end: 50000it (steps) or 20ep (epochs)"""
    evaluate_every: str | None = None
    """distance of two evaluations on the validation part: 100it or 1ep; the early stop is one of them, found afterwards"""
    validation: float | None = None
    """part of the training data held out for early stopping and for choosing the ticket: a count, or a share below 1"""
    accuracy_tolerance: float | None = None
    """a ticket matches when its accuracy is surely less than this below dense (default: 0.002)"""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train; auto takes a CUDA device if there is one"""
    engine: Literal["auto", "stacked", "device"] = "auto"
    """stacked: all replicas in one batched PyTorch program; device: the sparse runtime that trains tickets on phones, a
    replica a CPU thread; auto: stacked on a GPU, device on a CPU, where it is faster even for the dense network"""
    threads: int = 0
    """CPU threads, part of what makes a rerun bit-identical (default: all cores)"""
    output_dir: str | None = None
    """run directory (default: runs/MODEL-DATA); the same command goes on with what is there"""
    quiet: bool = False
    """no progress on stderr"""
    json: bool = False
    """one JSON object on stdout instead of the table"""
    dry_run: bool = False
    """check everything, print the plan and stop"""

    def resolve(self, preset: Mapping[str, Any]) -> Options:
        """The same with nothing left open, checked; raises UsageError naming the option."""
        defaults = {**FALLBACKS, **preset}
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        options = dataclasses.replace(self, **filled, threads=self.threads or os.cpu_count() or 1)
        if options.output_prune_fraction is None:
            options = dataclasses.replace(options, output_prune_fraction=options.prune_fraction)
        if options.rounds is None and options.target_density is None:
            options = dataclasses.replace(options, rounds=12)
        options._check()
        return options

    def filled(self, name: str) -> Any:
        """The value of an option that `resolve` has filled."""
        value = getattr(self, name)
        assert value is not None, name
        return value

    def identity(self) -> dict[str, Any]:
        """What decides the result: every option but where it is written and how it is shown."""
        shown = ("output_dir", "quiet", "json", "dry_run")
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in shown}

    def _check(self) -> None:
        at_least = {"seeds": 1, "seed": 0, "rounds": 1, "reinits": 0, "shuffles": 0, "batch": 1, "threads": 1}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: must be at least {least}")
        open_shares = ("target_density", "prune_fraction", "output_prune_fraction")
        for name in open_shares:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} {value}: must be between 0 and 1, e.g. 0.2")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum {self.momentum}: must be at least 0 and below 1")
        for name in ("learning_rate", "weight_decay", "accuracy_tolerance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)}: must be a number of at least 0")


def parse_steps(text: str, steps_per_epoch: int, name: str) -> int:
    """Steps of `500it` or `20ep`; raises UsageError naming the option."""
    number, unit = text[:-2], text[-2:]
    if unit not in ("it", "ep") or not number.isdigit():
        raise UsageError(f"{name} '{text}': expected steps like 500it or epochs like 20ep")
    return int(number) * (1 if unit == "it" else steps_per_epoch)
