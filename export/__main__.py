"""`python -m export TICKET_DIR`: writes a ticket as the files that devices run, each whole or not at all.

Machine output (`--json`) and the table go to stdout, errors to stderr as one line. Exit codes: 0 written; 2 bad input,
a missing optional package, or a disk that refuses; 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from export.compact import Compaction
    from export.ticket import Ticket

Values = Literal["init", "trained"]
Packed = Literal["float32", "float16"]

PROGRAM = "python -m export"


@dataclass(frozen=True)
class Format:
    """A kind of artifact: its file ending and how a ticket becomes its bytes; imports what it needs when called."""

    suffix: str
    write: Callable[[Ticket | Compaction, Values, Packed], bytes]


def _native(source: Ticket | Compaction, values: Values, _: Packed) -> bytes:
    from export.to_native import to_native_bytes

    return to_native_bytes(source)  # holds both; the trainer chooses by `start`


def _packed(source: Ticket | Compaction, values: Values, packed: Packed) -> bytes:
    from export.to_native import to_packed_bytes

    return to_packed_bytes(source, packed, trained=values == "trained")


def _onnx(source: Ticket | Compaction, values: Values, _: Packed) -> bytes:
    from export.to_onnx import to_onnx_bytes

    return to_onnx_bytes(source, values)


FORMATS: Mapping[str, Format] = {
    "native": Format(".tkt", _native),
    "packed": Format(".packed.tkt", _packed),
    "onnx": Format(".onnx", _onnx),
}
EXTRAS = {"safetensors": "export", "onnx": "onnx", "numpy": "export"}


class UsageError(ValueError):
    """A bad option or a missing package, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Write a ticket as the files that devices run.", allow_abbrev=False
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
        help="which values formats that hold one set get; native holds both, and packed the initial ones always "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--packed-values",
        choices=("float32", "float16"),
        help="how packed holds values, float16 rounded to nearest (default: float32)",
    )
    parser.add_argument(
        "--compact",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out units and channels that cannot influence the outputs, which changes no bit on the device; "
        "--no-compact writes the ticket as it is (default: --compact)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors (and the object of --json)")
    return parser


def _run(options: argparse.Namespace) -> None:
    from export.atomic import write_file
    from export.compact import compact
    from export.ticket import load_ticket

    formats = _formats(options.formats)
    if options.packed_values and "packed" not in formats:
        raise UsageError("--packed-values is for the format packed; add it to --formats, or leave the option out")
    ticket = load_ticket(options.ticket)
    if options.values == "trained" and ticket.trained is None:
        raise UsageError(f"'{options.ticket}' holds no trained values; leave out --values trained")
    folder = options.output_dir if options.output_dir is not None else options.ticket.resolve().parent
    name = options.ticket.resolve().name
    compaction = compact(ticket) if options.compact else None
    source = compaction or ticket
    packed: Packed = "float16" if options.packed_values == "float16" else "float32"
    contents = {
        kind: FORMATS[kind].write(source, options.values, packed) for kind in formats
    }  # all, before any is written
    paths = {kind: folder / f"{name}{FORMATS[kind].suffix}" for kind in formats}
    for kind, content in contents.items():
        try:
            write_file(paths[kind], content)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write '{paths[kind]}': {reason}; free the disk or give --output-dir") from error
    report = _report(ticket, compaction, paths, contents)
    if options.json:
        print(json.dumps(report), flush=True)
    elif not options.quiet:
        print(_table(report), flush=True)


def _formats(text: str) -> list[str]:
    formats = text.split(",")
    for kind in formats:
        if kind not in FORMATS:
            raise UsageError(f"format '{kind}' is not known; known are {', '.join(FORMATS)}")
    return formats


def _report(
    ticket: Ticket, compaction: Compaction | None, paths: Mapping[str, Path], contents: Mapping[str, bytes]
) -> dict[str, Any]:
    return {
        "artifacts": [
            {
                "format": kind,
                "path": str(paths[kind]),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
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
    rows = [("format", "bytes", "of dense", "path")]
    rows += [(a["format"], f"{a['bytes']:,}", f"{a['bytes'] / dense:.1%}", a["path"]) for a in report["artifacts"]]
    rows.append(("(dense f32)", f"{dense:,}", "100.0%", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{r[0]:<{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]:>{widths[2]}}  {r[3]}".rstrip() for r in rows]
    lines.append(f"density {report['density']:.2%}, ticket {report['ticket_hash'][:12]}")
    lines += [f"{v['count']} of {v['of']} {v['unit']} of {v['layer']} vanish" for v in report["vanished"]]
    native = [a["path"] for a in report["artifacts"] if a["format"] in ("native", "packed")]
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
