"""`python -m export report TICKET_DIR`: will it fit? What each kind of artifact of a ticket takes, and whether it trains as it should.

Writes the artifacts into a scratch folder, has the gate judge them, and measures memory and time of a step, each in a process of its
own (measure.py); of the native one also the instructions of a step on targets that are emulated (instructions.py). A format that refuses the ticket is shown with its reason. As text, one JSON object, or a page.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.atomic import write_file
from export.compact import compact
from export.errors import UsageError
from export.formats import FORMATS, Wanted, judged, place, size, written
from export.instructions import TARGETS, instructions
from export.table import aligned
from export.ticket import Ticket, TicketError, load_ticket
from export.to_native import to_native_bytes

NOTE = (
    "memory: of a training step, exact for native artifacts, else by how much a process grew here; time: of a step of a batch on one "
    "thread of this machine, the median; gradient error: against PyTorch in float64, of the parameter that is farthest off; instructions: "
    "of the native artifact, by the recipe's optimizer, emulated by QEMU, which knows no cycles"
)
NO_TARGETS = "none"


def report(arguments: Sequence[str]) -> str:
    """Runs the command; what to print. Raises UsageError."""
    parser = argparse.ArgumentParser(
        prog="python -m export report",
        description="Tell what each artifact of a ticket takes.",
        epilog=NOTE,
        allow_abbrev=False,
    )
    parser.add_argument("ticket", metavar="TICKET_DIR", type=Path, help="the directory that server_side.find wrote")
    parser.add_argument("--formats", default=",".join(FORMATS), help="comma-separated (default: %(default)s)")
    parser.add_argument(
        "--targets",
        default=",".join(TARGETS),
        help=f"comma-separated, whose instructions are counted where compiler and emulator are installed; the first time takes a minute each, '{NO_TARGETS}' none (default: %(default)s)",
    )
    parser.add_argument("--page", metavar="FILE", type=Path, help="write it as a page to look at, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    options = parser.parse_args(arguments)
    formats = options.formats.split(",")
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise UsageError(f"format '{unknown[0]}' is not known; known are {', '.join(FORMATS)}")
    targets = [] if options.targets == NO_TARGETS else options.targets.split(",")
    if unknown := [name for name in targets if name not in TARGETS]:
        raise UsageError(f"target '{unknown[0]}' is not known; known are {', '.join(TARGETS)}, or {NO_TARGETS}")
    ticket = load_ticket(options.ticket)
    told = {
        "ticket_hash": ticket.hash,
        "density": ticket.density,
        "operators": sorted({node.op for node in ticket.network.nodes}),
        "dense_bytes": 4 * sum(parameter.size for parameter in ticket.network.parameters),
        "formats": [_row(kind, ticket, quiet=options.quiet) for kind in formats],
        "targets": _targets(targets, ticket, quiet=options.quiet),
    }
    if options.page is not None:
        write_file(options.page, page(told).encode())
    return json.dumps(told) if options.json else text(told)


def _row(kind: str, ticket: Ticket, *, quiet: bool) -> dict[str, Any]:
    """Everything of one format; `refused` and nothing else where it cannot hold the ticket or its package is missing."""
    if not quiet:
        print(f"python -m export report: {kind}", file=sys.stderr)
    source, wanted, form = compact(ticket), Wanted(), FORMATS[kind]
    try:
        content = written(kind, source, wanted)
        passed = judged(kind, source, wanted, content)
    except TicketError as error:
        return {"format": kind, "refused": str(error)}
    except ModuleNotFoundError as error:
        return {"format": kind, "refused": f"package '{error.name}' is not installed"}
    found: dict[str, Any] = {"format": kind, "gate": None if passed is None else passed.to_json()}
    found |= {"bytes": size(content), "parts": {}}
    if passed is None:
        return found
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"ticket{form.suffix}"
        place(content, path)
        return found | _measured(path)


def _targets(names: Sequence[str], ticket: Ticket, *, quiet: bool) -> list[dict[str, Any]]:
    """What a step of the native artifact takes on each; empty where that refuses the ticket, as its row tells."""
    rows, source = [], compact(ticket)
    try:
        artifact = to_native_bytes(source)
    except TicketError:
        return []
    for name in names:
        if not quiet:
            print(f"python -m export report: {name}", file=sys.stderr)
        rows.append(instructions(artifact, source.ticket, name))
    return rows


def _measured(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "export.measure", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise UsageError(f"'{path.name}' could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def table(told: dict[str, Any]) -> list[list[str]]:
    """Rows of cells, the first one of titles."""
    rows = [["format", "bytes", "of dense", "memory", "ms a step", "gradient error", ""]]
    for row in told["formats"]:
        if "refused" in row:
            rows.append([row["format"], "", "", "", "", "", f"refused: {row['refused']}"])
            continue
        cells = [row["format"], f"{row['bytes']:,}", f"{row['bytes'] / told['dense_bytes']:.1%}"]
        if row["gate"] is None:
            cells += ["", "", "", "predicts only"]
        else:
            about = "" if row["memory_is_exact"] else "about "
            error = f"{row['gate']['largest_gradient_error']:.1e}"
            cells += [f"{about}{row['memory_bytes']:,}", f"{row['step_ms']:.3g}", error, f"batch {row['batch']}"]
        rows.append(cells)
    return rows


def targets_table(told: dict[str, Any]) -> list[list[str]]:
    """The same of the targets; empty without one."""
    rows = [["native, a sample a step", "instructions", "memory", ""]] if told["targets"] else []
    for row in told["targets"]:
        if "not_measured" in row:
            rows.append([row["target"], "", "", f"not measured ({row['not_measured']})"])
        else:
            rows.append([row["target"], f"{row['instructions_a_step']:,}", f"{row['arena_bytes']:,}", ""])
    return rows


def text(told: dict[str, Any]) -> str:
    lines = aligned(table(told))
    if told["targets"]:
        lines += ["", *aligned(targets_table(told)), ""]
    for row in told["formats"]:
        if row.get("parts"):
            parts = ", ".join(f"{name} {size:,}" for name, size in row["parts"].items())
            lines.append(f"{row['format']}: {parts}")
    lines.append(
        f"density {told['density']:.2%}, ticket {told['ticket_hash'][:12]}, operators {' '.join(told['operators'])}"
    )
    return "\n".join([*lines, NOTE])


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#1b1f24}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.4em .8em;text-align:right;border-bottom:1px solid #d0d7de}"
    "th:first-child,td:first-child,td:last-child{text-align:left}tr.row td{border:0;padding-bottom:0}.bar{background:#0969da;height:.5em;border-radius:2px}"
    "small{color:#57606a}@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}small{color:#8b949e}}"
)


def page(told: dict[str, Any]) -> str:
    """One file that needs nothing else."""
    titles, *rows = table(told)
    sizes = {row["format"]: row["bytes"] for row in told["formats"] if "bytes" in row}
    largest = max([told["dense_bytes"], *sizes.values()])
    body = []
    for row in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        share = 100 * sizes.get(row[0], 0) / largest
        body.append(
            f"<tr class=row>{cells}</tr><tr><td colspan=7><div class=bar style='width:{share:.1f}%'></div></td></tr>"
        )
    parts = "".join(
        f"<li>{html.escape(row['format'])}: "
        + ", ".join(f"{html.escape(n)} {size:,}" for n, size in row["parts"].items())
        + "</li>"
        for row in told["formats"]
        if row.get("parts")
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    targets = "".join(
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for row, tag in zip(targets_table(told), ["th"] + ["td"] * len(told["targets"]), strict=False)
    )
    emulated = f"<h2>Instructions of a step</h2><table>{targets}</table>" if targets else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Will it fit?</title><style>{STYLE}</style><h1>Will it fit?</h1>"
        f"<p>Ticket {told['ticket_hash'][:12]}, {told['density']:.2%} of the weights; the dense values alone take {told['dense_bytes']:,} bytes. "
        f"Operators: {' '.join(told['operators'])}.</p><table><tr>{head}</tr>{''.join(body)}</table>{emulated}"
        f"<h2>Bytes by part</h2><ul>{parts}</ul><p><small>{html.escape(NOTE)}</small></p></html>\n"
    )
