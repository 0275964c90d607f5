"""`idx:DIR`: the four original files of MNIST, Fashion-MNIST and the like, gzipped or not.

`?first_label=1` reads labels that count from 1. Refuses files that are not whole.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from server_side.errors import UsageError
from server_side.sources.source import Array, Samples, Source

IDX_OPTIONS = ("first_label",)
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def read_idx(source: Source) -> Samples:
    directory = Path(source.path)
    x, y, x_test, y_test = (_array(_file(source, directory, name)) for name in FILES)
    first = source.whole("first_label", 0, 0)
    return Samples(f"idx:{directory.resolve().name}", x, y, x_test, y_test, first_label=first)


def _file(source: Source, directory: Path, name: str) -> Path:
    for candidate in (f"{name}-ubyte.gz", f"{name}-ubyte", f"{name.replace('-idx', '.idx')}-ubyte"):
        if (directory / candidate).is_file():
            return directory / candidate
    raise source.error(f"no file {name}-ubyte.gz; it must hold the four original IDX files")


def _array(path: Path) -> Array:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
        if zeros or kind not in TYPES:
            raise ValueError("not an IDX header")
        return np.frombuffer(content, TYPES[kind], offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UsageError(f"'{path}' is not a whole IDX file: {error}; download it again") from error
