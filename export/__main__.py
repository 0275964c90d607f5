"""`python -m export TICKET_DIR`: writes a ticket as the files that devices run, each whole or not at all. `report`, `delta`,
`keygen` and `sign` in the place of TICKET_DIR are tools beside it (report.py, delta.py, sign.py); `./sign` is a ticket of that name.

Machine output (`--json`) and the table go to stdout, errors to stderr as one line. Exit codes: 0 written; 2 bad input,
a missing optional package, or a disk that refuses; 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.errors import UsageError
from export.formats import FORMATS, Content, Source, Wanted, judged, place, size, written
from export.table import aligned

if TYPE_CHECKING:
    from export.compact import Compaction
    from export.ticket import Ticket

PROGRAM = "python -m export"
EXTRAS = {  # by what is missing
    "numpy": "export",
    "safetensors": "export",
    "onnx": "onnx",
    "onnxruntime": "ort",
    "torch": "server",
    "executorch": "executorch",
    "cryptography": "sign",
}
TOOLS = ("delta", "keygen", "report", "sign")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = None if given[:1] and given[0] in TOOLS else _parser().parse_args(given)
    try:
        if options is None:
            print(_tool(given[0], given[1:]), flush=True)
        else:
            _run(options)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; every file there is whole", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _fail(_missing(error))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails once more when it exits
        return _fail(f"cannot print: {error.strerror or error}; the files are written")
    except ValueError as error:
        return _fail(str(error))
    return 0


def _tool(name: str, arguments: Sequence[str]) -> str:
    """What a tool tells. Raises UsageError, for a disk that refuses too."""
    try:
        if name == "report":
            from export.report import report

            return report(arguments)
        if name == "delta":
            from export.delta import delta

            return delta(arguments)
        from export.sign import keygen, sign

        return {"keygen": keygen, "sign": sign}[name](arguments)
    except OSError as error:
        raise UsageError(f"'{error.filename}': {error.strerror or error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Write a ticket as the files that devices run.",
        epilog=f"tools: {PROGRAM} report TICKET_DIR tells what each format takes; {PROGRAM} delta OLD.tkt NEW.tkt writes an update for devices; {PROGRAM} keygen FOLDER makes a pair of keys; {PROGRAM} sign ARTIFACT --key FILE signs an artifact",
        allow_abbrev=False,
    )
    parser.add_argument("ticket", metavar="TICKET_DIR", type=Path, help="the directory that server_side.find wrote")
    parser.add_argument(
        "--formats", default="native,onnx", help=f"comma-separated, of {', '.join(FORMATS)} (default: %(default)s)"
    )
    parser.add_argument("--output-dir", type=Path, help="where the files go (default: beside TICKET_DIR)")
    parser.add_argument(
        "--values",
        choices=("init", "trained"),
        default="init",
        help="which values formats that hold one set get; native holds both, and packed the initial ones always (default: %(default)s)",
    )
    parser.add_argument(
        "--packed-values",
        choices=("float32", "float16", "seed"),
        help="how packed holds values: float16 rounds to nearest; seed holds none, for tickets found with --init-from-seed (default: float32)",
    )
    parser.add_argument(
        "--gate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train every artifact and compare gradients and losses with PyTorch before anything is written (default: --gate)",
    )
    parser.add_argument(
        "--compact",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out units and channels that cannot influence the outputs, which changes results by rounding at most; "
        "--no-compact writes the ticket as it is (default: --compact)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors (and the object of --json)")
    return parser


def _run(options: argparse.Namespace) -> None:
    from export.compact import compact
    from export.ticket import load_ticket

    formats = _formats(options.formats)
    if options.packed_values and "packed" not in formats:
        raise UsageError("--packed-values is for the format packed; add it to --formats, or leave the option out")
    wanted = Wanted(options.values, options.packed_values or "float32")
    ticket = load_ticket(options.ticket)
    if options.values == "trained" and ticket.trained is None:
        raise UsageError(f"'{options.ticket}' holds no trained values; leave out --values trained")
    folder = options.output_dir if options.output_dir is not None else options.ticket.resolve().parent
    name = options.ticket.resolve().name
    compaction = compact(ticket) if options.compact else None
    source = compaction or ticket
    contents = {kind: written(kind, source, wanted) for kind in formats}  # all, before any is written
    gates = _judged(contents, source, wanted, options.quiet) if options.gate else {}
    paths = {kind: folder / f"{name}{FORMATS[kind].suffix}" for kind in formats}
    for kind, content in contents.items():
        try:
            _write(paths[kind], content)
            told = paths[kind].with_name(f"{paths[kind].name}.gate.json")
            if kind in gates:
                gate = {"artifact_sha256": _sha256(content), **gates[kind]}
                _write(told, f"{json.dumps(gate, indent=1)}\n".encode())
            else:  # what is there is of another artifact
                told.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write '{paths[kind]}': {reason}; free the disk or give --output-dir") from error
    report = _report(ticket, compaction, paths, contents, gates)
    if options.json:
        print(json.dumps(report), flush=True)
    elif not options.quiet:
        print(_table(report), flush=True)


def _judged(contents: Mapping[str, Content], source: Source, wanted: Wanted, quiet: bool) -> dict[str, dict[str, Any]]:
    """What the gate finds of each artifact that can be trained. Raises UsageError where one does not train as it should."""
    from export.ticket import TicketError

    gates = {}
    for kind, content in contents.items():
        if FORMATS[kind].places is None:
            continue
        if not quiet:
            print(f"{PROGRAM}: training {kind} beside PyTorch", file=sys.stderr)
        try:
            passed = judged(kind, source, wanted, content)
        except TicketError as error:
            raise UsageError(
                f"{kind}: {error}; nothing was written. Please report it; --no-gate writes it as it is"
            ) from error
        if passed is not None:
            gates[kind] = passed.to_json()
    return gates


def _write(path: Path, content: Content) -> None:
    """A folder is left as it is if it is the same, and never overwritten, which could not be done at once."""
    if isinstance(content, bytes) or not path.exists():
        place(content, path)
    elif not path.is_dir() or {file.name: file.read_bytes() for file in path.iterdir()} != content:
        raise UsageError(f"'{path}' exists and holds something else; remove it or give --output-dir")


def _sha256(content: Content) -> str:
    """Of a file; of a folder that of what `sha256sum *` prints there."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return _sha256("".join(f"{_sha256(content[name])}  {name}\n" for name in sorted(content)).encode())


