"""Initial weights that a seed is enough for: which distribution each was drawn from, and the generator that draws it again.

The generator is Philox4x32-10 (Salmon et al. 2011), a value a block, in the arithmetic of FORMAT.md (Drawn values): its bits
are those of the device's runtime. Plain numpy, so that a ticket can be checked without that runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("constant", "uniform", "normal")  # their places are the numbers of the kinds in files and in C
CHUNK = 1 << 18  # elements drawn at a time

Floats = NDArray[np.float32]
_LOG = (-7.63449520e-2, 1.27615750e-1, -1.31601825e-1, 1.42017588e-1, -1.66233569e-1, 2.00012267e-1, -2.50008196e-1, 3.33333313e-1)  # fmt: skip


@dataclass(frozen=True)
class Distribution:
    """`constant`: `a`, with b = 0; `uniform`: evenly from a to b; `normal`: mean a, standard deviation b. Both are rounded to
    float32. Raises ValueError where it is none, or where a draw may overflow."""

    kind: str
    a: float
    b: float = 0.0

    def __post_init__(self) -> None:
        if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (self.a, self.b)):
            raise ValueError(f"{self.kind} of {self.a!r} and {self.b!r}: must be two numbers")
        with np.errstate(over="ignore"):
            a, b = np.float32(self.a), np.float32(self.b)
            bounded = bool(np.isfinite(np.abs(a) + b * np.float32(8)))
        least = a if self.kind == "uniform" else np.float32(0)
        if self.kind not in KINDS or not (bounded and b >= least) or (self.kind == "constant" and b != 0):
            raise ValueError(
                f"{self.kind} of {self.a!r} and {self.b!r}: must be constant (b = 0), uniform (a <= b) or normal (b >= 0)"
            )
        object.__setattr__(self, "a", float(a))
        object.__setattr__(self, "b", float(b))

    @property
    def code(self) -> int:
        """Its kind as a number."""
        return KINDS.index(self.kind)

    def draw(self, seed: int, stream: int, indices: NDArray[np.integer[Any]]) -> Floats:
        """(n,) the elements `indices` (n,) of a stream; `seed` is a u64, the others u32."""
        values = np.empty(len(indices), np.float32)
        for first in range(0, len(indices), CHUNK):
            values[first : first + CHUNK] = self._draw(seed, stream, indices[first : first + CHUNK])
        return values

    def _draw(self, seed: int, stream: int, indices: NDArray[np.integer[Any]]) -> Floats:
        a, b = np.float32(self.a), np.float32(self.b)
        if self.kind == "constant":
            return np.full(len(indices), a)
        word, other = philox(seed, [indices.astype(np.uint64), np.uint64(stream), np.uint64(0), np.uint64(0)])[:2]
        if self.kind == "uniform":
            return _fma(b - a, (word >> 8).astype(np.float32) * np.float32(2**-24), a)
        share = _fma(word.astype(np.float32), np.float32(2**-32), np.float32(2**-33))
        radius = np.sqrt(np.float32(-2) * _log(share))
        return _fma(b, radius * _cos_pi((other + 0.5) * 2.0**-32).astype(np.float32), a)


@dataclass(frozen=True)
class Drawn:
    """Where the initial weights of a network come from: a u64 seed, and for every parameter, in the network's order, its
    distribution. A parameter's place in that order is its stream, and that of an element in it (row-major) its index."""

    seed: int
    distributions: Mapping[str, Distribution]

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed {self.seed!r}: must be a whole number from 0 to 2^64 - 1")
        object.__setattr__(self, "distributions", MappingProxyType(dict(self.distributions)))

    def at(self, name: str, indices: NDArray[np.integer[Any]]) -> Floats:
        """(n,) the elements `indices` (n,) of the parameter `name`."""
        stream = list(self.distributions).index(name)
        return self.distributions[name].draw(self.seed, stream, indices)

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "parameters": [[n, d.kind, d.a, d.b] for n, d in self.distributions.items()]}

    @staticmethod
    def from_json(document: Any) -> Drawn:
        """Raises ValueError where it is not what `to_json` gives, every number in float32."""
        try:
            found = Drawn(document["seed"], {name: Distribution(*rest) for name, *rest in document["parameters"]})
        except (KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from error
        if found.to_json() != document:
            raise ValueError("an unknown key, a parameter named twice, or a number that is not a float32")
        return found


def philox(key: int, counter: list[Any]) -> list[NDArray[np.uint64]]:
    """The four random words (as u64 arrays) of blocks whose four counter words are given."""
    low, high = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    words = counter
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * words[0], np.uint64(0xCD9E8D57) * words[2]
        words = [(second >> shift) ^ words[1] ^ low, second & mask, (first >> shift) ^ words[3] ^ high, first & mask]
        low, high = (low + np.uint64(0x9E3779B9)) & mask, (high + np.uint64(0xBB67AE85)) & mask
    return words


def _fma(a: Any, b: Any, c: Any) -> Floats:
    """a * b + c of float32, rounded once: the f64 sum is rounded to odd (Boldo and Melquiond 2008), then to f32."""
    product, addend = np.float64(a) * np.float64(b), np.float64(c)  # the product is exact
    total = np.atleast_1d(product + addend)
    seen = total - product
    lost = (product - (total - seen)) + (addend - seen)
    bits = total.view(np.int64)
    odd = bits + np.where((lost > 0) == (total > 0), 1, -1)
    return np.where((lost != 0) & (bits & 1 == 0), odd, bits).view(np.float64).astype(np.float32)


def _log(x: Floats) -> Floats:
    """ln x of normal x > 0."""
    shifted = x.view(np.uint32) - np.uint32(0x3F3504F3)
    exponent = (shifted.view(np.int32) >> 23).astype(np.float32)
    f = ((shifted & np.uint32(0x7FFFFF)) + np.uint32(0x3F3504F3)).view(np.float32) - np.float32(1)
    q = np.full_like(f, _LOG[0])
    for coefficient in _LOG[1:]:
        q = _fma(q, f, np.float32(coefficient))
    square = f * f
    low = _fma(square * f, q, exponent * np.float32(1.42860677e-6))
    return _fma(exponent, np.float32(0.693145752), f + _fma(square, np.float32(-0.5), low))


def _cos_pi(t: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """cos(pi t) for t in [0, 1]."""
    y = 3.14159265358979312 * np.where(t > 0.5, 1.0 - t, t)
    z, total = y * y, np.ones_like(y)
    for k in range(11, 0, -1):
        total = 1.0 - total * (z / float((2 * k - 1) * (2 * k)))
    return np.where(t > 0.5, -total, total)
