"""The code of PACKED_PATTERN, both ways, by FORMAT.md alone: a bit at a time, the code one large number.

Slow and plain on purpose: what the exporter and the runtime do otherwise must come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence


class Model:
    """What both sides know of the next bit of a parameter."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.bits: list[int] = []
        self.counts = [{0: 1, 1: 1} for _ in range(19)]

    def context(self) -> int:
        p = len(self.bits)
        if 1 not in self.bits[max(p - 64, 0) :]:
            return 18
        above = p - self.line if self.line else -2  # before all bits, like its neighbours
        return 6 * self.ones(p - 1, p - 2) + 3 * self.ones(above) + self.ones(above - 1, above + 1)

    def ones(self, *places: int) -> int:
        return sum(self.bits[place] for place in places if place >= 0)

    def share(self) -> int:
        counts = self.counts[self.context()]
        return min(max(4096 * counts[1] // (counts[0] + counts[1]), 4), 4092)

    def see(self, bit: int) -> None:
        counts = self.counts[self.context()]
        counts[bit] += 2
        if counts[0] + counts[1] > 8192:
            counts[0], counts[1] = (counts[0] + 1) // 2, (counts[1] + 1) // 2
        self.bits.append(bit)


def encode(matrices: Sequence[tuple[Sequence[int], int]]) -> bytes:
    """Of each parameter its bits, row-major, and its line; the bits behind the last 1 need not be there."""
    low, span, size = 0, 2**32 - 1, 4
    for bits, line in matrices:
        model, left = Model(line), sum(bits)
        for bit in bits:
            if left == 0:
                break
            bound = span // 4096 * model.share()
            low, span = (low, bound) if bit else (low + bound, span - bound)
            model.see(bit)
            left -= bit
            while span < 2**24:
                low, span, size = low * 256, span * 256, size + 1
    return low.to_bytes(size, "big")


def decode(code: bytes, matrices: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """The bits of each parameter from its number of places, of 1s, and its line. Asserts that the code ends with them."""
    value, span, taken, found = int.from_bytes(code[:4], "big"), 2**32 - 1, 4, []
    for places, ones, line in matrices:
        model = Model(line)
        while sum(model.bits) < ones:
            assert len(model.bits) < places, "fewer places than listed"
            bound = span // 4096 * model.share()
            bit = int(value < bound)
            value, span = (value, bound) if bit else (value - bound, span - bound)
            model.see(bit)
            while span < 2**24:
                value, span, taken = value * 256 + code[taken], span * 256, taken + 1
        found.append(model.bits + [0] * (places - len(model.bits)))
    assert taken == len(code), "bytes behind the last bit"
    return found
