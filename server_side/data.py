"""Labelled data for a search: `digits`, `idx:DIR`, `npz:FILE` or `package.module:function`, checked and split.

Samples stay in the units of their source; the split computes the normalisation that the ticket's card carries to the
devices. The test part is never used to choose anything.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import struct
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError
from server_side.seeds import generator

Array = NDArray[Any]
TEST_SHARE = 0.2  # held out, by class, where a source has no test part of its own
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass(frozen=True)
class Dataset:
    """x (n, *shape) uint8 or float32, y (n,) int64 in 0..classes-1, in the raw units of the source. `name` has no path:
    it is the same on every machine."""

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    labels: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all samples and labels, hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """What a search trains on: normalised float32 samples and int64 labels, and how they were normalised.

    `x = (raw - mean) * inverse_std`, in float32, per channel of (channels, height, width) samples, else one for all.
    """

    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]


def load_data(source: str, split_seed: int = 0) -> Dataset:
    """Reads `source`; raises UsageError naming what is wrong with it. `split_seed` only splits off a missing test part."""
    if source == "digits":
        return _with_test_part(source, *_digits(), split_seed)
    if source.startswith("idx:"):
        return _idx(Path(source[4:]))
    if source.startswith("npz:"):
        path = Path(source[4:])
        return replace(_from_mapping(source, _npz(path), split_seed), name=f"npz:{path.name}")
    if ":" in source:
        return _from_mapping(source, _call(source), split_seed)
    raise UsageError(f"data '{source}': expected digits, idx:DIR, npz:FILE or package.module:function")


def split(data: Dataset, validation: float, split_seed: int) -> Split:
    """Takes `validation` samples (a count if >= 1, else a share) from the training part, at random, for early stopping."""
    count = round(validation) if validation >= 1 else round(validation * len(data.x_train))
    if not 1 <= count < len(data.x_train):
        raise UsageError(
            f"validation {validation}: leaves {len(data.x_train) - count} of {len(data.x_train)} samples to train"
        )
    order = generator(split_seed, "validation").permutation(len(data.x_train))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    mean, inverse_std = _normalisation(data.x_train[kept])

    def normalised(x: Array) -> Array:
        wide = (-1,) + (1,) * (x.ndim - 2)
        with np.errstate(over="ignore", invalid="ignore"):
            result: Array = (x.astype(np.float32) - mean.reshape(wide)) * inverse_std.reshape(wide)
        if not (np.isfinite(result).all() and np.isfinite(inverse_std).all() and (inverse_std > 0).all()):
            raise UsageError(
                f"data '{data.name}': samples of {x.min():g} to {x.max():g} cannot be normalised in "
                "float32; scale them to the order of 1"
            )
        return result

    return Split(
        normalised(data.x_train[kept]),
        data.y_train[kept],
        normalised(data.x_train[held]),
        data.y_train[held],
        normalised(data.x_test),
        data.y_test,
        mean,
        inverse_std,
    )


def _normalisation(x: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    axes = (0, 2, 3) if x.ndim == 4 else None
    mean = np.atleast_1d(x.mean(axis=axes, dtype=np.float64)).astype(np.float32)
    std = np.atleast_1d(x.std(axis=axes, dtype=np.float64))
    with np.errstate(over="ignore", divide="ignore"):
        return mean, (1.0 / np.where(std > 0, std, 1.0)).astype(np.float32)


def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def _idx(directory: Path) -> Dataset:
    parts = [
        _read_idx(_idx_file(directory, name))
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ]
    return _checked(f"idx:{directory.resolve().name}", *parts)


def _idx_file(directory: Path, name: str) -> Path:
    for candidate in (f"{name}-ubyte.gz", f"{name}-ubyte", f"{name.replace('-idx', '.idx')}-ubyte"):
        if (directory / candidate).is_file():
            return directory / candidate
    raise UsageError(f"data 'idx:{directory}': no file {name}-ubyte.gz; it must hold the four original IDX files")


def _read_idx(path: Path) -> Array:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
        if zeros or kind not in IDX_TYPES:
            raise ValueError("not an IDX header")
        return np.frombuffer(content, IDX_TYPES[kind], offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UsageError(f"'{path}' is not a whole IDX file: {error}; download it again") from error


def _npz(path: Path) -> dict[str, Array]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UsageError(f"data 'npz:{path}': {error.strerror}; name an npz file of x and y") from error
    except Exception as error:  # numpy raises many kinds for damaged archives
        raise UsageError(
            f"data 'npz:{path}': not a whole npz file of plain arrays; write it with numpy.savez(file, x=x, y=y)"
        ) from error


def _call(source: str) -> dict[str, Any]:
    result = call(import_object(source, "data"), source, "data")
    if isinstance(result, tuple) and len(result) == 2:
        result = {"x": result[0], "y": result[1]}
    if not isinstance(result, dict):
        raise UsageError(f"data '{source}': returned {type(result).__name__}, expected (x, y) or a dict with x and y")
    return result


def import_object(source: str, what: str) -> Any:
    """The object named `package.module:name`; UsageError if there is none."""
    module_name, _, attribute = source.partition(":")
    try:
        module = importlib.import_module(module_name) if module_name else None
    except ImportError as error:
        raise UsageError(f"{what} '{source}': {error}; expected package.module:name, importable from here") from error
    except Exception as error:  # whatever the module does when it is imported
        raise _raised(source, what, error) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"{what} '{source}': module '{module_name}' has no '{attribute}'; expected package.module:name"
        )
    return getattr(module, attribute)


def call(function: Callable[[], Any], source: str, what: str) -> Any:
    """What `function`, the user's own at `source`, returns; UsageError, with the place, where it raises."""
    try:
        return function()
    except Exception as error:
        raise _raised(source, what, error) from error


