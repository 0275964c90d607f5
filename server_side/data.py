"""Labelled data for a search, read by server_side/sources, checked and split.

Samples stay in the units of their source; the split computes the normalisation that the ticket's card carries to the
devices. The test part is never used to choose anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError
from server_side.seeds import generator
from server_side.sources.cifar import read_cifar10, read_cifar100
from server_side.sources.download import DOWNLOAD_OPTIONS, Tell, read_download
from server_side.sources.idx import IDX_OPTIONS, read_idx
from server_side.sources.images import IMAGE_OPTIONS, read_images
from server_side.sources.npz import NPZ_OPTIONS, read_npz, samples_of
from server_side.sources.source import Samples, Source, parse
from server_side.sources.tables import TABLE_OPTIONS, read_table
from server_side.sources.user_code import call, import_object, read_function

__all__ = ["Dataset", "Split", "call", "dataset_of", "import_object", "load_data", "split"]

Array = NDArray[Any]
ARRAYS = "arrays"  # the name of data that are given as such, in Python
TEST_SHARE = 0.2  # held out, by class, where a source has no test part of its own

READERS: Mapping[str, tuple[Callable[[Source], Samples], tuple[str, ...]]] = {
    "idx": (read_idx, IDX_OPTIONS),
    "npz": (read_npz, NPZ_OPTIONS),
    "cifar10": (read_cifar10, ()),
    "cifar100": (read_cifar100, ()),
    "images": (read_images, IMAGE_OPTIONS),
    "table": (read_table, TABLE_OPTIONS),
}
EXPECTED = "digits, idx:DIR, npz:FILE, cifar10:DIR, cifar100:DIR, images:DIR, table:FILE, download:NAME or package.module:function"


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
    by_feature: bool = False  # whether each entry of a sample's first dimension is normalised by itself

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all samples, classes and their names, hexadecimal."""
        digest = hashlib.sha256(repr((self.labels, self.by_feature)).encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """What a search trains on: normalised float32 samples and int64 labels, and how they were normalised.

    `x = (raw - mean) * inverse_std`, in float32, per channel of (channels, height, width) samples, per feature of a
    table, else one for all.
    """

    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]


def load_data(source: str, split_seed: int = 0, tell: Tell = lambda line: None) -> Dataset:
    """Reads `source`; raises UsageError naming what is wrong with it. `split_seed` only splits off a missing test part;
    `tell` hears a line for each file that is fetched."""
    return _dataset(_read(source, tell), split_seed)


def dataset_of(arrays: Mapping[str, Any], split_seed: int = 0) -> Dataset:
    """The same of arrays under the keys of an npz file."""
    return _dataset(samples_of(Source(ARRAYS, ARRAYS, {}), ARRAYS, arrays), split_seed)


def _read(source: str, tell: Tell) -> Samples:
    kind = source.partition(":")[0]
    if source == "digits":
        return _digits()
    if ":" not in source:
        raise UsageError(f"data '{source}': expected {EXPECTED}")
    if kind == "download":
        return read_download(parse(source, DOWNLOAD_OPTIONS), tell)
    if kind in READERS:
        read, options = READERS[kind]
        return read(parse(source, options))
    return read_function(Source(source, source, {}))


def split(data: Dataset, validation: float, split_seed: int) -> Split:
    """Takes `validation` samples (a count if >= 1, else a share) from the training part, at random, for early stopping."""
    count = round(validation) if validation >= 1 else round(validation * len(data.x_train))
    if not 1 <= count < len(data.x_train):
        raise UsageError(
            f"validation {validation}: leaves {len(data.x_train) - count} of {len(data.x_train)} samples to train"
        )
    order = generator(split_seed, "validation").permutation(len(data.x_train))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    mean, inverse_std = _normalisation(data.x_train[kept], data.by_feature or data.x_train.ndim == 4)

    def normalised(x: Array) -> Array:
        wide = (-1,) + (1,) * (x.ndim - 2)
        with np.errstate(over="ignore", invalid="ignore"):
            result = x.astype(np.float32)
            result -= mean.reshape(wide)  # in place: a set of pictures is gigabytes as float32
            result *= inverse_std.reshape(wide)
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


