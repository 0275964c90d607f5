"""The command: finds a winning ticket, judges it against dense and against its controls, and writes it with a report.

    python -m server_side.find                                                     # digits, about a minute
    python -m server_side.find --data idx:DIR --model lenet-300-100 --rounds 20    # the paper's protocol
    torchrun --nproc-per-node 4 -m server_side.find ...                            # the same by several workers

Exit codes: 0 a matching ticket was found; 1 failure; 2 bad usage or data; 3 finished, but no ticket matched (under torchrun
0: it takes all else for a failure); 130 interrupted (the same command goes on). Everything but the result goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from export.ticket import TicketError
from server_side.errors import UsageError
from server_side.options import Options
from server_side.steps import parse_steps

if TYPE_CHECKING:
    from server_side.progress import Progress
    from server_side.search import Round, Search
    from server_side.training import Recipe, Watch
    from server_side.workers import Worker

EXIT_FOUND, EXIT_USAGE, EXIT_NO_MATCH, EXIT_INTERRUPTED = 0, 2, 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return find(options)
    except (UsageError, TicketError) as error:  # TicketError: a recipe or weights that no artifact can hold
        print(f"find: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(
            f"find: {error.filename or 'disk'}: {error.strerror or error}; what was finished is kept", file=sys.stderr
        )
        return EXIT_USAGE


def find(options: Options) -> int:
    """The whole search; prints its result and returns the exit code. Raises UsageError before any training is begun, or
    when a dense network or a ticket diverges."""
    import torch  # three seconds: not for --help

    from server_side import summary
    from server_side.progress import Progress
    from server_side.training import Interrupted
    from server_side.workers import Worker, in_turn

    worker = Worker.of_environment(os.environ)
    speaks = worker.rank == 0
    options = replace(options, quiet=options.quiet or not speaks)
    progress = Progress(quiet=options.quiet)
    search = prepare(options, progress, worker)
    torch.set_num_threads(search.options.threads)
    if search.options.accelerator == "cuda":
        torch.cuda.set_device(worker.local_rank)
    progress.show_plan(search)
    if options.dry_run:
        if options.json and speaks:
            print(json.dumps(summary.plan(search), allow_nan=False))
        return EXIT_FOUND
    directory = search.directory

    def record(rounds: list[Round]) -> None:
        with in_turn(directory.path):
            summary.record(search, rounds)

    started = time.monotonic()
    with directory.locked(worker.launch), _stopping_at_signals(progress, directory.path):
        try:
            with progress.shown():
                rounds = search.run(record)
        except Interrupted:
            if speaks:
                print(f"find: interrupted; the same command goes on from {directory.path}", file=sys.stderr)
            return EXIT_INTERRUPTED
        result = _concluded(search, rounds, seconds=time.monotonic() - started)
    if speaks:
        print(json.dumps(result, allow_nan=False) if options.json else summary.as_text(result))
    return EXIT_FOUND if result["verdict"]["matching"] or worker.is_watched else EXIT_NO_MATCH


def _concluded(search: Search, rounds: list[Round], seconds: float) -> dict[str, Any]:
    """The result: the first worker writes it, the others read it."""
    from server_side import summary
    from server_side.workers import in_turn

    directory = search.directory
    with in_turn(directory.path):
        if directory.concluded.exists():
            return dict(json.loads((directory.path / "results.json").read_text()))
        result = summary.conclude(search, rounds, seconds)
        directory.concluded.touch()
        return result


def prepare(options: Options, watch: Watch, worker: Worker | None = None) -> Search:
    """Loads and checks data and model, decides every option and reads the run directory; nothing is trained or written.
    `worker`: who this process is, alone without it."""
    import torch

    from server_side.data import load_data, split
    from server_side.models import load_model
    from server_side.option_rules import check_settled
    from server_side.presets import PRESETS
    from server_side.run_directory import RunDirectory, kept_options
    from server_side.search import Search
    from server_side.summary import check_ticket_there
    from server_side.workers import Team, Worker

    worker = worker or Worker.alone()
    name = options.model or ("lenet-300-100-digits" if options.data == "digits" else None)
    if name is None:
        raise UsageError(f"model: name one for data '{options.data}': {', '.join(PRESETS)} or package.module:factory")
    defaults = PRESETS[name].defaults if name in PRESETS else {}
    options = replace(options, model=name).resolve(defaults)
    data = load_data(options.data, options.split_seed, lambda line: None if options.quiet else _tell(line))
    model = load_model(name, data.input_shape, data.classes)
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
    directory = RunDirectory(path, options.identity(), data.fingerprint, versions())
    team = Team(path, worker, watch)
    search = Search(options, data, parts, model, recipe, rewind_step, directory, watch, team)
    if (problem := search.untrainable()) is not None:
        raise UsageError(f"model '{name}': {problem}")
    if len(search.ladder.rungs) < 2:
        raise UsageError(
            f"prune_fraction {options.prune_fraction}: a round would remove no weight of a network this small"
        )
    if (layer := search.ladder.emptied_layer()) is not None:
        raise UsageError(f"layer '{layer}' would lose its last live weight in round 1; take a smaller prune_fraction")
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
    rewind_step = parse_steps(options.filled("rewind_step"), per_epoch, "rewind_step")
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


@contextlib.contextmanager
def _stopping_at_signals(progress: Progress, path: Path) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops with all that is under way saved; the second one at once, without waiting for any
    thread: what was finished and the last checkpoints are whole, being written atomically."""

    def stop(number: int, frame: object) -> None:
        if progress.stop_requested():
            os.write(2, f"\nfind: stopped at once; the same command goes on from {path}\n".encode())
            os._exit(EXIT_INTERRUPTED)
        progress.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parse(arguments: list[str]) -> Options:
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)

    class OneLineParser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            """Without the usage of forty options, in which the message is lost."""
            told = " ".join(line.strip() for line in message.splitlines() if line.strip())
            print(f"find: {told}; see python -m server_side.find --help", file=sys.stderr)
            sys.exit(EXIT_USAGE)

    parser = OneLineParser(
        prog="python -m server_side.find",
        description=(__doc__ or "").splitlines()[0],
        epilog="Exit codes: 0 a matching ticket; 2 bad usage or data; 3 no ticket matched; 130 interrupted, run again to go on.",
    )
    parser.add_argument(
        "--config", action="config", help="YAML or JSON file of options, e.g. a run directory's config.json"
    )
    parser.add_class_arguments(Options)
    named = [a if not a.startswith("--") else _spelt(a) for a in arguments]
    values = parser.parse_args(named).as_dict()
    return Options(**{field.name: values[field.name] for field in fields(Options)})


def _spelt(argument: str) -> str:
    """`--prune-fraction=0.2` is `--prune_fraction=0.2`, and `--json` is `--json=true`."""
    name, equals, value = argument.partition("=")
    name = name[2:].replace("-", "_")
    switches = [field.name for field in fields(Options) if str(field.type).startswith("bool")]
    return f"--{name}=true" if name in switches and not equals else f"--{name}{equals}{value}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