def _raised(source: str, what: str, error: Exception) -> UsageError:
    """Names the line of the user's code at which it ended."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    file, line, text = place.filename, place.lineno, str(error)
    if isinstance(error, SyntaxError):
        file, line, text = error.filename or source, error.lineno, error.msg
    return UsageError(f"{what} '{source}': {type(error).__name__}: {text} (in {file}, line {line}); mend it")


def _from_mapping(name: str, arrays: dict[str, Any], split_seed: int) -> Dataset:
    if missing := [key for key in ("x", "y") if key not in arrays]:
        raise UsageError(f"data '{name}': no array '{missing[0]}'; it has {', '.join(sorted(arrays)) or 'none'}")
    x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"])
    half = [key for key in ("x_test", "y_test") if key in arrays]
    if len(half) == 1:
        other = {"x_test": "y_test", "y_test": "x_test"}[half[0]]
        raise UsageError(f"data '{name}': {half[0]} without {other}; give both, or neither and a test part is held out")
    if half:
        return _checked(name, x, y, np.asarray(arrays["x_test"]), np.asarray(arrays["y_test"]))
    return _with_test_part(name, x, y, split_seed)


def _with_test_part(name: str, x: Array, y: Array, split_seed: int) -> Dataset:
    """Holds out TEST_SHARE of every class, rounded up, at random."""
    _check_part(name, "train", x, y)
    order = generator(split_seed, "test").permutation(len(y))
    ranks = np.zeros(len(y))
    for label in np.unique(y):
        members = order[y[order] == label]
        ranks[members] = np.arange(len(members)) / len(members)
    test = ranks < TEST_SHARE
    return _checked(name, x[~test], y[~test], x[test], y[test])


def _checked(name: str, x_train: Array, y_train: Array, x_test: Array, y_test: Array) -> Dataset:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_part(name, part, x, y)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UsageError(f"data '{name}': training samples {x_train.shape[1:]} but test samples {x_test.shape[1:]}")
    classes = int(y_train.max()) + 1
    if classes < 2 or int(y_test.max()) >= classes:
        raise UsageError(
            f"data '{name}': labels 0..{classes - 1} in the training part, up to {int(y_test.max())} in the test part"
        )
    x_train, x_test = _as_float32(name, "train", x_train), _as_float32(name, "test", x_test)
    labels = tuple(str(label) for label in range(classes))
    return Dataset(name, x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), labels)


def _check_part(name: str, part: str, x: Array, y: Array) -> None:
    where = f"data '{name}', {part} part"
    if x.ndim < 2 or not len(x):
        raise UsageError(f"{where}: x has shape {x.shape}; expected (samples, ...) with at least one sample")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UsageError(f"{where}: x is {x.dtype}; expected uint8 or float")
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise UsageError(f"{where}: y is {y.dtype} of shape {y.shape}; expected {len(x)} integers")
    if int(y.min()) < 0:
        raise UsageError(f"{where}: label {int(y.min())}; labels count from 0")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise UsageError(
            f"{where}: sample {int(np.argwhere(~np.isfinite(x))[0][0])} holds NaN or infinity; clean the data"
        )


def _as_float32(name: str, part: str, x: Array) -> Array:
    """uint8 as it is; refuses what is finite in a wider type alone."""
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    if not np.isfinite(narrow).all():
        place = tuple(int(n) for n in np.argwhere(~np.isfinite(narrow))[0])
        raise UsageError(
            f"data '{name}', {part} part: sample {place[0]} holds {x[place]:g}, beyond float32; scale the data"
        )
    return narrow
