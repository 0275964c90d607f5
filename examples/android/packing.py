"""Writes the zip archives of Android: equal input gives equal bytes, and what a device maps lies where it can be mapped.

An entry is stored or deflated as said; a stored one begins at a multiple of its alignment, and says so in the extra field
that apksigner keeps to.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 16384
ALIGNMENT_FIELD = 0xD935
DATE = (1 << 5) | 1  # 1980-01-01, as early as a zip archive can be
LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END = struct.Struct("<IHHHHIIH")


@dataclass(frozen=True)
class Entry:
    """`alignment` 0: deflated; else stored, at a multiple of it."""

    content: bytes
    alignment: int = 0


def alignment_of(name: str) -> int:
    """What Android wants: libraries by pages, what else is mapped by 4 bytes, or 8 for artifacts."""
    if name.endswith(".so"):
        return PAGE_BYTES
    if name.endswith(".tkt"):
        return 8
    return 4 if name == "resources.arsc" or name.endswith("-ubyte") else 0


def write_zip(path: Path, entries: Mapping[str, Entry]) -> None:
    """In the given order."""
    body, directory = bytearray(), bytearray()
    for name, entry in entries.items():
        encoded, offset = name.encode("ascii"), len(body)
        method, stored = (0, entry.content) if entry.alignment else (8, _deflated(entry.content))
        extra = _extra(offset + LOCAL.size + len(encoded), entry.alignment) if entry.alignment else b""
        sizes = (zlib.crc32(entry.content), len(stored), len(entry.content))
        body += LOCAL.pack(0x04034B50, 20, 0, method, 0, DATE, *sizes, len(encoded), len(extra))
        body += encoded + extra + stored
        directory += CENTRAL.pack(0x02014B50, 20, 20, 0, method, 0, DATE, *sizes, len(encoded), 0, 0, 0, 0, 0, offset)
        directory += encoded
    end = END.pack(0x06054B50, 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory + end))


def _deflated(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


def _extra(start: int, alignment: int) -> bytes:
    """The extra field after which, from `start` on, content is aligned."""
    padding = -(start + 6) % alignment
    return struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, alignment) + bytes(padding)
