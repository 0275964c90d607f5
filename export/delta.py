"""`python -m export delta OLD.tkt NEW.tkt`: a small file that makes the new artifact of a ticket from the old one, bit for bit.

FORMAT.md, "Delta". Sections that did not change are named, others deflated beside the old ones; values are differences in units of
the last place. Where the masks differ it tells too where each weight was, for which both tickets are read. Nothing is written
before the device's runtime has made the new artifact from it. Refuses artifacts of different networks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.atomic import write_file
from export.compact import Compaction, compact
from export.errors import UsageError
from export.layout import layouts
from export.ticket import Ticket, TicketError, load_ticket
from export.to_native import (
    HEADER,
    INIT,
    MAGIC,
    PACKED_INIT,
    PACKED_PATTERN,
    PACKED_TRAINED,
    PARAMS,
    PATTERN,
    TRAINED,
    file_of,
    params_and_pattern,
)

DELTA_MAGIC = b"\x89TKD\r\n\x1a\n"
BASE, SECTIONS, CODES, PLACES = range(1, 5)
SAME, DEFLATED, WORDS, HALF_WORDS = range(4)
WIDTHS = {WORDS: 4, HALF_WORDS: 2}
VALUE_HEADS = {INIT: 0, TRAINED: 0, PACKED_INIT: 8, PACKED_TRAINED: 8}  # bytes before the values
NOWHERE = -1

Places = NDArray[np.int64]
Words = NDArray[np.unsignedinteger[Any]]
Tickets = tuple[Ticket, Ticket]


def delta(arguments: Sequence[str]) -> str:
    """Runs the command; what to print. Raises UsageError."""
    parser = argparse.ArgumentParser(
        prog="python -m export delta",
        description="Write what makes a new artifact of a ticket from an old one, for devices that have that.",
        allow_abbrev=False,
    )
    parser.add_argument("old", metavar="OLD.tkt", type=Path, help="the artifact that devices have, plain or packed")
    parser.add_argument("new", metavar="NEW.tkt", type=Path, help="the artifact that they should have")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where it goes (default: NEW.tkd)")
    parser.add_argument(
        "--tickets",
        nargs=2,
        metavar=("OLD_DIR", "NEW_DIR"),
        type=Path,
        help="the tickets of both, where their masks differ (default: the folders that the artifacts are named after)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    options = parser.parse_args(arguments)
    old, new = options.old.read_bytes(), options.new.read_bytes()
    tickets = None
    if _order(read(old)) != _order(read(new)):
        folders = options.tickets or [path.parent / path.name.partition(".")[0] for path in (options.old, options.new)]
        try:
            tickets = (load_ticket(folders[0]), load_ticket(folders[1]))
        except TicketError as error:
            raise UsageError(f"the masks differ, so both tickets are needed: {error}; give --tickets") from error
    elif options.tickets:
        raise UsageError("--tickets is for artifacts whose masks differ; these agree, leave it out")
    content = to_delta_bytes(old, new, tickets)
    output = options.output or options.new.with_suffix(".tkd")
    write_file(output, content)
    told = {
        "path": str(output),
        "bytes": len(content),
        "artifact_bytes": len(new),
        "sha256": hashlib.sha256(content).hexdigest(),
        "base_sha256": hashlib.sha256(old).hexdigest(),
        "artifact_sha256": hashlib.sha256(new).hexdigest(),
        "base_ticket_hash": read(old).ticket_hash.hex(),
        "ticket_hash": read(new).ticket_hash.hex(),
        "same_masks": tickets is None,
    }
    if options.json:
        return json.dumps(told)
    share = len(content) / len(new)
    return f"{output}: {len(content):,} bytes, {share:.1%} of '{options.new}', for devices that have '{options.old}'"


@dataclass(frozen=True)
class NativeFile:
    """An artifact's sections by kind."""

    ticket_hash: bytes
    minor: int
    sections: Mapping[int, bytes]


