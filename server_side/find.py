"""The command: finds a winning ticket, judges it against dense and against its controls, and writes it with a report.

    python -m server_side.find                                                     # digits, about a minute
    python -m server_side.find --data idx:DIR --model lenet-300-100 --rounds 20    # the paper's protocol
    torchrun --nproc-per-node 4 -m server_side.find ...                            # the same by several workers

Exit codes: 0 a matching ticket was found; 1 failure; 2 bad usage or data; 3 finished, but no ticket matched (under torchrun
0: it takes all else for a failure); 130 interrupted (the same command goes on). Everything but the result goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_side.command import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NO_MATCH,
    exit_code,
    one_line_parser,
    run_as_command,
    spelt,
    stopping_at_signals,
)
from server_side.errors import UsageError
from server_side.options import Options
from server_side.steps import parse_steps

if TYPE_CHECKING:
    from server_side.data import Dataset
    from server_side.models import Model
    from server_side.progress import Progress
    from server_side.rounds import Round
    from server_side.run_directory import RunDirectory
    from server_side.search import Search
    from server_side.training import Recipe, Watch
    from server_side.workers import Worker


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    return exit_code("find", lambda: find(options))


def find(options: Options) -> int:
    """The whole search; prints its result and returns the exit code. Raises UsageError before any training is begun, or
    when a dense network or a ticket diverges."""
    import torch  # three seconds: not for --help

    from server_side import summary
    from server_side.progress import Progress
    from server_side.training import Interrupted
    from server_side.workers import Worker

    worker = Worker.of_environment(os.environ)
    speaks = worker.rank == 0
    options = replace(options, quiet=options.quiet or not speaks)
    progress = Progress(quiet=options.quiet)
    search = prepare(options, progress, worker=worker)
    torch.set_num_threads(search.options.threads)
    progress.show_plan(search)
    if options.dry_run:
        if options.json and speaks:
            print(json.dumps(summary.plan(search), allow_nan=False))
        return EXIT_DONE
    with stopping_at_signals("find", progress, search.directory.path):
        try:
            result = carry_out(search, progress)
        except Interrupted:
            if speaks:
                print(f"find: interrupted; the same command goes on from {search.directory.path}", file=sys.stderr)
            return EXIT_INTERRUPTED
    if speaks:
        print(json.dumps(result, allow_nan=False) if options.json else summary.as_text(result))
    found = result["verdict"]["matching"] and result.get("fits", {}).get("holds", True)
    return EXIT_DONE if found or worker.is_watched else EXIT_NO_MATCH


class Clock:
    """Seconds of this start, which each `lap` of one that `spends` adds to those of the run: a kill costs what has passed since
    the last one."""

    def __init__(self, directory: RunDirectory, spends: bool) -> None:
        self.directory, self.spends, self.seconds, self._at = directory, spends, 0.0, time.monotonic()

    def lap(self) -> None:
        now = time.monotonic()
        if self.spends:
            self.directory.spend(now - self._at)
        self.seconds, self._at = self.seconds + now - self._at, now


def carry_out(search: Search, progress: Progress) -> dict[str, Any]:
    """Trains, judges and writes; returns what --json prints. Raises Interrupted, and UsageError as `find` does. Of several
    workers the first keeps time and tracks, and one that ends first writes the result."""
    from server_side import stability, summary
    from server_side.stacked_program import same_bits_on
    from server_side.tracking import Tracking
    from server_side.workers import in_turn

    worker, directory = search.team.worker, search.directory
    with directory.locked(worker.launch):
        clock = Clock(directory, spends=worker.rank == 0)
        tracking = Tracking(search) if worker.rank == 0 else None

        def after_round(rounds: list[Round]) -> bool:
            clock.lap()
            if tracking is not None:
                tracking.after_round(rounds)
            with in_turn(directory.path):
                return summary.record(search, rounds)

        try:
            with (
                progress.shown(),
                same_bits_on(search.options.accelerator, worker.local_rank, search.options.precision),
            ):
                search, rewinds = stability.with_rewind_step(search)
                rounds = search.run(after_round)
                best = summary.chosen(search, rounds)
                instability = stability.of_tickets(search, best) if search.options.stability else None
        finally:
            clock.lap()
        with in_turn(directory.path):
            if directory.concluded.exists():
                result = dict(json.loads((directory.path / "results.json").read_text()))
            else:
                result = summary.conclude(search, rounds, clock.seconds, instability, rewinds)
                directory.concluded.touch()
        if tracking is not None:
            tracking.finish(result)
    return result


def prepare(
    options: Options,
    watch: Watch,
    data: Dataset | None = None,
    model: Model | None = None,
    worker: Worker | None = None,
) -> Search:
    """Loads and checks data and model, but for those that are given, decides every option and reads the run directory;
    nothing is trained or written. `worker`: who this process is, alone without it."""
    import torch

    from server_side import methods, tracking
    from server_side.data import load_data, split
    from server_side.models import load_model
    from server_side.option_rules import check_settled
    from server_side.presets import PRESETS
    from server_side.run_directory import RunDirectory, kept_options
    from server_side.search import Search
    from server_side.seeds import derive
    from server_side.summary import check_ticket_there
    from server_side.workers import Team, Worker

    worker = worker or Worker.alone()
    name = options.model or ("lenet-300-100-digits" if options.data == "digits" else None)
    if name is None:
        raise UsageError(f"model: name one for data '{options.data}': {', '.join(PRESETS)} or package.module:factory")
    defaults = PRESETS[name].defaults if name in PRESETS else {}
    options = replace(options, model=name).resolve(defaults)
    tracking.check(options.tracker)
    data = data or load_data(options.data, options.split_seed, lambda line: None if options.quiet else _tell(line))
    model = model or load_model(name, data.input_shape, data.classes)
    if options.init_from_seed:
        model = model.from_seed()
    parts = split(data, options.filled("validation"), options.split_seed)
    recipe, rewind_step = _recipe(options, len(parts.x_train), data.input_shape)
    slug = f"{name}-{data.name}".replace(":", "-").replace("/", "-")
    path = Path(options.output_dir or f"runs/{slug}")
    options = options.settled(kept_options(path), torch.cuda.is_available(), worker.local_size, worker.size)
    if options.accelerator == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "accelerator cuda: PyTorch finds no CUDA device here; take --accelerator cpu, with a directory of its own"
        )
    if options.accelerator == "cuda" and worker.local_size > torch.cuda.device_count():
        raise UsageError(
            f"{worker.local_size} workers on a machine with {torch.cuda.device_count()} CUDA devices; start one a device"
        )
    check_settled(options, worker.size)
    if options.engine == "fabric" and importlib.util.find_spec("lightning_fabric") is None:
        raise UsageError("engine fabric: lightning-fabric is missing; pip install '.[large]'")
    of_model = model.fingerprint(derive(options.seed, "init"))
    directory = RunDirectory(path, options.identity(), data.fingerprint, of_model, versions())
    team = Team(path, worker, watch)
    search = Search(options, data, parts, model, recipe, rewind_step, directory, team)
    if (problem := search.untrainable()) is not None:
        raise UsageError(f"model '{name}': {problem}")
    if len(search.ladder.rungs) < 2:
        raise UsageError(
            f"prune_fraction {options.prune_fraction}: a round would remove no weight of a network this small"
        )
    if (layer := search.ladder.emptied_layer()) is not None:
        raise UsageError(f"layer '{layer}' would lose its last live weight in round 1; take a smaller prune_fraction")
    if options.method == "synflow":  # what it cannot score is refused before anything is trained
        batches = methods.score_batches(parts, options.seed, recipe.batch)
        later = rewind_step > 0 or options.rewind_step == "auto"
        methods.check_flow(model.factory(), search.keeper, batches, search.theta(options.seed), trained=later)
    if options.accelerator == "cuda" and search.stack_memory is not None:
        search.stack_memory.check(torch.cuda.mem_get_info(worker.local_rank)[0])
    check_ticket_there(path / "ticket")
    return search


def _tell(line: str) -> None:
    print(f"find: {line}", file=sys.stderr)


def _recipe(options: Options, samples: int, input_shape: tuple[int, ...]) -> tuple[Recipe, int]:
    """The recipe and the rewind step, with epochs turned into steps."""
    from server_side.augment import Augmentation
    from server_side.training import Recipe

    per_epoch = samples // options.filled("batch")
    if per_epoch < 1:
        raise UsageError(f"batch {options.batch}: more than the {samples} training samples")
    steps = parse_steps(options.filled("steps"), per_epoch, "steps")
    every = parse_steps(options.filled("evaluate_every"), per_epoch, "evaluate_every")
    rewinds = options.filled("rewind_step")
    rewind_step = 0 if rewinds == "auto" else parse_steps(rewinds, per_epoch, "rewind_step")
    if not (0 < every <= steps and rewind_step < steps):
        raise UsageError(
            f"steps {steps}: must be at least evaluate_every ({every}) and more than rewind_step ({rewind_step})"
        )
    augmentation = Augmentation.parse(options.augment) if options.augment else None
    if augmentation is not None:
        augmentation.check(input_shape)
    warmup = parse_steps(options.filled("warmup"), per_epoch, "warmup")
    drops = [parse_steps(text, per_epoch, "learning_rate_drops") for text in options.learning_rate_drops or ()]
    if warmup >= steps or drops != sorted(set(drops)) or not all(warmup <= drop < steps for drop in drops):
        raise UsageError(
            f"learning_rate_drops {options.learning_rate_drops}, warmup {options.warmup}: must rise, not lie in the warm-up and lie "
            f"before the end, step {steps}"
        )
    recipe = Recipe(
        optimizer=options.filled("optimizer"),
        learning_rate=options.filled("learning_rate"),
        momentum=options.filled("momentum"),
        weight_decay=options.filled("weight_decay"),
        batch=options.filled("batch"),
        steps=steps,
        evaluate_every=every,
        nesterov=options.filled("nesterov"),
        label_smoothing=options.filled("label_smoothing"),
        schedule=options.filled("learning_rate_schedule"),
        drops=tuple(drops),
        factor=options.learning_rate_factor or 0.0,
        warmup=warmup,
        augmentation=augmentation,
    )
    return recipe, rewind_step


def versions() -> dict[str, str]:
    """Of the packages whose arithmetic and random numbers a result is made of."""
    return {name: metadata.version(name) for name in ("pocket-ticket", "torch", "numpy")}


def _parse(arguments: list[str]) -> Options:
    parser = one_line_parser(
        "find",
        "python -m server_side.find",
        description=(__doc__ or "").splitlines()[0],
        epilog="Exit codes: 0 a matching ticket; 2 bad usage or data; 3 no ticket matched; 130 interrupted, run again to go on.",
    )
    parser.usage = "%(prog)s [--data SOURCE] [--model NAME] [--output-dir DIR] [options]"
    parser.add_argument(
        "--config", action="config", help="YAML or JSON file of options, e.g. a run directory's config.json"
    )
    parser.add_class_arguments(Options)
    values = parser.parse_args(spelt(arguments, Options)).as_dict()
    return Options(**{field.name: values[field.name] for field in fields(Options)})


if __name__ == "__main__":
    run_as_command(main)
