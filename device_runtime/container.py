"""The file around artifacts, checkpoints and deltas (FORMAT.md, "File"): header, table of sections, checksums.

For what no core function gives or takes: deltas, and the sections that they are about. Every byte is checked, as the core
does it; equal sections give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from device_runtime.errors import (
    CorruptArtifact,
    CorruptCheckpoint,
    CorruptDelta,
    IncompatibleArtifact,
    IncompatibleDelta,
    PocketTicketError,
)

MAJOR = 1
MAX_FILE_BYTES = 2**31 - 1
MAX_SECTIONS = 32
FIRST_OPTIONAL_KIND = 0x8000  # kinds from here on may be skipped
ALIGNMENT = 64
HEADER = struct.Struct("<8sHHIII32s8s")
ENTRY = struct.Struct("<4I")
CRC = slice(20, 24)


@dataclass(frozen=True)
class FileType:
    """What differs between the files."""

    noun: str
    magic: bytes
    last_kind: int
    corrupt: type[PocketTicketError]
    incompatible: type[PocketTicketError]


ARTIFACT = FileType("artifact", b"\x89TKT\r\n\x1a\n", 13, CorruptArtifact, IncompatibleArtifact)
CHECKPOINT = FileType("checkpoint", b"\x89TKC\r\n\x1a\n", 4, CorruptCheckpoint, CorruptCheckpoint)
DELTA = FileType("delta", b"\x89TKD\r\n\x1a\n", 4, CorruptDelta, IncompatibleDelta)


@dataclass(frozen=True)
class Container:
    """A file that was checked, or is to be written: `ticket_hash` (32 bytes) and the sections by kind."""

    ticket_hash: bytes
    sections: Mapping[int, bytes]
    minor: int = 0


def type_of(content: bytes) -> FileType | None:
    """By its first bytes alone; None where they are of none of ours."""
    return next((kind for kind in (ARTIFACT, CHECKPOINT, DELTA) if content.startswith(kind.magic)), None)


def read(content: bytes, kind: FileType) -> Container:
    """Raises the errors of `kind`."""
    magic, major, minor, file_bytes, count, crc, ticket_hash, reserved = _header(content, kind)
    if magic != kind.magic:
        raise kind.corrupt(f"not a {kind.noun}: its first bytes are others; give a file of that kind")
    if major != MAJOR:
        raise kind.incompatible(f"the {kind.noun} is of version {major}, but this runtime reads {MAJOR}; update one")
    if file_bytes != len(content) or file_bytes > MAX_FILE_BYTES or not 1 <= count <= MAX_SECTIONS:
        raise _damaged(kind, f"it has {len(content)} bytes where {file_bytes} are announced, or too many sections")
    end = HEADER.size + count * ENTRY.size
    if end > len(content) or zlib.crc32(content[:20] + bytes(4) + content[24:end]) != crc or any(reserved):
        raise _damaged(kind, "the checksum of its header differs")
    sections: dict[int, bytes] = {}
    last = 0
    for number, offset, size, section_crc in ENTRY.iter_unpack(content[HEADER.size : end]):
        start = end + -end % ALIGNMENT
        if number <= last or offset != start or start + size > len(content) or any(content[end:start]):
            raise _damaged(kind, f"section {number} is not where it should be")
        section, end, last = content[start : start + size], start + size, number
        if zlib.crc32(section) != section_crc:
            raise _damaged(kind, f"the checksum of section {number} differs")
        if kind.last_kind < number < FIRST_OPTIONAL_KIND:
            raise kind.incompatible(
                f"the {kind.noun} has a section {number} that this runtime does not know; update it"
            )
        sections[number] = section
    if end != len(content):
        raise _damaged(kind, "there are bytes behind its last section")
    return Container(ticket_hash, sections, minor)


def write(container: Container, kind: FileType) -> bytes:
    """The file's bytes. Raises the error of `kind` where they would be too many."""
    end = HEADER.size + ENTRY.size * len(container.sections)
    table, body = bytearray(), bytearray()
    for number, section in sorted(container.sections.items()):
        padding = -end % ALIGNMENT
        table += ENTRY.pack(number, end + padding, len(section), zlib.crc32(section))
        body += bytes(padding) + section
        end += padding + len(section)
    if end > MAX_FILE_BYTES or len(container.sections) > MAX_SECTIONS:
        raise kind.corrupt(f"the {kind.noun} would have {end} bytes, more than {MAX_FILE_BYTES}, or too many sections")
    head = (kind.magic, MAJOR, container.minor, end, len(container.sections), 0, container.ticket_hash, bytes(8))
    front = bytearray(HEADER.pack(*head) + table)
    front[CRC] = struct.pack("<I", zlib.crc32(front))
    return bytes(front + body)


def _header(content: bytes, kind: FileType) -> tuple[bytes, int, int, int, int, int, bytes, bytes]:
    if len(content) < HEADER.size:
        raise _damaged(kind, f"it has {len(content)} bytes, fewer than a header")
    magic, major, minor, file_bytes, count, crc, ticket_hash, reserved = HEADER.unpack_from(content)
    return magic, major, minor, file_bytes, count, crc, ticket_hash, reserved


def _damaged(kind: FileType, what: str) -> PocketTicketError:
    return kind.corrupt(f"the {kind.noun} is damaged or cut short: {what}; get it again")
