"""Questions that a finished search can be asked, a module an experiment; `python -m server_side.experiment` runs them.

A module has a docstring whose first line is the help, and
    Options    a frozen dataclass of what its results depend on, if on anything
    plan(lab) -> [(stage, trainings, steps in all)]
    run(lab) -> figures as JSON
    explain(result) -> lines of text
    figures(result) -> {title: SVG}, if it draws any
The last two see the result alone, so that a report can be written again without the experiment.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from server_side.errors import UsageError

FOLDER = "experiments"  # of a run directory
HERE = Path(__file__).parent


def names() -> dict[str, str]:
    """Every experiment as the command line spells it, with its line of help; no module is imported."""
    found = sorted(module.name for module in pkgutil.iter_modules([str(HERE)]))
    return {name.replace("_", "-"): _first_line(HERE / f"{name}.py") for name in found}


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def load(name: str) -> Any:
    """The module of an experiment; raises UsageError where there is none."""
    if name not in names():
        raise UsageError(f"experiment '{name}': expected one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


@dataclass(frozen=True)
class Finished:
    """A finished experiment as a report shows it."""

    label: str
    about: str
    lines: list[str]
    figures: dict[str, Markup]
    options: dict[str, Any]


def finished(run: Path) -> list[Finished]:
    """Those in a run directory, by label; what is not finished, or damaged, is not there."""
    return [shown for path in sorted((run / FOLDER).glob("*/results.json")) if (shown := _shown(path)) is not None]


def _shown(path: Path) -> Finished | None:
    try:
        there = json.loads(path.read_text())
        name, result, options = there["experiment"], there["result"], dict(there["options"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if name not in names():
        return None
    module = load(name)
    drawn = module.figures(result) if hasattr(module, "figures") else {}
    return Finished(path.parent.name, names()[name], module.explain(result), drawn, options)