def read(content: bytes) -> NativeFile:
    """Raises TicketError for what is no artifact; its sections are the runtime's to judge."""
    if content[:8] != MAGIC or len(content) < HEADER.size:
        raise TicketError("not a native artifact; give a .tkt that python -m export wrote")
    _, _, minor, file_bytes, count, _, ticket_hash = HEADER.unpack_from(content)
    if file_bytes != len(content) or len(content) < HEADER.size + 16 * count:
        raise TicketError(f"the artifact has {len(content)} bytes where {file_bytes} are announced; copy it again")
    table = [struct.unpack_from("<4I", content, HEADER.size + 16 * index) for index in range(count)]
    sections = {kind: content[at : at + size] for kind, at, size, _ in table}
    if any(zlib.crc32(sections[kind]) != crc for kind, _, _, crc in table):
        raise TicketError("the artifact is damaged; copy it again")
    return NativeFile(ticket_hash, minor, sections)


def to_delta_bytes(old: bytes, new: bytes, tickets: Tickets | None = None) -> bytes:
    """The delta. `tickets` are needed where the masks differ. Raises TicketError where that is so and they are not those of the
    artifacts, and where the networks differ."""
    from device_runtime import PocketTicketError, apply_delta, inspect

    before, after = read(old), read(new)
    try:
        facts = [inspect(artifact) for artifact in (old, new)]
    except PocketTicketError as error:
        raise TicketError(str(error)) from error
    if any(facts[0][key] != facts[1][key] for key in ("operators", "input_shape", "class_count")):
        raise TicketError("the artifacts are of different networks; publish the new one whole")
    places = None
    if _order(before) != _order(after):
        if tickets is None:
            raise TicketError("the masks differ; give the tickets of both artifacts")
        places = _places(*(_where(file, ticket) for file, ticket in zip((before, after), tickets, strict=True)))
    records, codes = bytearray(), bytearray()
    for kind, section in sorted(after.sections.items()):
        coding, source, code = _smallest(kind, section, before.sections, places)
        records += struct.pack("<5I", kind, coding, source, len(section), len(code))
        codes += code
    hashes = (before.ticket_hash, hashlib.sha256(old).digest(), hashlib.sha256(new).digest())
    head = struct.pack("<32s32s32s4I", *hashes, len(new), after.minor, facts[0]["value_count"], 0)
    sections = {BASE: head, SECTIONS: bytes(records), CODES: bytes(codes)}
    if places is not None:
        sections[PLACES] = struct.pack("<I", len(places)) + _places_code(places)
    content = file_of(sections, after.ticket_hash, DELTA_MAGIC)
    if apply_delta(old, content) != new:
        raise TicketError("the delta does not make the new artifact. Please report it; publish that whole")
    return content


def _order(file: NativeFile) -> tuple[bytes | None, ...]:
    """What decides where a value is stored: equal where the masks are."""
    return tuple(file.sections.get(kind) for kind in (PARAMS, PATTERN, PACKED_PATTERN))


def _where(file: NativeFile, ticket: Ticket) -> list[Places]:
    """For each parameter the place, in the whole one of the ticket, of every value that the artifact stores; NOWHERE if pruned."""
    if ticket.hash != file.ticket_hash.hex():
        raise TicketError(
            f"the artifact is of ticket {file.ticket_hash.hex()[:12]}, but the ticket given is {ticket.hash[:12]}; give --tickets"
        )
    compaction = compact(ticket)
    for source in (compaction, Compaction(ticket, ticket, _all_of(ticket), ())):
        if params_and_pattern(source.ticket)[0] == file.sections[PARAMS]:
            return _stored_places(source)
    raise TicketError("the artifact was not exported from its ticket by this version; export it again")


def _all_of(ticket: Ticket) -> dict[str, tuple[NDArray[np.intp], ...]]:
    return {name: tuple(np.arange(n) for n in shape) for name, shape in ticket.network.parameter_shapes.items()}


def _stored_places(source: Compaction) -> list[Places]:
    found = []
    shapes = source.original.network.parameter_shapes
    for name, layout in layouts(source.ticket.network, source.ticket.masks).items():
        shape = shapes[name]
        numbered = np.arange(int(np.prod(shape))).reshape(shape)[np.ix_(*source.kept[name])].ravel()
        live = np.ones(len(numbered), np.bool_) if layout.mask is None else layout.mask.ravel()
        found.append(np.where(live, numbered, NOWHERE)[layout.stored])
    return found