def _normalisation(x: Array, by_feature: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    channels = [x[:, channel] for channel in range(x.shape[1])] if by_feature else [x]
    mean = np.array([channel.mean(dtype=np.float64) for channel in channels]).astype(np.float32)
    std = np.array([channel.std(dtype=np.float64) for channel in channels])
    with np.errstate(over="ignore", divide="ignore"):
        return mean, (1.0 / np.where(std > 0, std, 1.0)).astype(np.float32)


def _digits() -> Samples:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Samples("digits", bunch.images.astype(np.uint8), bunch.target.astype(np.int64))


def _dataset(found: Samples, split_seed: int) -> Dataset:
    """Checks every part of it, and holds out a test part where there is none."""
    parts = [("train", found.x, found.y)]
    if found.x_test is not None and found.y_test is not None:
        parts.append(("test", found.x_test, found.y_test))
    for part, x, y in parts:
        _check_part(found, part, x, y)
    labels = _labels(found)
    checked = [(_as_float32(found.name, part, x), _numbers(found, part, y, labels)) for part, x, y in parts]
    (x, y), (x_test, y_test) = (
        checked if len(checked) == 2 else _with_test_part(found.name, *checked[0], labels, split_seed)
    )
    if x.shape[1:] != x_test.shape[1:]:
        raise UsageError(f"data '{found.name}': training samples {x.shape[1:]} but test samples {x_test.shape[1:]}")
    return Dataset(found.name, x, y, x_test, y_test, labels, found.by_feature)


def _check_part(found: Samples, part: str, x: Array, y: Array) -> None:
    where = f"data '{found.name}', {part} part"
    if x.ndim < 2 or not x.size:
        raise UsageError(f"{where}: x has shape {x.shape}; expected (samples, ...) with at least one sample")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UsageError(f"{where}: x is {x.dtype}; expected uint8 or float")
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise UsageError(f"{where}: y is {y.dtype} of shape {y.shape}; expected {len(x)} integers")
    if int(y.min()) < found.first_label:
        raise UsageError(f"{where}: label {int(y.min())}; labels count from {found.first_label}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise UsageError(
            f"{where}: sample {int(np.argwhere(~np.isfinite(x))[0][0])} holds NaN or infinity; clean the data"
        )


def _labels(found: Samples) -> tuple[str, ...]:
    """The names of all classes: those it came with, else the numbers up to the largest of the training part."""
    where = f"data '{found.name}'"
    first, low, high = found.first_label, int(found.y.min()), int(found.y.max())
    if found.labels is None and low > first:
        raise UsageError(
            f"{where}: labels {low}..{high} in the training part, but they count from {first}; say ?first_label={low} (idx "
            "and npz), or count from 0"
        )
    count = high - first + 1 if found.labels is None else len(found.labels)
    if not 2 <= count <= len(found.y):
        raise UsageError(
            f"{where}: {count} classes for {len(found.y)} samples to train; expected two at least, and fewer"
        )
    labels = found.labels or tuple(str(label) for label in range(first, high + 1))
    if len(set(labels)) < count or not all(label and label.isprintable() for label in labels):
        raise UsageError(f"{where}: classes without a printable name or with the same one; give each a name of its own")
    return labels


def _numbers(found: Samples, part: str, y: Array, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Class numbers from 0, each with a label."""
    last = found.first_label + len(labels) - 1
    if int(y.max()) > last:
        raise UsageError(
            f"data '{found.name}', {part} part: label {int(y.max())}, but the classes are {found.first_label}..{last}"
        )
    return y.astype(np.int64) - found.first_label


Part = tuple[Array, NDArray[np.int64]]


def _with_test_part(
    name: str, x: Array, y: NDArray[np.int64], labels: tuple[str, ...], split_seed: int
) -> tuple[Part, Part]:
    """Holds out TEST_SHARE of every class, rounded up, at random."""
    order = generator(split_seed, "test").permutation(len(y))
    ranks = np.zeros(len(y))
    for label in np.unique(y):
        members = order[y[order] == label]
        if len(members) == 1:
            raise UsageError(
                f"data '{name}': class '{labels[label]}' has a single sample, which cannot both train and test; add some, or "
                "leave it out"
            )
        ranks[members] = np.arange(len(members)) / len(members)
    test = ranks < TEST_SHARE
    return (x[~test], y[~test]), (x[test], y[test])


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
