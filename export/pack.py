"""The packed forms of an artifact's sections: patterns by an adaptive range coder, values as float32, float16 or a seed.

FORMAT.md, PACKED_PATTERN and PACKED_INIT. A context is what lies around a place, and costs no memory on the device; the counts are those of Krichevsky and Trofimov (1981). Takes about a microsecond a weight. Refuses, by name, a value
that a half float cannot hold.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.drawn import Drawn
from export.layout import Layout, layouts
from export.network import Network
from export.ticket import Bits, Floats, TicketError

PackedValues = Literal["float32", "float16"]
VALUE_KINDS: Mapping[PackedValues, int] = {"float32": 1, "float16": 2}
DRAWN_KIND = 3

LONGEST_LINE = 1023
CONTEXTS = 19
FAR = 64  # as many places without a 1 are a context of their own
MOST_SEEN = 8192
SHARES = 4096
LEAST_SHARE = 4
LOW_BITS = 2**32 - 1

Codes = NDArray[np.uint8]


def packed_pattern(network: Network, masks: Mapping[str, Bits]) -> bytes:
    """The section PACKED_PATTERN."""
    lines, sequences, longest = [], [], 0
    for layout in layouts(network, masks).values():
        if layout.mask is None:
            continue
        listed = ~layout.mask if layout.masked else layout.mask[:: layout.block]
        if not layout.masked:
            longest = max(longest, layout.block * int(listed.sum(axis=1).max()))
        bits = listed.ravel()[: int(np.flatnonzero(listed)[-1]) + 1 if listed.any() else 0].astype(np.uint8)
        line = min(_lines(network, layout), key=lambda line: (_estimated_bits(bits, contexts(bits, line)), line))
        lines.append(line)
        sequences.append((bits, contexts(bits, line)))
    return struct.pack(f"<I{len(lines)}H", longest, *lines) + encode(sequences)


def packed_values(
    network: Network, masks: Mapping[str, Bits], values: Mapping[str, Floats], kind: PackedValues
) -> bytes:
    """The section PACKED_INIT or PACKED_TRAINED. Raises TicketError for what is infinite as a half float."""
    parts = []
    for name, layout in layouts(network, masks).items():
        stored = layout.stored
        live = stored if layout.mask is None else stored[layout.mask.ravel()[stored]]
        part = values[name].ravel()[live].astype(np.float32)
        parts.append(part.astype("<f4") if kind == "float32" else _halves(name, part))
    return struct.pack("<II", VALUE_KINDS[kind], 0) + b"".join(part.tobytes() for part in parts)


def packed_seed(drawn: Drawn) -> bytes:
    """The section PACKED_INIT of values that a device draws again."""
    parts = [struct.pack("<Iff", from_.code, from_.a, from_.b) for from_ in drawn.distributions.values()]
    return struct.pack("<IIQ", DRAWN_KIND, 0, drawn.seed) + b"".join(parts)


def _halves(name: str, values: Floats) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        largest = float(np.abs(values).max())
        raise TicketError(f"parameter '{name}' has the value {largest:g}; float16 holds up to 65504, pack as float32")
    return halves


def _lines(network: Network, layout: Layout) -> set[int]:
    """How far back the line before may lie: rows and channels of the kernel, or of the image that a row of weights reads."""
    cols = layout.cols
    shapes = [layout.shape[1:], *(shape for shape in network.shapes if math.prod(shape) == cols)]
    backs = {math.prod(shape[axis:]) for shape in shapes for axis in range(len(shape))}
    return {0, *(back for back in backs if 2 <= back <= LONGEST_LINE)}


def contexts(bits: Codes, line: int) -> Codes:
    """The context of each bit, of CONTEXTS."""

    def back(places: int) -> Codes:
        return np.concatenate([np.zeros(places, np.uint8), bits])[: len(bits)]

    around = 6 * (back(1) + back(2))
    if line:
        around += 3 * back(line) + back(line - 1) + back(line + 1)
    ones = np.concatenate([np.zeros(FAR + 1, np.int64), np.cumsum(bits, dtype=np.int64)])
    found: Codes = np.where(ones[FAR : FAR + len(bits)] == ones[: len(bits)], CONTEXTS - 1, around).astype(np.uint8)
    return found


def _estimated_bits(bits: Codes, around: Codes) -> float:
    """What a sequence takes: the entropy in each context, and what learning its share costs."""
    seen = np.bincount(around, minlength=CONTEXTS).astype(float)
    ones = np.bincount(around, weights=bits, minlength=CONTEXTS)
    total = 0.0
    for count, one in zip(seen, ones, strict=True):
        total += sum(part * math.log2(count / part) for part in (one, count - one) if part) + 0.5 * math.log2(count + 1)
    return total


def encode(sequences: Iterable[tuple[Codes, Codes]]) -> bytes:
    """The code of sequences of bits with their contexts."""
    low, span, code = 0, LOW_BITS, bytearray()
    for share, bit in _shares(sequences):
        bound = (span >> 12) * share
        if bit:
            span = bound
        else:
            low += bound
            span -= bound
        while span < 1 << 24:
            low = _shift(low, code)
            span <<= 8
    for _ in range(4):
        low = _shift(low, code)
    return bytes(code)


def _shares(sequences: Iterable[tuple[Codes, Codes]]) -> Iterator[tuple[int, int]]:
    """For each bit the share of 1 that both sides expect, of SHARES, and the bit."""
    for bits, around in sequences:
        seen = [[1, 1] for _ in range(CONTEXTS)]  # zeros and ones
        for bit, context in zip(bits.tolist(), around.tolist(), strict=True):
            counts = seen[context]
            zeros, ones = counts
            yield min(max(SHARES * ones // (zeros + ones), LEAST_SHARE), SHARES - LEAST_SHARE), bit
            counts[bit] += 2
            if zeros + ones + 2 > MOST_SEEN:
                seen[context] = [(count + 1) // 2 for count in counts]


def _shift(low: int, code: bytearray) -> int:
    """Moves the highest byte of `low` to the code, with the carry that bytes before may owe."""
    if low > LOW_BITS:
        at = len(code) - 1
        while code[at] == 0xFF:
            code[at] = 0
            at -= 1
        code[at] += 1
    code.append(low >> 24 & 0xFF)
    return low << 8 & LOW_BITS
