"""Applies a delta (`.tkd`): makes the artifact that a server has published since from the one that the device has, bit for bit.

FORMAT.md, "Delta". Refuses a delta of another artifact, naming its hash, one that is damaged, and what a damaged one would
make; needs numpy and zlib alone. What a user has taught the old one is carried over by rebase.py.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.artifact import Source, read_artifact
from device_runtime.container import ARTIFACT, DELTA, MAX_FILE_BYTES, Container, read, write
from device_runtime.errors import CorruptDelta, IncompatibleDelta

BASE, SECTIONS, CODES, PLACES = range(1, 5)
SAME, DEFLATED, WORDS, HALF_WORDS = range(4)
BASE_LAYOUT = struct.Struct("<32s32s32s4I")
RECORD = struct.Struct("<5I")
WIDTHS = {WORDS: 4, HALF_WORDS: 2}
VALUE_HEADS = {7: 0, 8: 0, 12: 8, 13: 8}  # bytes before the values, of the sections that hold values
PACKED_INIT, MOST_DRAWN_BYTES = 12, 16 + 12 * 4096  # of the most parameters that an artifact has
DICTIONARY_BYTES = 2**15  # as far as deflate looks back
NOWHERE = -1

Places = NDArray[np.int64]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Record:
    """A section of the new artifact: its kind, and how it comes `source`, a kind of the old one's sections or 0 for none."""

    kind: int
    coding: int
    source: int
    size: int
    code: bytes


@dataclass(frozen=True)
class Delta:
    """What a delta says. `places` tells of each stored value of the new artifact where it is stored in the old one, or NOWHERE;
    None where all are where they were."""

    ticket_hash: bytes
    base_ticket_hash: bytes
    base_sha256: bytes
    new_sha256: bytes
    new_bytes: int
    minor: int
    records: tuple[Record, ...]
    places: Places | None
    base_value_count: int


def apply_delta(base: Source, delta: Source) -> bytes:
    """The new artifact. Raises CorruptDelta, IncompatibleDelta for another `base`, CorruptArtifact, OSError."""
    return applied(read_artifact(base), read_delta(delta))


def read_delta(source: Source) -> Delta:
    """Raises CorruptDelta, IncompatibleDelta, OSError."""
    file = read(read_artifact(source), DELTA)
    sections = file.sections
    if not {BASE, SECTIONS, CODES} <= set(sections):
        raise _corrupt("it lacks a section")
    if len(sections[BASE]) != BASE_LAYOUT.size:
        raise _corrupt("section BASE has another size")
    facts = BASE_LAYOUT.unpack(sections[BASE])
    base_ticket_hash, base_sha256, new_sha256, new_bytes, minor, base_value_count, reserved = facts
    if reserved or minor > 0xFFFF or new_bytes > MAX_FILE_BYTES:
        raise _corrupt("a field of BASE may not be so")
    records = _records(sections[SECTIONS], sections[CODES])
    if sum(record.size for record in records) > new_bytes:
        raise _corrupt("its sections are larger than the artifact they make")
    places = _places(sections[PLACES], base_value_count, _most_values(records)) if PLACES in sections else None
    return Delta(
        ticket_hash=file.ticket_hash,
        base_ticket_hash=base_ticket_hash,
        base_sha256=base_sha256,
        new_sha256=new_sha256,
        new_bytes=new_bytes,
        minor=minor,
        records=records,
        places=places,
        base_value_count=base_value_count,
    )


def applied(base: bytes, delta: Delta) -> bytes:
    """The new artifact. Raises as `apply_delta`."""
    check_base(base, delta)
    old = read(base, ARTIFACT).sections
    sections = {record.kind: _section(record, old, delta.places) for record in delta.records}
    if not sections:
        raise _corrupt("it makes no section")
    made = write(Container(delta.ticket_hash, sections, delta.minor), ARTIFACT)
    if len(made) != delta.new_bytes or hashlib.sha256(made).digest() != delta.new_sha256:
        raise _corrupt("what it makes has another size or SHA-256 than it says")
    return made


def check_base(base: bytes, delta: Delta) -> None:
    """Raises IncompatibleDelta unless the delta is of exactly these bytes, CorruptArtifact where they are no artifact."""
    sha256 = hashlib.sha256(base).digest()
    if sha256 == delta.base_sha256:
        return
    ours, theirs = read(base, ARTIFACT).ticket_hash, delta.base_ticket_hash
    remedy = f"fetch the artifact of ticket {delta.ticket_hash.hex()[:12]} whole"
    if ours != theirs:
        raise IncompatibleDelta(
            f"the delta is of ticket {theirs.hex()[:12]}, but the artifact is of ticket {ours.hex()[:12]}; {remedy}"
        )
    raise IncompatibleDelta(
        f"the artifact is of the delta's ticket {ours.hex()[:12]}, but not the file that was published (SHA-256 "
        f"{sha256.hex()[:12]}, not {delta.base_sha256.hex()[:12]}); give that one, or {remedy}"
    )


