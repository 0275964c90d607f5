"""The search as one call: find_ticket(model_fn, data, **options), as short as the command and with its options.

Model and data are Python objects here. What cannot be imported by name is known by its content instead: data by their
SHA-256, a model by its graph and initial weights. So the same call goes on with a run wherever its function was defined; the
command can go on with it only where both have names. Prints nothing unless `quiet=False`, and handles no signals.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.ticket import Ticket, load_ticket
from server_side import report
from server_side.data import ARRAYS, Dataset, dataset_of, import_object, load_data
from server_side.errors import UsageError
from server_side.find import carry_out, prepare
from server_side.models import Model, load_model
from server_side.options import Options
from server_side.progress import Progress
from server_side.seeds import derive

Data = str | tuple[Any, Any] | Mapping[str, Any]
OF_THE_COMMAND = ("json", "dry_run")


@dataclass(frozen=True)
class Found:
    """What a search found: `results` is what the command prints with --json; `directory` is the run directory."""

    ticket: Ticket
    results: dict[str, Any]
    directory: Path

    @property
    def matching(self) -> bool:
        """Whether the ticket is surely as accurate as the dense network; where none is, the one that came closest was taken."""
        return bool(self.results["verdict"]["matching"])

    @property
    def ticket_path(self) -> Path:
        """For python -m export."""
        return Path(self.results["ticket"])

    @property
    def report(self) -> Path:
        return Path(self.results["report"])


def find_ticket(
    model_fn: Callable[[], nn.Module] | str,
    data: Data,
    *,
    quiet: bool = True,
    output_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Found:
    """Finds a ticket of the network that `model_fn` makes, or of a preset, as python -m server_side.find does.

    `data`: (x, y), or a dict with the keys of an npz file (x, y, x_test, y_test, ...), or a source as of --data. `options` are
    the fields of Options. Goes on with the run in `output_dir`, also after an exception or Ctrl-C. Raises UsageError for what
    the command refuses, OSError where a disk does.
    """
    chosen = _options(options, quiet, output_dir)
    samples = _dataset(data, chosen.split_seed, quiet)
    model = None if isinstance(model_fn, str) else _model(model_fn, samples, chosen)
    named = Options(
        **{field.name: getattr(chosen, field.name) for field in fields(chosen)}
        | {"data": data if isinstance(data, str) else ARRAYS, "model": model_fn if model is None else model.name}
    )
    progress = Progress(quiet=quiet)
    search = prepare(named, progress, samples, model)
    progress.show_plan(search)
    if not (quiet or report.command_goes_on(search)):
        print("find: the same call goes on with this run; the command cannot, without names for both", file=sys.stderr)
    threads = torch.get_num_threads()
    torch.set_num_threads(search.options.threads)
    try:
        results = carry_out(search, progress)
    finally:
        torch.set_num_threads(threads)
    return Found(load_ticket(Path(results["ticket"])), results, search.directory.path)


def _options(given: Mapping[str, Any], quiet: bool, output_dir: str | os.PathLike[str] | None) -> Options:
    """Checked by type as the command line's are."""
    from jsonargparse import ArgumentError, ArgumentParser

    for name in ("data", "model", *OF_THE_COMMAND):
        if name in given:
            raise UsageError(f"{name} {given[name]!r}: no option of find_ticket; leave it out")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Options)
    where = None if output_dir is None else os.fspath(output_dir)
    try:
        values = parser.parse_object({**given, "quiet": quiet, "output_dir": where}).as_dict()
    except ArgumentError as error:
        raise UsageError(f"find_ticket: {' '.join(str(error).split())}") from error
    return Options(**values)


def _dataset(data: Data, split_seed: int, quiet: bool) -> Dataset:
    if isinstance(data, str):
        return load_data(data, split_seed, lambda line: None if quiet else print(f"find: {line}", file=sys.stderr))
    if isinstance(data, tuple) and len(data) == 2:
        return dataset_of({"x": data[0], "y": data[1]}, split_seed)
    if isinstance(data, Mapping):
        return dataset_of(data, split_seed)
    raise UsageError(f"data {type(data).__name__}: expected (x, y), a dict with x and y, or a source as of --data")


def _model(model_fn: Callable[[], nn.Module], data: Dataset, options: Options) -> Model:
    """Under a name that is the same whenever it is the same model."""
    importable = _importable(model_fn)
    label = importable or re.sub(r"\W+", "-", getattr(model_fn, "__name__", "model")).strip("-") or "model"
    model = load_model(label, data.input_shape, data.classes, given=model_fn)
    if importable is not None:
        return model
    digest = model.fingerprint(derive(options.seed, "init"))
    return Model(f"{label}-{digest[:12]}", model_fn, model.network)


def _importable(function: Callable[..., Any]) -> str | None:
    """`package.module:name`, by which the command would find it; None for what is made in a function or a script."""
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    if name.startswith("__main__:"):
        return None
    try:
        return name if import_object(name, "model") is function else None
    except UsageError:
        return None
