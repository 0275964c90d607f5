"""Applies a delta by FORMAT.md in plain Python, a value at a time: the other way round than the exporter, for tests alone."""

from __future__ import annotations

import hashlib
import struct
import zlib

MAGICS = {"artifact": b"\x89TKT\r\n\x1a\n", "delta": b"\x89TKD\r\n\x1a\n"}


def apply(artifact: bytes, delta: bytes) -> bytes:
    """Asserts what the format asks for as it goes."""
    ticket_hash, _, sections = _file(delta, "delta")
    old_hash, _, old = _file(artifact, "artifact")
    base_hash, base_sha256, new_sha256, new_bytes, minor, count, zero = struct.unpack("<32s32s32s4I", sections[1])
    assert (base_hash, base_sha256, zero) == (old_hash, hashlib.sha256(artifact).digest(), 0)
    places = _places(sections[4], count) if 4 in sections else None
    made, at = {}, 0
    for kind, coding, source, size, code_bytes in struct.iter_unpack("<5I", sections[2]):
        code = sections[3][at : at + code_bytes]
        at += code_bytes
        made[kind] = _section(kind, coding, old.get(source, b""), source, size, code, places)
        assert len(made[kind]) == size
    assert at == len(sections[3])
    new = _write(ticket_hash, minor, made)
    assert (len(new), hashlib.sha256(new).digest()) == (new_bytes, new_sha256)
    return new


def _section(
    kind: int, coding: int, old: bytes, source: int, size: int, code: bytes, places: list[int] | None
) -> bytes:
    if coding == 0:
        assert (source, code) == (kind, b"")
        return old
    stream = zlib.decompressobj(-15, zdict=old[-32768:] if coding == 1 else b"")
    content = stream.decompress(code)
    assert stream.eof
    if coding == 1:
        return content
    width = {2: 4, 3: 2}[coding]
    words = [int.from_bytes(old[at : at + width], "little") for at in range(0, len(old), width)]
    if source and places is not None:
        head = {7: 0, 8: 0, 12: 8, 13: 8}[kind] // width
        words = words[:head] + [0 if place < 0 else words[head + place] for place in places]
    words = words or [0] * (size // width)
    differences = _words(content, width)
    assert len(words) == len(differences) == size // width
    return b"".join(
        _float(_order(word, width) + _unfold(difference), width).to_bytes(width, "little")
        for word, difference in zip(words, differences, strict=True)
    )


def _words(planes: bytes, width: int) -> list[int]:
    count = len(planes) // width
    return [sum(planes[plane * count + i] << 8 * plane for plane in range(width)) for i in range(count)]


def _order(word: int, width: int) -> int:
    """The word's place among all floats of that width, from the lowest one."""
    top = 1 << (8 * width - 1)
    return 2 * top - 1 - word if word & top else word + top


def _float(place: int, width: int) -> int:
    top = 1 << (8 * width - 1)
    place %= 2 * top
    return place - top if place >= top else 2 * top - 1 - place


def _unfold(number: int) -> int:
    return -(number + 1) // 2 if number % 2 else number // 2


def _places(section: bytes, count: int) -> list[int]:
    (new_count,) = struct.unpack_from("<I", section)
    found, last = [], -1
    for number in _words(zlib.decompress(section[4:], -15), 4):
        if number == 0:
            found.append(-1)
            continue
        last += 1 + _unfold(number - 1)
        assert 0 <= last < count
        found.append(last)
    assert len(found) == new_count
    return found


def _file(content: bytes, kind: str) -> tuple[bytes, int, dict[int, bytes]]:
    magic, major, minor, file_bytes, count, _, ticket_hash = struct.unpack_from("<8sHHIII32s", content)
    assert (magic, major, file_bytes) == (MAGICS[kind], 1, len(content))
    table = [struct.unpack_from("<4I", content, 64 + 16 * index) for index in range(count)]
    return ticket_hash, minor, {number: content[at : at + size] for number, at, size, _ in table}


def _write(ticket_hash: bytes, minor: int, sections: dict[int, bytes]) -> bytes:
    end, table, body = 64 + 16 * len(sections), b"", b""
    for kind in sorted(sections):
        padding = -end % 64
        table += struct.pack("<4I", kind, end + padding, len(sections[kind]), zlib.crc32(sections[kind]))
        body += bytes(padding) + sections[kind]
        end += padding + len(sections[kind])
    front = MAGICS["artifact"] + struct.pack("<HHII", 1, minor, end, len(sections))
    back = ticket_hash + bytes(8) + table
    return front + struct.pack("<I", zlib.crc32(front + bytes(4) + back)) + back + body
