"""`npz:FILE`: arrays x (or x_train) and y (or y_train), and optionally a test part and the names of the classes.

The test part is x_test and y_test, or `split` (n,) with 0 for training and 1 for test; `labels` names the classes, or
`?labels=KEY` says which array does. `?first_label=1` reads labels that count from 1. Refuses pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server_side.sources.source import Array, Samples, Source

NPZ_OPTIONS = ("first_label", "labels")
KEYS = ("x", "x_train", "y", "y_train", "x_test", "y_test", "split")


def read_npz(source: Source) -> Samples:
    path = Path(source.path)
    return samples_of(source, f"npz:{path.name}", _arrays(source, path))


def _arrays(source: Source, path: Path) -> dict[str, Array]:
    """Those of use; of the others the name alone is read."""
    wanted = (*KEYS, source.options.get("labels", "labels"))
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] if name in wanted else np.empty(0) for name in archive.files}
    except OSError as error:
        raise source.error(f"{error.strerror or error}; name an npz file of x and y") from error
    except Exception as error:  # numpy raises many kinds for damaged archives
        raise source.error("not a whole npz file of plain arrays; write it with numpy.savez(file, x=x, y=y)") from error


def samples_of(source: Source, name: str, arrays: Mapping[str, Any]) -> Samples:
    """Of arrays under the keys above."""
    x, y = _one_of(source, arrays, "x", "x_train"), _one_of(source, arrays, "y", "y_train")
    labels, first = _class_names(source, arrays), source.whole("first_label", 0, 0)
    tested = [key for key in ("x_test", "y_test") if key in arrays]
    if len(tested) == 1:
        other = {"x_test": "y_test", "y_test": "x_test"}[tested[0]]
        raise source.error(f"{tested[0]} without {other}; give both, or neither and a test part is held out")
    if tested and "split" in arrays:
        raise source.error("both x_test and split; keep one of them")
    if tested:
        return Samples(name, x, y, np.asarray(arrays["x_test"]), np.asarray(arrays["y_test"]), labels, first)
    if "split" in arrays:
        train, test = _parts(source, np.asarray(arrays["split"]), x, y)
        return Samples(name, x[train], y[train], x[test], y[test], labels, first)
    return Samples(name, x, y, labels=labels, first_label=first)


def _one_of(source: Source, arrays: Mapping[str, Any], *keys: str) -> Array:
    there = [key for key in keys if key in arrays]
    if not there:
        raise source.error(f"no array '{keys[0]}'; it has {', '.join(sorted(arrays)) or 'none'}")
    if len(there) > 1:
        raise source.error(f"both {' and '.join(there)}; keep one of them")
    return np.asarray(arrays[there[0]])


def _parts(source: Source, split: Array, x: Array, y: Array) -> tuple[Array, Array]:
    if split.dtype.kind not in "iub" or split.ndim != 1 or not np.isin(split, (0, 1)).all():
        raise source.error(f"split is {split.dtype} of shape {split.shape}; expected 0 (training) or 1 (test) a sample")
    if not x.shape[:1] == y.shape[:1] == split.shape:
        raise source.error(f"split has {len(split)} entries for x of shape {x.shape} and y of shape {y.shape}")
    return split == 0, split == 1


def _class_names(source: Source, arrays: Mapping[str, Any]) -> tuple[str, ...] | None:
    key = source.options.get("labels", "labels")
    if key not in arrays:
        if "labels" in source.options:
            raise source.error(f"no array '{key}'; it has {', '.join(sorted(arrays)) or 'none'}")
        return None
    names = np.asarray(arrays[key])
    if names.ndim != 1 or names.dtype.kind != "U":
        raise source.error(f"'{key}' is {names.dtype} of shape {names.shape}; expected the name of each class as text")
    return tuple(str(name) for name in names)