def _formats(text: str) -> list[str]:
    formats = text.split(",")
    for kind in formats:
        if kind not in FORMATS:
            raise UsageError(f"format '{kind}' is not known; known are {', '.join(FORMATS)}")
    return formats


def _report(
    ticket: Ticket,
    compaction: Compaction | None,
    paths: Mapping[str, Path],
    contents: Mapping[str, Content],
    gates: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "artifacts": [
            {
                "format": kind,
                "path": str(paths[kind]),
                "bytes": size(content),
                "sha256": _sha256(content),
                "gate": gates.get(kind),
            }
            for kind, content in contents.items()
        ],
        "dense_bytes": 4 * sum(parameter.size for parameter in ticket.network.parameters),
        "density": ticket.density,
        "ticket_hash": ticket.hash,
        "vanished": [vars(vanished) for vanished in compaction.vanished] if compaction else [],
    }


def _table(report: Mapping[str, Any]) -> str:
    dense = report["dense_bytes"]
    rows = [("format", "bytes", "of dense", "gradient error", "path")]
    for a in report["artifacts"]:
        error = f"{a['gate']['largest_gradient_error']:.1e}" if a["gate"] else "not checked"
        rows.append((a["format"], f"{a['bytes']:,}", f"{a['bytes'] / dense:.1%}", error, a["path"]))
    rows.append(("(dense f32)", f"{dense:,}", "100.0%", "", ""))
    lines = aligned(rows)
    lines.append(f"density {report['density']:.2%}, ticket {report['ticket_hash'][:12]}")
    lines += [f"{v['count']} of {v['of']} {v['unit']} of {v['layer']} vanish" for v in report["vanished"]]
    native = [a["path"] for a in report["artifacts"] if FORMATS[a["format"]].is_native]
    lines += [f"next: python -m device_runtime inspect {path}" for path in native]
    return "\n".join(lines)


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    return f"package '{package}' is not installed; run: pip install 'pocket-ticket[{EXTRAS[package]}]'"


def _fail(text: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(text.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
