"""What options may say: each within its range, and none that another one would leave without effect.

Every refusal is a UsageError that names the option, its value and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_side.errors import UsageError
from server_side.steps import parse_steps

if TYPE_CHECKING:
    from server_side.options import Options

AT_LEAST = {
    "seeds": 1,
    "seed": 0,
    "split_seed": 0,
    "rounds": 1,
    "reinits": 0,
    "same_signs": 0,
    "shuffles": 0,
    "batch": 1,
    "replica_workers": 1,
    "stack_size": 1,
    "threads": 0,
}
OPEN_SHARES = ("target_density", "prune_fraction", "output_prune_fraction")
SHARES_BELOW_ONE = ("momentum", "label_smoothing")
MOVING = ("rigl", "gradual", "l1", "gates")
BY_TORCH = ("snip", "grasp", "synflow", *MOVING)  # whatever the engine; so their bits depend on the threads
AT_REWIND_STEP = ("random", "magnitude", "snip", "grasp", "synflow")
NOT_NEGATIVE = ("learning_rate", "weight_decay", "accuracy_tolerance")


def check(options: Options) -> None:
    """Raises UsageError for the first thing that is wrong with filled options."""
    _check_ranges(options)
    _check_pruning(options)
    _check_recipe(options)
    _check_start(options)
    if options.engine == "device" and options.accelerator == "cuda":
        raise UsageError(
            "accelerator cuda with engine device: that one trains on the CPU; leave one out, or take --engine stacked"
        )


def check_settled(options: Options, workers: int) -> None:
    """Raises UsageError for what does not go with the engine, the accelerator or the `workers` that were decided."""
    engine, moving = options.engine, options.method in MOVING
    if options.stack_size and engine != "stacked" and not (engine == "device" and moving):
        raise UsageError(f"stack_size {options.stack_size} with engine {engine}: it has no stacks; leave it out")
    if options.compile and engine != "stacked":
        raise UsageError(f"compile with engine {engine}: only stacked has it; leave it out, or take --engine stacked")
    _check_precision(options)
    if engine != "fabric":
        if options.replica_workers is not None:
            raise UsageError(
                f"replica_workers {options.replica_workers} with engine {engine}: only fabric has it; leave it out, or take --engine fabric"
            )
        return
    if moving:
        raise UsageError(f"method {options.method} with engine fabric: its masks move in stacks; take --engine stacked")
    together = options.filled("replica_workers")
    if together > 1 and together != workers:
        raise UsageError(
            f"replica_workers {together}, but this launch has {workers}: all of them train a replica together, or none; start {together}"
        )
    if options.filled("batch") % together:
        raise UsageError(f"batch {options.batch} for {together} workers together: must be a multiple of them")


def _check_precision(options: Options) -> None:
    precision, engine = options.precision, options.engine
    if engine == "device" and precision is not None:
        raise UsageError(f"precision {precision} with engine device: it computes in float32; leave it out")
    if precision == "16-mixed" and engine == "stacked":
        raise UsageError("precision 16-mixed with engine stacked: half floats need scaled gradients; take bf16-mixed")
    if precision in ("16-mixed", "tf32") and options.accelerator == "cpu":
        raise UsageError(f"precision {precision} on a CPU: it is for GPUs; take bf16-mixed")


def _check_ranges(options: Options) -> None:
    for name, least in AT_LEAST.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{name} {value}: must be at least {least}")
    shares = {name: getattr(options, name) for name in OPEN_SHARES}
    shares |= {f"prune_fractions {pattern}": share for pattern, share in (options.prune_fractions or {}).items()}
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} {value}: must be between 0 and 1, e.g. 0.2")
    if not 0 < options.filled("validation") < float("inf"):
        raise UsageError(f"validation {options.validation}: must be a count, or a share between 0 and 1, e.g. 0.1")
    for name in SHARES_BELOW_ONE:
        if not 0 <= options.filled(name) < 1:
            raise UsageError(f"{name} {getattr(options, name)}: must be at least 0 and below 1")
    for name in NOT_NEGATIVE:
        if not 0 <= options.filled(name) < float("inf"):
            raise UsageError(f"{name} {getattr(options, name)}: must be a number of at least 0")
    if options.learning_rate_factor is not None and not 0 <= options.learning_rate_factor <= 1:
        raise UsageError(f"learning_rate_factor {options.learning_rate_factor}: must be between 0 and 1, e.g. 0.1")


def _check_pruning(options: Options) -> None:
    if options.structure != "none" and options.method in MOVING:
        raise UsageError(
            f"structure {options.structure} with method {options.method}: a mask that moves moves weight by weight; leave one out"
        )
    if options.rounds and options.target_density and options.prune_fractions:
        raise UsageError(
            f"prune_fractions {options.prune_fractions} with rounds {options.rounds} and target_density "
            f"{options.target_density}: these say the shares; leave one out"
        )
    if options.regularisation is not None and not 0 <= options.regularisation < float("inf"):
        raise UsageError(f"regularisation {options.regularisation}: must be a number of at least 0")
    if options.retrain == "fine-tune" and options.learning_rate_schedule in ("cosine", "linear"):
        raise UsageError(
            f"retrain fine-tune with learning_rate_schedule {options.learning_rate_schedule}: its last rate is next to nothing; "
            "take constant or step, or --retrain learning-rate"
        )
    if options.regularisation is not None and options.method not in ("l1", "gates"):
        raise UsageError(
            f"regularisation {options.regularisation} with method {options.method}: only l1 and gates have it; leave it out"
        )
    if options.retrain != "weights" and options.method in AT_REWIND_STEP:
        raise UsageError(
            f"retrain {options.retrain} with method {options.method}: its masks are decided by weights of the rewind step, "
            "and no trained ones; take --retrain weights"
        )
    if options.scope == "global":
        for name in ("output_prune_fraction", "prune_fractions"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"{name} {getattr(options, name)} with scope global: all layers share one quota there; leave it out, or "
                    "take --scope layerwise"
                )

    if options.n_of_m is not None:
        for name in ("rounds", "target_density", "prune_fraction", "output_prune_fraction", "prune_fractions"):
            given = getattr(options, name)
            if given:
                raise UsageError(
                    f"{name} {given} with structure {options.structure}: it says what stays; leave {name} out"
                )
    if options.fit_step_ms is not None and not 0 < options.fit_step_ms < float("inf"):
        raise UsageError(f"fit_step_ms {options.fit_step_ms}: must be a number above 0")


def _check_start(options: Options) -> None:
    """A seed gives initial weights and no trained ones."""
    if not options.init_from_seed:
        return
    step = options.filled("rewind_step")
    if step == "auto" or parse_steps(step, 1, "rewind_step") > 0:
        raise UsageError(
            f"init_from_seed with rewind_step {step}: its tickets start from trained weights, which no seed gives; take "
            "--rewind-step 0it, or leave init_from_seed out"
        )
    if options.retrain != "weights":
        raise UsageError(
            f"init_from_seed with retrain {options.retrain}: its tickets start from trained weights, which no seed gives; take "
            "--retrain weights, or leave init_from_seed out"
        )


def _check_recipe(options: Options) -> None:
    if options.optimizer != "sgd" and (options.momentum or options.nesterov):
        name = "momentum" if options.momentum else "nesterov"
        raise UsageError(
            f"{name} {getattr(options, name)} with optimizer {options.optimizer}: only sgd has it; leave it out, or take "
            "--optimizer sgd"
        )
    if options.nesterov and not options.momentum:
        raise UsageError("nesterov true with momentum 0: it looks ahead by the momentum; give one, e.g. 0.9")
    steps = options.learning_rate_schedule == "step"
    if steps and not options.learning_rate_drops:
        raise UsageError(
            "learning_rate_schedule step without learning_rate_drops; give the steps, e.g. '[\"20000it\"]'"
        )
    for name in ("learning_rate_drops", "learning_rate_factor"):
        if not steps and getattr(options, name):
            raise UsageError(
                f"{name} {getattr(options, name)} with learning_rate_schedule {options.learning_rate_schedule}: only step has "
                "drops; leave it out, or take --learning-rate-schedule step"
            )
