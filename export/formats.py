"""The kinds of artifact that a ticket can leave as, and how each is judged before it does (gate.py).

A format imports what it needs when it is called. One that a device cannot train from has no gate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from export.compact import Compaction
    from export.gate import Passed, Places
    from export.ticket import Ticket

Source: TypeAlias = "Ticket | Compaction"
Content = bytes | Mapping[str, bytes]  # of a file, or of a folder's files by name


@dataclass(frozen=True)
class Wanted:
    """`values`: which ones a format with one set holds; `packed`: how the packed one holds them."""

    values: Literal["init", "trained"] = "init"
    packed: Literal["float32", "float16", "seed"] = "float32"


@dataclass(frozen=True)
class Format:
    """`suffix`: its ending. `places`: where its trainer's values of each parameter stand in the whole one; None if none trains it."""

    suffix: str
    write: Callable[[Source, Wanted], Content]
    places: Callable[[Ticket], Places] | None = None
    is_native: bool = False


def _native(source: Source, wanted: Wanted) -> bytes:
    from export.to_native import to_native_bytes

    return to_native_bytes(source)  # holds both; the trainer chooses by `start`


def _packed(source: Source, wanted: Wanted) -> bytes:
    from export.to_native import to_packed_bytes

    return to_packed_bytes(source, wanted.packed, trained=wanted.values == "trained")


def _onnx(source: Source, wanted: Wanted) -> bytes:
    from export.to_onnx import to_onnx_bytes

    return to_onnx_bytes(source, wanted.values)


def _ort(source: Source, wanted: Wanted) -> Mapping[str, bytes]:
    from export.to_ort import to_ort

    return to_ort(source, wanted.values)


def _executorch(source: Source, wanted: Wanted) -> bytes:
    from export.to_executorch import to_executorch_bytes

    return to_executorch_bytes(source, wanted.values)


def _stored(ticket: Ticket) -> Places:
    from export.layout import layouts

    return {name: layout.stored for name, layout in layouts(ticket.network, ticket.masks).items()}


def _row_major(ticket: Ticket) -> Places:
    import numpy as np

    shapes = ticket.network.parameter_shapes
    return {name: np.flatnonzero(ticket.masks.get(name, np.ones(shape, np.bool_))) for name, shape in shapes.items()}


FORMATS: Mapping[str, Format] = {
    "native": Format(".tkt", _native, _stored, is_native=True),
    "packed": Format(".packed.tkt", _packed, _stored, is_native=True),
    "onnx": Format(".onnx", _onnx),
    "ort": Format(".ort", _ort, _row_major),
    "executorch": Format(".pte", _executorch, _row_major),
}


def size(content: Content) -> int:
    """Bytes in all."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content.values()))


def place(content: Content, path: Path) -> None:
    """Writes a file, or a folder that is not there yet, whole or not at all. Raises OSError."""
    from export.atomic import write_directory, write_file

    if isinstance(content, bytes):
        write_file(path, content)
    else:
        write_directory(path, content)


def written(kind: str, source: Source, wanted: Wanted) -> Content:
    """`source` in the format `kind`. Raises TicketError where that cannot hold it."""
    return FORMATS[kind].write(_whole(kind, source, wanted), wanted)


def _whole(kind: str, source: Source, wanted: Wanted) -> Source:
    """With its dead units where a seed gives its values, by their places in the whole network."""
    from export.compact import Compaction

    seeded = kind == "packed" and wanted.packed == "seed"
    return source.original if seeded and isinstance(source, Compaction) else source


def judged(kind: str, source: Source, wanted: Wanted, content: Content) -> Passed | None:
    """The gate's verdict on `content`, which is `source` in the format `kind`; None where none trains it. With dropout, on the same without. Raises
    GateError where it does not train as it should."""
    from device_runtime import Trainer
    from export.compact import Compaction
    from export.gate import check, without_dropout

    source = _whole(kind, source, wanted)
    form, ticket = FORMATS[kind], source.ticket if isinstance(source, Compaction) else source
    if form.places is None:
        return None
    quiet = without_dropout(ticket)
    if quiet is not ticket:
        content = form.write(quiet, wanted)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"artifact{form.suffix}"
        place(content, path)
        return check(quiet, form.places(quiet), lambda: Trainer.open(path, store_gradients=form.is_native))
