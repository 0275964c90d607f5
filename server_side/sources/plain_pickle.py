"""Reads a pickle of a dict of byte arrays, lists, bytes, str and ints, as the CIFAR files are, and runs nothing of it.

The three names of numpy that such a stream asks for are answered by stand-ins which only check and copy bytes; every
other name is refused, so no pickle can import, call or change anything.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def load_plain(content: bytes) -> dict[str, Any]:
    """Keys become text; so does nothing else: Python 2 wrote its strings as bytes. Raises pickle.UnpicklingError, or
    whatever a damaged stream leads to."""
    result = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(result, dict):
        raise pickle.UnpicklingError(f"holds {type(result).__name__}, not a dict")
    return {_text(key): value.values if isinstance(value, _Array) else value for key, value in result.items()}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ARRAY_MODULES:
            return _BEGIN_ARRAY
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _NDARRAY if name == "ndarray" else _DTYPE
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which no data file needs")


class _Name:
    """What a stream gets for a name: it can be called, but has no attribute that a stream could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("changes a name of numpy")


class _Type:
    """A dtype in the stream, `dtype('u1', 0, 1)`, whose state says nothing more."""

    __slots__ = ()

    def __init__(self, code: str | bytes, *_: Any) -> None:
        if _text(code) != "u1":
            raise pickle.UnpicklingError(f"holds an array of {_text(code)}, not of bytes (u1)")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass


class _Array:
    """An array in the stream: `_reconstruct(ndarray, (0,), 'b')`, then its shape, type, order and bytes."""

    __slots__ = ("values",)

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind is not _NDARRAY:
            raise pickle.UnpicklingError("holds an array of another kind")
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("holds an array without its type or its bytes")
        if len(content) != math.prod(shape):
            raise pickle.UnpicklingError(f"holds {len(content)} bytes for an array of shape {shape}")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _no_instance(*_: Any) -> Any:
    raise pickle.UnpicklingError("calls numpy.ndarray")


_BEGIN_ARRAY, _NDARRAY, _DTYPE = _Name(_Array), _Name(_no_instance), _Name(_Type)


def _text(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("ascii")
    if isinstance(key, str):
        return key
    raise pickle.UnpicklingError(f"names something by {type(key).__name__}, not by text")