def _records(table: bytes, codes: bytes) -> tuple[Record, ...]:
    if len(table) % RECORD.size:
        raise _corrupt("section SECTIONS has another size")
    records: list[Record] = []
    at = 0
    for kind, coding, source, size, code_bytes in RECORD.iter_unpack(table):
        if coding > HALF_WORDS or size > MAX_FILE_BYTES or kind <= (records[-1].kind if records else 0):
            raise _corrupt(f"section {kind} of the artifact is told in a way that may not be")
        records.append(Record(kind, coding, source, size, codes[at : at + code_bytes]))
        at += code_bytes
    if at != len(codes):
        raise _corrupt("section CODES has another size")
    return tuple(records)


def _section(record: Record, old: Mapping[int, bytes], places: Places | None) -> bytes:
    source = old.get(record.source)
    if source is None and (record.source or record.coding == SAME):
        raise _corrupt(f"it takes section {record.source}, which the artifact has not")
    if record.coding == SAME:
        if record.code or source is None or len(source) != record.size:
            raise _corrupt(f"section {record.kind} is another one")
        return source
    if record.coding == DEFLATED:
        return inflated(record.code, record.size, (source or b"")[-DICTIONARY_BYTES:])
    return _words(record, source, places)


def _words(record: Record, source: bytes | None, places: Places | None) -> bytes:
    """Words that differ by little from those of another section."""
    width = WIDTHS[record.coding]
    if record.size % width:
        raise _corrupt(f"section {record.kind} has no whole number of words")
    before = np.zeros(record.size // width, f"<u{width}")
    if source is not None:
        before = _aligned(record, np.frombuffer(source[: len(source) // width * width], f"<u{width}"), places)
    return sum_of(before, from_planes(inflated(record.code, record.size), width)).tobytes()


def _aligned(record: Record, source: Words, places: Places | None) -> Words:
    """The words of the old section in the order of the new one, 0 where there is none."""
    width = source.itemsize
    if places is None:
        if len(source) * width != record.size:
            raise _corrupt(f"section {record.kind} has another number of words than the one it comes from")
        return source
    heads = (VALUE_HEADS.get(record.kind), VALUE_HEADS.get(record.source))
    if heads[0] is None or heads[0] != heads[1]:
        raise _corrupt(f"section {record.kind} holds no values")
    head = heads[0] // width
    values = source[head:]
    if record.size != (head + len(places)) * width or (len(places) and places.max() >= len(values)):
        raise _corrupt(f"section {record.kind} has another number of values")
    found = np.where(places == NOWHERE, 0, values[places]) if len(values) else np.zeros(len(places))
    return np.concatenate([source[:head], found]).astype(source.dtype)


def _most_values(records: tuple[Record, ...]) -> int:
    """How many values the new artifact can store, in half floats, or drawn from a seed, which needs no room for them."""
    if any(record.kind == PACKED_INIT and record.size <= MOST_DRAWN_BYTES for record in records):
        return MAX_FILE_BYTES // 4
    return max((record.size // 2 for record in records if record.kind in VALUE_HEADS), default=0)


def _places(section: bytes, base_value_count: int, most: int) -> Places:
    if len(section) < 4:
        raise _corrupt("section PLACES has another size")
    (count,) = struct.unpack_from("<I", section)
    if count > most:
        raise _corrupt("section PLACES has too many values")
    steps = from_planes(inflated(section[4:], 4 * count), 4).astype(np.int64)
    there = steps != 0
    places = np.full(count, NOWHERE, np.int64)
    places[there] = np.cumsum(_unfolded(steps[there] - 1) + 1) - 1
    if there.any() and not 0 <= places[there].min() <= places[there].max() < base_value_count:
        raise _corrupt("section PLACES points behind the values")
    return places


def inflated(code: bytes, size: int, dictionary: bytes = b"") -> bytes:
    """Exactly `size` bytes, and no more work than that."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS, zdict=dictionary)
    try:
        content = stream.decompress(code, size) if size else stream.decompress(code, 1)
        content += stream.decompress(stream.unconsumed_tail, 1)  # the end may still be to be read
    except zlib.error as error:
        raise _corrupt(f"a code is none ({error})") from error
    if len(content) != size or not stream.eof or stream.unused_data or stream.unconsumed_tail:
        raise _corrupt("a code gives more or less than it should")
    return content


def from_planes(planes: bytes, width: int) -> Words:
    """Words whose first bytes come first, then the second ones."""
    found: Words = np.frombuffer(planes, np.uint8).reshape(width, -1).T.copy().view(f"<u{width}").ravel()
    return found


def sum_of(before: Words, differences: Words) -> Words:
    """`before` with folded differences added, as whole numbers in the order of the floats that the words are."""
    ordered = _ordered(before).astype(np.int64) + _unfolded(differences.astype(np.int64))
    bits = 8 * before.itemsize
    words = (ordered % (1 << bits)).astype(before.dtype)
    top = words >> (bits - 1) == 1
    return np.where(top, words ^ (1 << (bits - 1)), ~words).astype(before.dtype)


def _ordered(words: Words) -> Words:
    """Whole numbers that rise with the floats."""
    bits = 8 * words.itemsize
    negative = words >> (bits - 1) == 1
    return np.where(negative, ~words, words ^ (1 << (bits - 1))).astype(words.dtype)


def _unfolded(folded: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, 3, 4 to 0, -1, 1, -2, 2."""
    found: NDArray[np.int64] = (folded >> 1) ^ -(folded & 1)
    return found


def _corrupt(what: str) -> CorruptDelta:
    return CorruptDelta(f"the delta is damaged: {what}; get it again")
