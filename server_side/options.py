"""Every option of a search, with its default and its meaning: the command line, the saved config and the API share it.

Options left at None take the value of the model's preset, else FALLBACKS. `resolve` fills them in and checks them all;
`settled` decides what is left to the machine. An option that would have no effect is refused.
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
    """digits, idx:DIR, npz:FILE, cifar10:DIR, cifar100:DIR, images:DIR, table:FILE (.csv, .parquet), download:NAME (mnist, fashion-mnist, cifar10, cifar100) or package.module:function"""
    model: str | None = None
    """lenet-300-100, lenet-300-100-digits or package.module:factory (default: lenet-300-100-digits for digits)"""
    seeds: int = 5
    """independent replicates, trained side by side; intervals are over them"""
    seed: int = 0
    """number of the first replicate; the others follow"""
    split_seed: int = 0
    """fixes which samples are held out to validate (and to test, where the data has no test part), whatever the seeds"""

    rounds: int | None = None
    """rounds of pruning (default: 12, or as many as target_density takes)"""
    target_density: float | None = None
    """prune until no more than this share of the weights is live; with rounds, by equal shares that end there"""
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
    """of sgd alone"""
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
    """a ticket matches when its accuracy is surely no more than this below dense (default: 0.002; for digits 0.01)"""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train; auto takes a CUDA device if there is one, or what the run directory was begun with"""
    engine: Literal["auto", "stacked", "device"] = "auto"
    """stacked: up to 64 replicas in one batched PyTorch program; device: the sparse runtime that trains tickets on phones,
    a replica a CPU thread; auto: stacked on a GPU, device on a CPU, or what the run directory was begun with"""
    threads: int = 0
    """CPU threads (default: all cores); the stacked engine on a CPU gives the same bits for the same number only"""
    output_dir: str | None = None
    """run directory (default: runs/MODEL-DATA); the same command goes on with what is there"""
    quiet: bool = False
    """no progress on stderr"""
    json: bool = False
    """one JSON object on stdout instead of the table"""
    dry_run: bool = False
    """check everything, print the plan and stop"""

    def resolve(self, preset: Mapping[str, Any]) -> Options:
        """The same filled from the preset and FALLBACKS, and checked; raises UsageError naming the option."""
        shares = self._shares_to_target()
        defaults = {**FALLBACKS, **preset, **shares}
        if self.scope == "layerwise":
            defaults.setdefault("output_prune_fraction", self.prune_fraction or defaults["prune_fraction"])
        else:
            defaults.pop("output_prune_fraction", None)
        if self.rounds is None and self.target_density is None:
            defaults["rounds"] = 12
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if shares and self.prune_fraction not in (None, shares["prune_fraction"]):
            raise UsageError(
                f"prune_fraction {self.prune_fraction} with rounds {self.rounds} and target_density {self.target_density}: "
                "two of them say the third; leave one out"
            )
        options = dataclasses.replace(self, **filled)
        options._check()
        options._check_together()
        return options

    def _shares_to_target(self) -> dict[str, float]:
        """The share to prune a round that ends at target_density after the rounds, if both are given."""
        if self.rounds is None or self.target_density is None:
            return {}
        if self.rounds < 1 or not 0 < self.target_density < 1:
            return {}  # refused below
        share = 1 - self.target_density ** (1 / self.rounds)
        return {"prune_fraction": share, "output_prune_fraction": share}

    def settled(self, kept: Mapping[str, Any], has_cuda: bool) -> Options:
        """The same with what was left to the machine decided: as `kept`, the config of the run that goes on, has it, else
        by this machine. So no run mixes engines, and the config says with what it was made."""
        accelerator, engine = self.accelerator, self.engine
        if accelerator == "auto":
            accelerator = _kept(kept, "accelerator") or ("cuda" if has_cuda and engine != "device" else "cpu")
        if engine == "auto":
            engine = _kept(kept, "engine") or ("stacked" if accelerator == "cuda" else "device")
        there = kept.get("threads")
        threads = self.threads or (there if type(there) is int and there > 0 else 0) or os.cpu_count() or 1
        return dataclasses.replace(self, accelerator=accelerator, engine=engine, threads=threads)

    def filled(self, name: str) -> Any:
        """The value of an option that `resolve` has filled."""
        value = getattr(self, name)
        assert value is not None, name
        return value

    def identity(self) -> dict[str, Any]:
        """What decides the result, of settled options: all but where it is written, how it is shown and, where no bit
        depends on them, the threads."""
        free = ["output_dir", "quiet", "json", "dry_run"]
        if (self.engine, self.accelerator) != ("stacked", "cpu"):
            free.append("threads")
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in free}

    def _check(self) -> None:
        at_least = {"seeds": 1, "seed": 0, "split_seed": 0, "rounds": 1, "reinits": 0, "shuffles": 0}
        at_least |= {"batch": 1, "threads": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: must be at least {least}")
        open_shares = ("target_density", "prune_fraction", "output_prune_fraction")
        for name in open_shares:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} {value}: must be between 0 and 1, e.g. 0.2")
        if not 0 < self.filled("validation") < float("inf"):
            raise UsageError(f"validation {self.validation}: must be a count, or a share between 0 and 1, e.g. 0.1")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum {self.momentum}: must be at least 0 and below 1")
        for name in ("learning_rate", "weight_decay", "accuracy_tolerance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)}: must be a number of at least 0")

    def _check_together(self) -> None:
        """Refuses what another option would silently leave without effect."""
        if self.scope == "global" and self.output_prune_fraction is not None:
            raise UsageError(
                f"output_prune_fraction {self.output_prune_fraction} with scope global: all layers share one quota there; "
                "leave it out, or take --scope layerwise"
            )
        if self.optimizer == "adam" and self.momentum != 0:
            raise UsageError(
                f"momentum {self.momentum} with optimizer adam: only sgd has it; leave it out, or take --optimizer sgd"
            )
        if self.engine == "device" and self.accelerator == "cuda":
            raise UsageError(
                "accelerator cuda with engine device: that one trains on the CPU; leave one out, or take --engine stacked"
            )


def _kept(kept: Mapping[str, Any], name: str) -> Any:
    """The value of an option with `auto` in a run's config, or None if there is none that could be meant."""
    known = {"accelerator": ("cpu", "cuda"), "engine": ("stacked", "device")}
    return kept.get(name) if kept.get(name) in known[name] else None


def parse_steps(text: str, steps_per_epoch: int, name: str) -> int:
    """Steps of `500it` or `20ep`; raises UsageError naming the option."""
    number, unit = text[:-2], text[-2:]
    if unit not in ("it", "ep") or not number.isdecimal():
        raise UsageError(f"{name} '{text}': expected steps like 500it or epochs like 20ep")
    return int(number) * (1 if unit == "it" else steps_per_epoch)
