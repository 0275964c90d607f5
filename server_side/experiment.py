"""The command: asks a finished search one more question, and adds the answer to its report.

    python -m server_side.experiment NAME RUN_DIR [--label LABEL] [--json] [--quiet] [--dry-run] [options of the experiment]
    python -m server_side.experiment --help            # the experiments
    python -m server_side.experiment NAME --help       # its options

Exit codes: 0 done; 2 bad usage, or a search that is not finished; 130 interrupted (the same command goes on).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from server_side import experiments
from server_side.command import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    exit_code,
    one_line_parser,
    run_as_command,
    spelt,
    stopping_at_signals,
)

PROG = "python -m server_side.experiment"


@dataclass(frozen=True)
class Command:
    """What every experiment can be told."""

    run_dir: str
    """run directory of a finished search"""
    label: str | None = None
    """folder of the results, and their heading in the report (default: the experiment's name); other options need another"""
    round: int | None = None
    """round whose tickets it is about (default: that of the search's ticket)"""
    quiet: bool = False
    """no progress on stderr"""
    json: bool = False
    """one JSON object on stdout instead of the text"""
    dry_run: bool = False
    """check everything, print the plan and stop"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(_overview(), file=sys.stdout if given else sys.stderr)
        return EXIT_DONE if given else EXIT_USAGE
    return exit_code("experiment", lambda: _run(given[0], given[1:]))


def _overview() -> str:
    known = experiments.names()
    width = max(map(len, known), default=0)
    return "\n".join(
        [
            f"usage: {PROG} NAME RUN_DIR [options], {PROG} NAME --help",
            "",
            *(f"  {name:<{width}}  {about}" for name, about in known.items()),
            "",
            "RUN_DIR is the directory of a finished search. Exit codes: 0 done; 2 bad usage; 130 interrupted, run again to go on.",
        ]
    )


def _run(name: str, arguments: list[str]) -> int:
    module = experiments.load(name)
    command, options = _parse(name, module, arguments)
    from server_side.lab import open_lab  # torch takes three seconds: not for --help
    from server_side.progress import Progress
    from server_side.stacked_program import same_bits_on
    from server_side.training import Interrupted

    progress = Progress(command.quiet, "experiment")
    lab = open_lab(Path(command.run_dir), command.label or name, options, progress, command.round)
    lab.check(name)
    searched = lab.search.options
    stages = module.plan(lab)
    progress.show_stages(stages, lab.path)
    if command.dry_run:
        if command.json:
            print(json.dumps(_plan(stages, lab.path)))
        return EXIT_DONE
    with (
        lab.search.directory.locked(lab.search.team.worker.launch),
        stopping_at_signals("experiment", progress, lab.path),
    ):
        lab.begin(name)
        try:
            with progress.shown(), same_bits_on(searched.accelerator, precision=searched.precision):
                result = module.run(lab)
        except Interrupted:
            print(f"experiment: interrupted; the same command goes on from {lab.path}", file=sys.stderr)
            return EXIT_INTERRUPTED
        told = lab.conclude(name, stages, result)
    print(json.dumps(told) if command.json else "\n".join([*module.explain(result), "", f"report  {told['report']}"]))
    return EXIT_DONE


def _parse(name: str, module: Any, arguments: list[str]) -> tuple[Command, Any]:
    """The command's own options and those of the experiment (None where it has none)."""
    kinds = [Command, *([module.Options] if hasattr(module, "Options") else [])]
    parser = one_line_parser("experiment", f"{PROG} {name}", description=(module.__doc__ or "").splitlines()[0])
    for kind in kinds:
        parser.add_class_arguments(kind, as_positional=kind is Command)
    values = parser.parse_args(spelt(arguments, *kinds)).as_dict()
    made = [kind(**{field.name: values[field.name] for field in fields(kind)}) for kind in kinds]
    return made[0], made[1] if len(made) > 1 else None


def _plan(stages: list[tuple[str, int, int]], path: Path) -> dict[str, Any]:
    """What --dry-run --json prints."""
    return {
        "stages": [{"stage": stage, "trainings": trainings, "steps": steps} for stage, trainings, steps in stages],
        "trainings": sum(trainings for _, trainings, _ in stages),
        "steps": sum(steps for _, _, steps in stages),
        "directory": str(path),
    }


if __name__ == "__main__":
    run_as_command(main)
