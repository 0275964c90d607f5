"""Every option of a search, with its default and its meaning: the command line, the saved config and the API share it.

Options left at None take the value of the model's preset, else of the method, else FALLBACKS. `resolve` fills them in and
option_rules.py checks them; `settled` decides what is left to the machine. An option that would have no effect is refused.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from server_side import option_rules
from server_side.errors import UsageError
from server_side.steps import scaled

FALLBACKS: Mapping[str, Any] = {
    "scope": "layerwise",
    "exclude": [],
    "prune_fractions": {},
    "prune_fraction": 0.2,
    "rewind_step": "0it",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "learning_rate_schedule": "constant",
    "warmup": "0it",
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "augment": "",
    "batch": 64,
    "steps": "20ep",
    "evaluate_every": "1ep",
    "validation": 0.1,
    "accuracy_tolerance": 0.002,
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    **{method: {"scope": "global"} for method in ("snip", "grasp", "synflow", "rigl", "gradual")},
    "l1": {"scope": "global", "regularisation": 0.1},
    "gates": {"scope": "global", "regularisation": 1.0},
}
DEPENDENT = {  # what a preset says of these is void where the first is chosen otherwise
    "optimizer": ("learning_rate", "momentum", "nesterov"),
    "learning_rate_schedule": ("learning_rate_drops", "learning_rate_factor"),
    "scope": ("output_prune_fraction", "prune_fractions"),
    "prune_fraction": ("output_prune_fraction", "prune_fractions"),
}


@dataclass(frozen=True)
class Options:
    """Options of a search; densities, shares and accuracies are fractions of 1. What a preset says comes before the defaults
    told here (a default of null: see the text)."""

    data: str = "digits"
    """digits, idx:DIR, npz:FILE, cifar10:DIR, cifar100:DIR, images:DIR, table:FILE (.csv, .parquet), download:NAME (mnist, fashion-mnist, cifar10, cifar100) or package.module:function"""
    model: str | None = None
    """lenet-300-100, lenet-300-100-digits, conv-2, conv-4, conv-6, vgg-16, vgg-19, resnet-20, resnet-18, resnet-50, mobilenet,
    sensor-1d or package.module:factory (default: lenet-300-100-digits for digits)"""
    seeds: int = 5
    """independent replicates, trained side by side; intervals are over them"""
    seed: int = 0
    """number of the first replicate; the others follow"""
    split_seed: int = 0
    """fixes which samples are held out to validate (and to test, where the data has no test part), whatever the seeds"""
    init_from_seed: bool = False
    """draw initial weights by the generator of devices, from the distributions of the model's own initialisation: the ticket's
    seed is then enough for its weights. Tickets that start at step 0 alone"""

    method: Literal[
        "iterative",
        "oneshot",
        "random",
        "magnitude",
        "snip",
        "grasp",
        "synflow",
        "early-bird",
        "rigl",
        "gradual",
        "l1",
        "gates",
    ] = "iterative"
    """where masks come from. Magnitudes of trained weights: iterative (of the round before), oneshot (of the dense network),
    early-bird (of the dense network once its mask has settled). Scores at rewind_step: random, magnitude, snip, grasp,
    synflow. A training in which the mask moves: rigl, gradual, l1, gates"""
    structure: Literal["none", "blocks-of-4", "blocks-of-8", "rows", "2:4", "4:8"] = "none"
    """weights that are pruned together: blocks of output rows that devices compute faster; whole rows (units, filters) with the
    weights that read them, so that a smaller dense network is left; or so many of each few inputs that stay, one fewer a round"""
    regularisation: float | None = None
    """of l1 and gates alone: the factor of the penalty (default: 0.1 for l1, of sgd 1e-4; 1 for gates)"""
    retrain: Literal["weights", "learning-rate", "fine-tune"] = "weights"
    """how a ticket is trained: weights (from the weights of rewind_step, schedule from there), learning-rate (from the
    trained weights that decided its mask, schedule from rewind_step), fine-tune (from those, at the last learning rate)"""
    rounds: int | None = None
    """rounds of pruning (default: 12, or as many as target_density takes)"""
    target_density: float | None = None
    """prune until no more than this share of the weights is live; with rounds, by equal shares that end there"""
    fit_bytes: str | None = None
    """largest artifact, e.g. 16KB (of 1,024 bytes): the most accurate ticket that fits is chosen, on the validation part, and
    without rounds or target_density pruning goes on until one does"""
    fit_arena: str | None = None
    """the same for the memory to train it, as device_runtime inspect counts it; for this the ticket's batch may be halved"""
    fit_step_ms: float | None = None
    """the same for the milliseconds of a training step on one thread of this machine"""
    until_accuracy_falls: bool = False
    """stop after the first round whose validation accuracy is more than accuracy_tolerance below dense"""
    prune_fraction: float | None = None
    """share of the live weights removed each round (default: 0.2)"""
    output_prune_fraction: float | None = None
    """the same for the output layer (default: prune_fraction); layerwise scope only"""
    prune_fractions: dict[str, float] | None = None
    """the same by layer name, e.g. '{"conv*": 0.1}': patterns of the shell, the first that matches; layerwise scope only"""
    exclude: list[str] | None = None
    """layers that are not pruned and count in no quota, in a density as live weights, e.g. '["shortcut*", "output"]'"""
    scope: Literal["layerwise", "global"] | None = None
    """compare scores within each layer, or over all of them (default: the preset's, else layerwise, but global for snip, grasp, synflow,
    rigl, gradual, l1 and gates)"""
    rewind_step: str | None = None
    """step whose weights the ticket starts from, e.g. 0it (initialisation, the default), 500it or 2ep; auto: the first of some
    at which tickets of a fifth of the weights are stable"""
    reinits: int = 3
    """controls per ticket with its mask and fresh weights; 0 leaves them out"""
    same_signs: int = 0
    """controls per ticket with its mask and fresh weights that have the signs of its own; 0 leaves them out"""
    shuffles: int = 1
    """controls per ticket with its weights and each layer's mask shuffled; 0 leaves them out"""
    stability: bool = True
    """train the chosen tickets once more with another order of the samples, and tell whether they are stable: whether the
    error stays low on the line between the two"""

    optimizer: Literal["adam", "adamw", "sgd"] | None = None
    """how every network is trained, here and on the device (default: adam)"""
    learning_rate: float | None = None
    """its highest value (default: 0.001; 0.1 for sgd)"""
    learning_rate_schedule: Literal["constant", "step", "cosine", "linear"] | None = None
    """after warmup: constant (default), multiplied by learning_rate_factor at each of learning_rate_drops, or falling to 0 at
    the end. Devices train at a constant rate"""
    learning_rate_drops: list[str] | None = None
    """steps at which schedule step lowers the rate, e.g. '["20000it", "25000it"]'"""
    learning_rate_factor: float | None = None
    """of schedule step (default: 0.1)"""
    warmup: str | None = None
    """first steps, in which the learning rate rises from 0: 20000it or 5ep (default: 0it)"""
    momentum: float | None = None
    """of sgd alone (default: 0)"""
    nesterov: bool | None = None
    """of sgd with momentum alone (default: false)"""
    weight_decay: float | None = None
    """L2, added to the gradient; of adamw apart from it (default: 0)"""
    label_smoothing: float | None = None
    """share of each label given to all classes alike (default: 0)"""
    augment: str | None = None
    """random changes of training pictures: flip (left to right), crop4 (moved by up to 4 pixels) or resized8 (a rectangle of 8 to
    100 % of the area, stretched), joined as flip,crop4 (default: none)"""
    batch: int | None = None
    """samples a step (default: 64)"""
    steps: str | None = None
    """length of a training, always run to the end: 50000it (steps) or 20ep (epochs, the default). The warm-up, drops and rewind
    step of a preset go with it in proportion"""
    evaluate_every: str | None = None
    """distance of two evaluations on the validation part: 100it or 1ep; the early stop is one of them, found afterwards (default: 1ep)"""
    validation: float | None = None
    """part of the training data held out for early stopping and for choosing the ticket: a count, or a share below 1
    (default: 0.1)"""
    accuracy_tolerance: float | None = None
    """a ticket matches when its accuracy is surely no more than this below dense (default: 0.002; for digits 0.01)"""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to train; auto takes a CUDA device if there is one, or what the run directory was begun with"""
    engine: Literal["auto", "stacked", "device", "fabric"] = "auto"
    """stacked: up to 64 replicas in one batched PyTorch program; device: the sparse runtime that trains tickets on phones,
    a replica a CPU thread; fabric: one replica at a time, for networks that fill a GPU (pip install '.[large]'); auto: stacked on a GPU, device on a CPU, or what the run directory was begun with"""
    precision: Literal["32-true", "tf32", "bf16-mixed", "16-mixed"] | None = None
    """of the stacked and the fabric engine, in training: float32 (default), or products of shorter numbers: TF32 (GPUs), bfloat16,
    or half floats (fabric on GPUs). Evaluations of the stacked engine are in float32 but for TF32"""
    compile: bool = False
    """of the stacked engine: compile its step by torch.compile; takes a minute for each size of stack"""
    replica_workers: int | None = None
    """of the fabric engine: in rounds of fewer replicas than these, so many workers, all of the launch, train each replica
    together, every one a part of its batches (default: all, if they are more than the seeds, else 1); the bits depend on it"""
    stack_size: int | None = None
    """of the stacked engine: how many replicas make one program at most (default: 64). Workers share whole programs, so take
    fewer where there are fewer programs than workers; the bits may be others for another number"""
    threads: int = 0
    """CPU threads of a worker (default: all cores, by the workers of the machine); the stacked engine on a CPU gives the same bits for the same number only"""
    output_dir: str | None = None
    """run directory (default: runs/MODEL-DATA); the same command goes on with what is there"""
    tracker: Literal["tensorboard", "mlflow"] | None = None
    """log curves, rounds, result and files there too: tensorboard/ in the run directory, or MLFLOW_TRACKING_URI (default: mlflow.db in
    the run directory)"""
    quiet: bool = False
    """no progress on stderr"""
    json: bool = False
    """one JSON object on stdout instead of the table"""
    dry_run: bool = False
    """check everything, print the plan and stop"""

    def resolve(self, preset: Mapping[str, Any]) -> Options:
        """The same filled from the preset, the method and FALLBACKS, and checked; raises UsageError naming the option."""
        kept = {name: value for name, value in preset.items() if getattr(self, name) is None}
        kept = {name: value for name, value in kept.items() if not self._voids(name, preset)}
        if self.output_prune_fraction is not None and "prune_fractions" in kept:
            kept["prune_fractions"] = {k: share for k, share in kept["prune_fractions"].items() if k != "output"}
        kept = scaled(kept, preset, self.steps)
        shares = self._shares_to_target()
        defaults = {**FALLBACKS, **METHODS.get(self.method, {}), **kept, **shares}
        if self.n_of_m is not None:
            defaults["scope"] = "layerwise"
            if self.scope == "global":
                raise UsageError(
                    f"scope global with structure {self.structure}: it says what stays in each layer; leave it out"
                )
        scope = self.scope or defaults["scope"]
        if scope == "layerwise":
            defaults.setdefault("output_prune_fraction", self.prune_fraction or defaults["prune_fraction"])
        else:
            for name in ("output_prune_fraction", "prune_fractions"):
                defaults.pop(name, None)
        if self.n_of_m is not None:
            for name in ("prune_fraction", "output_prune_fraction", "prune_fractions"):
                defaults.pop(name, None)
        if (self.optimizer or defaults["optimizer"]) == "sgd" and "learning_rate" not in kept:
            defaults["learning_rate"] = 0.1  # a step of Adam is as long for a small gradient as for a large one
        if (self.learning_rate_schedule or defaults["learning_rate_schedule"]) == "step":
            defaults.setdefault("learning_rate_factor", 0.1)
        if self.method == "l1" and (self.optimizer or defaults["optimizer"]) == "sgd":
            defaults["regularisation"] = 1e-4
        if not (self.rounds or self.target_density or self.limits or self.n_of_m):
            defaults["rounds"] = 12
        filled = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        for name in ("prune_fraction", "output_prune_fraction"):
            given = getattr(self, name)
            if shares and given not in (None, shares[name]):
                raise UsageError(
                    f"{name} {given} with rounds {self.rounds} and target_density {self.target_density}: these two say the "
                    "shares; leave one out"
                )
        options = dataclasses.replace(self, **filled)
        option_rules.check(options)
        return options

    @property
    def limits(self) -> tuple[str | float | None, ...]:
        """What a device has, as given; empty where nothing is."""
        given = (self.fit_bytes, self.fit_arena, self.fit_step_ms)
        return given if any(limit is not None for limit in given) else ()

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """The two numbers of an N:M structure."""
        n, colon, m = self.structure.partition(":")
        return (int(n), int(m)) if colon else None

    def _voids(self, name: str, preset: Mapping[str, Any]) -> bool:
        """Whether another choice makes the preset's value of `name` void."""
        for chosen, dependents in DEPENDENT.items():
            value = getattr(self, chosen)
            other = chosen == "prune_fraction" or value != preset.get(chosen, FALLBACKS.get(chosen))
            if name in dependents and value is not None and other:
                return True
        return False

    def _shares_to_target(self) -> dict[str, float]:
        """The share to prune a round that ends at target_density after the rounds, if both are given."""
        if self.rounds is None or self.target_density is None:
            return {}
        if self.rounds < 1 or not 0 < self.target_density < 1:
            return {}  # refused below
        share = 1 - self.target_density ** (1 / self.rounds)
        return {"prune_fraction": share, "output_prune_fraction": share, "prune_fractions": {}}

    def settled(self, kept: Mapping[str, Any], has_cuda: bool, local_workers: int = 1, workers: int = 1) -> Options:
        """The same with what was left to the machine decided: as `kept`, the config of the run that goes on, has it, else
        by this machine, which `local_workers` of all `workers` share. So no run mixes engines, and the config says with
        what it was made."""
        accelerator, engine = self.accelerator, self.engine
        if accelerator == "auto":
            accelerator = _kept(kept, "accelerator") or ("cuda" if has_cuda and engine != "device" else "cpu")
        if engine == "auto":
            engine = _kept(kept, "engine") or ("stacked" if accelerator == "cuda" else "device")
        there = kept.get("threads")
        own = max(1, (os.cpu_count() or 1) // local_workers)
        threads = self.threads or (there if type(there) is int and there > 0 else 0) or own
        precision, together = self.precision, self.replica_workers
        if engine != "device":
            precision = precision or kept.get("precision") or "32-true"
        if engine == "fabric":
            together = together or kept.get("replica_workers") or (workers if workers > self.seeds else 1)
        return dataclasses.replace(
            self,
            accelerator=accelerator,
            engine=engine,
            threads=threads,
            precision=precision,
            replica_workers=together,
        )

    def filled(self, name: str) -> Any:
        """The value of an option that `resolve` has filled."""
        value = getattr(self, name)
        assert value is not None, name
        return value

    def identity(self) -> dict[str, Any]:
        """What decides the result, of settled options: all but where it is written, how it is shown and, where no bit
        depends on them, the threads."""
        free = ["output_dir", "tracker", "quiet", "json", "dry_run"]
        on_cpu = self.engine in ("stacked", "fabric") and self.accelerator == "cpu"
        by_torch = on_cpu or self.method in option_rules.BY_TORCH
        if not by_torch:
            free.append("threads")
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in free}


def _kept(kept: Mapping[str, Any], name: str) -> Any:
    """The value of an option with `auto` in a run's config, or None if there is none that could be meant."""
    known = {"accelerator": ("cpu", "cuda"), "engine": ("stacked", "device", "fabric")}
    return kept.get(name) if kept.get(name) in known[name] else None
