"""The device's own samples: one npz file of plain arrays, checked before any training.

Keys: `x` (n, ...) uint8 or float, `y` (n,) whole numbers, and if present `user` (n,), `x_test`, `y_test`. Nothing is
unpickled. Values are in the raw units of the training data; the artifact carries the normalisation.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from device_runtime.errors import InvalidInput

Array = NDArray[Any]

_ROWS = 1024  # checked at a time, so that a large set needs no second copy


@dataclass(frozen=True)
class Data:
    """Samples `x` with labels `y` (None where none were asked for), their `user`, and a part kept for testing."""

    x: Array
    y: Array | None = None
    user: Array | None = None
    x_test: Array | None = None
    y_test: Array | None = None

    @property
    def labels(self) -> Array:
        """`y`, where it must be there."""
        if self.y is None:
            raise InvalidInput("key 'y' is missing; training needs labels")
        return self.y


def load_npz(path: str | os.PathLike[str], *, labels: bool = True) -> Data:
    """Reads and checks `path`; with `labels=False` the samples alone. Raises InvalidInput or OSError."""
    name = os.fspath(path)
    arrays = _read_arrays(name, ("x", "y", "user", "x_test", "y_test") if labels else ("x", "x_test"))
    if labels and ("x_test" in arrays) != ("y_test" in arrays):
        raise InvalidInput(f"'{name}': x_test and y_test belong together; give both or none")
    for key in {"x", "x_test"} & set(arrays):
        check_samples(arrays[key], f"'{name}': {key}")
    for key, of in (("y", "x"), ("y_test", "x_test")):
        if key in arrays:
            check_labels(arrays[key], len(arrays[of]), f"'{name}': {key}")
    if "user" in arrays:
        _check_users(arrays["user"], len(arrays["x"]), f"'{name}': user")
    return Data(arrays["x"], *(arrays.get(key) for key in ("y", "user", "x_test", "y_test")))


def check_samples(x: Array, what: str) -> None:
    """Raises InvalidInput unless `x` is a non-empty array of samples, uint8 or float, with every value finite."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InvalidInput(f"{what} has dtype {x.dtype}; give uint8 or float samples")
    if x.ndim < 2:
        raise InvalidInput(f"{what} has shape {x.shape}; the first dimension counts samples, so give (n, ...)")
    if x.size == 0:
        raise InvalidInput(f"{what} is empty, shape {x.shape}; give at least one sample")
    check_finite(x, what)


def check_finite(x: Array, what: str) -> None:
    """Raises InvalidInput naming the first sample of `x`, (n, ...), that is not finite."""
    if x.dtype.kind == "f":
        for start in range(0, len(x), _ROWS):
            finite = np.isfinite(x[start : start + _ROWS].reshape(-1, x[0].size)).all(axis=1)
            if not finite.all():
                at = start + int(np.argmin(finite))
                raise InvalidInput(f"{what}[{at}] holds NaN or infinite values; leave it out")


def check_labels(y: Array, count: int, what: str, class_count: int | None = None) -> None:
    """Raises InvalidInput unless `y` is a whole number for each of `count` samples, in [0, class_count) if given."""
    if y.dtype.kind not in "iu":
        raise InvalidInput(f"{what} has dtype {y.dtype}; labels are whole numbers, so give y.astype('int32')")
    if y.shape != (count,):
        raise InvalidInput(f"{what} has shape {y.shape} but there are {count} samples; give one label a sample")
    if class_count is not None and y.dtype == np.int32:
        outside = (
            y.view(np.uint32) >= class_count
        )  # negative ones are the largest: one comparison in every training step
    else:
        outside = y < 0 if class_count is None else (y < 0) | (y >= class_count)
    if outside.any():
        at = int(np.argmax(outside))
        limit = "0 or more" if class_count is None else f"in 0..{class_count - 1}"
        raise InvalidInput(f"{what}[{at}] is {y[at]}, but the labels of this network are {limit}")


def _check_users(user: Array, count: int, what: str) -> None:
    if user.dtype.kind not in "iuU":
        raise InvalidInput(f"{what} has dtype {user.dtype}; give whole numbers or strings")
    if user.shape != (count,):
        raise InvalidInput(f"{what} has shape {user.shape} but there are {count} samples; give one user a sample")


def _read_arrays(name: str, keys: tuple[str, ...]) -> dict[str, Array]:
    try:
        with open(name, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise InvalidInput(f"'{name}' holds a single array; write it with numpy.savez(file, x=x, y=y)")
            for key in keys[: keys.index("x_test")]:
                if key not in archive and key != "user":
                    raise InvalidInput(f"'{name}': key '{key}' is missing; found {', '.join(archive.files) or 'none'}")
            return {key: archive[key] for key in keys if key in archive}
    except InvalidInput:
        raise
    except (ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"'{name}' is no npz file of plain arrays ({error}); write it with numpy.savez") from error


def check_targets(y: Array, count: int, outputs: int) -> NDArray[np.float32]:
    """`y` as float32 (count, outputs); raises InvalidInput unless it is numbers of that shape, or (count,) for one."""
    if y.dtype.kind not in "fiub":
        raise InvalidInput(f"y has dtype {y.dtype}; give numbers")
    shaped = y[:, None] if outputs == 1 and y.ndim == 1 else y
    if shaped.shape != (count, outputs):
        raise InvalidInput(f"y has shape {y.shape} but {count} samples take targets of shape ({count}, {outputs})")
    return np.ascontiguousarray(shaped, np.float32)
