"""`cifar10:PATH` and `cifar100:PATH`: a folder with the files of the binary or the Python version, or their .tar.gz.

Samples are (3, 32, 32) uint8; both versions give the same. CIFAR-100 has its 100 fine classes. Refuses what is not the
whole official set: a subset is `npz:`. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from server_side.sources.plain_pickle import load_plain
from server_side.sources.source import Array, Samples, Source

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Form:
    """How the files of a set are called and what they hold; `label_bytes` of a binary record end with the class."""

    name: str
    train: tuple[str, ...]
    test: str
    train_records: int  # of each file
    test_records: int
    classes: int
    label_bytes: int
    names_file: str
    meta_file: str
    labels_key: str
    names_key: str

    @property
    def binary_files(self) -> list[str]:
        return [f"{stem}.bin" for stem in (*self.train, self.test)] + [self.names_file]

    @property
    def python_files(self) -> list[str]:
        return [*self.train, self.test, self.meta_file]


CIFAR10 = Form(
    "cifar10",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    train_records=10_000,
    test_records=10_000,
    classes=10,
    label_bytes=1,
    names_file="batches.meta.txt",
    meta_file="batches.meta",
    labels_key="labels",
    names_key="label_names",
)
CIFAR100 = Form(
    "cifar100",
    ("train",),
    "test",
    train_records=50_000,
    test_records=10_000,
    classes=100,
    label_bytes=2,
    names_file="fine_label_names.txt",
    meta_file="meta",
    labels_key="fine_labels",
    names_key="fine_label_names",
)


def read_cifar10(source: Source) -> Samples:
    return _read(source, CIFAR10)


def read_cifar100(source: Source) -> Samples:
    return _read(source, CIFAR100)


def _read(source: Source, form: Form) -> Samples:
    files = _files(source, Path(source.path), {*form.binary_files, *form.python_files})
    is_binary = form.binary_files[0] in files
    wanted = form.binary_files if is_binary else form.python_files
    if missing := [name for name in wanted if name not in files]:
        raise source.error(
            f"no file {missing[0]}; name the folder or the .tar.gz of the whole set, binary or Python version"
        )
    part = _binary_part if is_binary else _python_part
    parts = [part(source, form, stem, files, form.train_records) for stem in form.train]
    x_test, y_test = part(source, form, form.test, files, form.test_records)
    names = (_binary_names if is_binary else _python_names)(source, form, files)
    if len(names) != form.classes:
        raise source.error(f"{wanted[-1]} names {len(names)} classes, not {form.classes}; download it again")
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Samples(form.name, x, y, x_test, y_test, names)


def _files(source: Source, path: Path, wanted: set[str]) -> Mapping[str, bytes]:
    """Those of `wanted` that are in the folder or archive `path`."""
    try:
        if path.is_dir():
            return {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
        files: dict[str, bytes] = {}
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile() and (name := PurePosixPath(member.name).name) in wanted:
                    content = archive.extractfile(member)
                    files[name] = content.read() if content else b""
        return files
    except FileNotFoundError as error:
        raise source.error("no such folder or file; name the set's folder or its .tar.gz") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise source.error(f"cannot be read: {error}; name the set's folder or its whole .tar.gz") from error


def _binary_part(
    source: Source, form: Form, stem: str, files: Mapping[str, bytes], records: int
) -> tuple[Array, Array]:
    content, size = files[f"{stem}.bin"], form.label_bytes + PIXELS
    if len(content) != records * size:
        raise source.error(
            f"{stem}.bin has {len(content)} bytes, but {records} records have {records * size}; download it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(records, size)
    y = rows[:, form.label_bytes - 1]
    _check_labels(source, form, f"{stem}.bin", y)
    return rows[:, form.label_bytes :].reshape(-1, 3, 32, 32), y.astype(np.int64)


def _python_part(
    source: Source, form: Form, stem: str, files: Mapping[str, bytes], records: int
) -> tuple[Array, Array]:
    found = _unpickled(source, stem, files)
    x, labels = found.get("data"), found.get(form.labels_key)
    if not (isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.shape == (records, PIXELS)):
        what = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise source.error(f"{stem}: data is {what}; expected uint8 of shape ({records}, {PIXELS}), download it again")
    if not isinstance(labels, list) or len(labels) != records or not all(type(label) is int for label in labels):
        raise source.error(f"{stem}: {form.labels_key} is no list of {records} whole numbers; download it again")
    y = np.array([label if 0 <= label < form.classes else -1 for label in labels], np.int64)
    _check_labels(source, form, stem, y)
    return x.reshape(-1, 3, 32, 32), y


def _check_labels(source: Source, form: Form, file: str, y: Array) -> None:
    wrong = np.flatnonzero((y < 0) | (y >= form.classes))
    if len(wrong):
        raise source.error(
            f"{file}: record {wrong[0]} has a label that is none of {form.classes} classes; download it again"
        )


def _binary_names(source: Source, form: Form, files: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(files[form.names_file].decode("utf-8", "replace").split())


def _python_names(source: Source, form: Form, files: Mapping[str, bytes]) -> tuple[str, ...]:
    names = _unpickled(source, form.meta_file, files).get(form.names_key)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise source.error(f"{form.meta_file}: {form.names_key} is no list of names; download it again")
    return tuple(name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names)


def _unpickled(source: Source, stem: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        return load_plain(files[stem])
    except Exception as error:  # a damaged pickle leads anywhere
        raise source.error(f"{stem} is no pickle of plain data: {error}; download it again") from error
