"""Writes `tiny.tkd` by FORMAT.md alone: no code of the product in it. It makes tiny.tkt's successor, with other initial values and
another card, and has codes of stored blocks, so that it depends on no deflater.

`python tests/golden/make_delta.py` rewrites the file; change it only together with FORMAT.md.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

HERE = Path(__file__).parent


def sections_of(content: bytes) -> dict[int, bytes]:
    (count,) = struct.unpack_from("<I", content, 16)
    table = [struct.unpack_from("<4I", content, 64 + 16 * index) for index in range(count)]
    return {kind: content[offset : offset + size] for kind, offset, size, _ in table}


def file(magic: bytes, ticket_hash: bytes, sections: dict[int, bytes]) -> bytes:
    table, body, end = b"", b"", 64 + 16 * len(sections)
    for kind, content in sections.items():
        while end % 64:
            body, end = body + b"\0", end + 1
        table += struct.pack("<4I", kind, end, len(content), zlib.crc32(content))
        body, end = body + content, end + len(content)
    front = magic + struct.pack("<HHII", 1, 0, end, len(sections))
    back = ticket_hash + bytes(8) + table
    return front + struct.pack("<I", zlib.crc32(front + bytes(4) + back)) + back + body


def stored_block(content: bytes) -> bytes:
    """RFC 1951, 3.2.4: the last block, not compressed."""
    return b"\1" + struct.pack("<HH", len(content), 0xFFFF - len(content)) + content


def place_of(word: int) -> int:
    return word ^ 0xFFFFFFFF if word >> 31 else word ^ 0x80000000


def folded(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def planes(words: list[int]) -> bytes:
    return bytes(word >> 8 * plane & 0xFF for plane in range(4) for word in words)


def golden() -> tuple[bytes, bytes]:
    """The delta, and the artifact that it makes."""
    base = (HERE / "tiny.tkt").read_bytes()
    old = sections_of(base)
    card = json.dumps(json.loads(old[1]) | {"task": "the next one"}, sort_keys=True, separators=(",", ":")).encode()
    before = list(struct.unpack(f"<{len(old[7]) // 4}I", old[7]))
    count = len(before)
    words = [struct.unpack("<I", struct.pack("<f", (-1) ** i * 0.125 * i))[0] for i in range(count)]
    new = file(base[:8], bytes(range(32, 64)), {**old, 1: card, 7: struct.pack(f"<{count}I", *words)})
    places = [-1, 0, 2, 1, *range(3, count - 1)]  # a new one, some in another order, and the last old one dropped
    after = [0 if place < 0 else before[place] for place in places]
    steps = [place - last - 1 for place, last in zip(places[1:], [-1, *places[1:]], strict=False)]
    differences = [(place_of(w) - place_of(b) + 2**31) % 2**32 - 2**31 for w, b in zip(words, after, strict=True)]
    codes = {1: stored_block(card), 7: stored_block(planes([folded(d) for d in differences]))}
    coding = {1: (1, 0), 7: (2, 7)}
    table = b"".join(
        struct.pack("<5I", kind, *coding.get(kind, (0, kind)), len(content), len(codes.get(kind, b"")))
        for kind, content in sections_of(new).items()
    )
    hashes = (base[24:56], hashlib.sha256(base).digest(), hashlib.sha256(new).digest())
    delta = {
        1: struct.pack("<32s32s32s4I", *hashes, len(new), 0, count, 0),
        2: table,
        3: codes[1] + codes[7],
        4: struct.pack("<I", count) + stored_block(planes([0, *(folded(step) + 1 for step in steps)])),
    }
    return file(bytes([0x89, 0x54, 0x4B, 0x44, 0x0D, 0x0A, 0x1A, 0x0A]), bytes(range(32, 64)), delta), new


if __name__ == "__main__":
    content, _ = golden()
    (HERE / "tiny.tkd").write_bytes(content)
    print(f"tiny.tkd: {len(content)} bytes")