def _places(old: Sequence[Places], new: Sequence[Places]) -> Places:
    """For each value of the new artifact its number among those of the old one, or NOWHERE."""
    if len(old) != len(new):
        raise TicketError("the artifacts are of different networks; publish the new one whole")
    found, start = [], 0
    for before, after in zip(old, new, strict=True):
        numbers = np.full(max(before.max(initial=0), after.max(initial=0)) + 2, NOWHERE)  # the last one is for NOWHERE
        numbers[before] = start + np.arange(len(before))
        numbers[-1] = NOWHERE
        found.append(numbers[after])
        start += len(before)
    return np.concatenate(found)


def _smallest(kind: int, section: bytes, old: Mapping[int, bytes], places: Places | None) -> tuple[int, int, bytes]:
    """The coding, the old section it starts from, and the code, whichever is shortest."""
    if old.get(kind) == section:
        return SAME, kind, b""
    ways = [(DEFLATED, 0, _deflated([section]))]
    if kind in old:
        ways.append((DEFLATED, kind, _deflated([section], old[kind])))
    for coding in (WORDS, HALF_WORDS) if kind in VALUE_HEADS else ():
        for source in (0, *VALUE_HEADS):
            differences = _differences(kind, section, source, old.get(source), places, WIDTHS[coding])
            if differences is not None:
                ways.append((coding, source, _planes_code(differences)))
    return min(ways, key=lambda way: len(way[2]))


def _differences(
    kind: int, section: bytes, source: int, old: bytes | None, places: Places | None, width: int
) -> Words | None:
    """Folded; None where the old section does not fit."""
    if len(section) % width:
        return None
    words = np.frombuffer(section, f"<u{width}")
    if source == 0:
        return _difference(words, np.zeros_like(words))
    if old is None or len(old) % width or VALUE_HEADS[source] != VALUE_HEADS[kind]:
        return None
    before = np.frombuffer(old, f"<u{width}")
    if places is not None:
        head = VALUE_HEADS[kind] // width
        if len(words) != head + len(places) or places.max() >= len(before) - head:
            return None
        before = np.concatenate([before[:head], np.where(places == NOWHERE, 0, before[head:][places])]).astype(
            words.dtype
        )
    return _difference(words, before) if len(before) == len(words) else None


def _difference(words: Words, before: Words) -> Words:
    """How many floats lie between, folded: 0, -1, 1, -2, 2 as 0, 1, 2, 3, 4."""
    signed = (_ordered(words) - _ordered(before)).astype(words.dtype).view(f"<i{words.itemsize}")
    return ((signed << 1) ^ (signed >> (8 * words.itemsize - 1))).view(words.dtype)


def _ordered(words: Words) -> Words:
    """Whole numbers that rise with the floats."""
    top = words.dtype.type(1 << (8 * words.itemsize - 1))
    return np.where(words & top != 0, ~words, words ^ top).astype(words.dtype)


def _places_code(places: Places) -> bytes:
    there = places != NOWHERE
    steps = np.diff(places[there], prepend=-1) - 1  # 0 where the next one follows
    folded = np.zeros(len(places), "<u4")
    folded[there] = ((steps << 1) ^ (steps >> 63)) + 1
    return _planes_code(folded)


def _planes_code(words: Words) -> bytes:
    """First bytes, then second ones, and so on: those that hardly vary by themselves."""
    planes = np.ascontiguousarray(words.view(np.uint8).reshape(-1, words.itemsize).T)
    return _deflated([plane.tobytes() for plane in planes])


def _deflated(parts: Sequence[bytes], dictionary: bytes = b"") -> bytes:
    """One raw stream, each part with codes of its own."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, dictionary[-(2**15) :])
    return b"".join(stream.compress(part) + stream.flush(zlib.Z_BLOCK) for part in parts) + stream.flush()
