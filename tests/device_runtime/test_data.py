"""The npz files a device may be given, and those it refuses by name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import InvalidInput, load_npz

X = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_everything_there_is_read(tmp_path: Path) -> None:
    users = np.array(["ann", "bob", "ann", "bob", "ann", "bob"])
    data = load_npz(write(tmp_path / "d.npz", x=X, y=Y, user=users, x_test=X[:2] / 2.0, y_test=Y[:2], other=X))
    assert data.x.dtype == np.uint8
    assert data.x.tobytes() == X.tobytes()
    assert data.labels.tolist() == Y.tolist()
    assert data.user is not None
    assert data.user.tolist() == users.tolist()
    assert data.x_test is not None
    assert data.x_test.shape == (2, 2, 2)


def test_labels_may_be_absent_where_none_are_needed(tmp_path: Path) -> None:
    data = load_npz(write(tmp_path / "d.npz", x=X), labels=False)
    assert data.y is None
    with pytest.raises(InvalidInput, match="'y' is missing"):
        _ = data.labels


NAN = X / 1.0
NAN[4, 0, 0] = np.nan
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no x": ({"images": X, "y": Y}, "key 'x' is missing; found images, y"),
    "no y": ({"x": X}, "key 'y' is missing; found x"),
    "nothing": ({}, "found none"),
    "empty": ({"x": X[:0], "y": Y[:0]}, r"x is empty, shape \(0, 2, 2\)"),
    "x whole numbers": ({"x": X.astype(int), "y": Y}, "x has dtype int64"),
    "x a row": ({"x": X.ravel(), "y": Y}, r"x has shape \(24,\)"),
    "x NaN": ({"x": NAN, "y": Y}, r"x\[4\] holds NaN or infinite values"),
    "x infinite": ({"x": X + np.inf, "y": Y}, r"x\[0\] holds NaN or infinite values"),
    "y floats": ({"x": X, "y": Y / 1.0}, "y has dtype float64"),
    "y too short": ({"x": X, "y": Y[:5]}, r"y has shape \(5,\) but there are 6 samples"),
    "y negative": ({"x": X, "y": Y - 1}, r"y\[0\] is -1"),
    "y a matrix": ({"x": X, "y": np.eye(6, dtype=int)}, r"y has shape \(6, 6\)"),
    "user floats": ({"x": X, "y": Y, "user": Y / 1.0}, "user has dtype float64"),
    "user too short": ({"x": X, "y": Y, "user": Y[:2]}, r"user has shape \(2,\)"),
    "y_test alone": ({"x": X, "y": Y, "y_test": Y}, "belong together"),
    "x_test alone": ({"x": X, "y": Y, "x_test": X}, "belong together"),
    "x_test NaN": ({"x": X, "y": Y, "x_test": NAN, "y_test": Y}, "x_test.4. holds NaN"),
    "y_test too long": ({"x": X, "y": Y, "x_test": X[:1], "y_test": Y}, r"y_test has shape \(6,\) but there are 1"),
    "objects": ({"x": X, "y": np.array([None] * 6)}, "is no npz file of plain arrays"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    arrays, message = BAD[name]
    path = write(tmp_path / "d.npz", **arrays)
    with pytest.raises(InvalidInput, match=message) as caught:
        load_npz(path)
    assert "d.npz" in str(caught.value)


def test_a_late_nan_is_found_in_a_large_set(tmp_path: Path) -> None:
    x = np.zeros((2500, 3))
    x[2048, 2] = np.inf
    with pytest.raises(InvalidInput, match=r"x\[2048\]"):
        load_npz(write(tmp_path / "d.npz", x=x, y=np.zeros(2500, int)))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(FileNotFoundError):
        load_npz(path)
    np.save(tmp_path / "single.npy", X)
    good = write(tmp_path / "good.npz", x=X, y=Y).read_bytes()
    texts = (b"", b"hello", good[: len(good) // 2], (tmp_path / "single.npy").read_bytes(), b"PK\3\4" + bytes(40))
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(InvalidInput, match=r"d\.npz"):
            load_npz(path)


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.arange(4000, dtype=np.uint8).reshape(40, 100), y=np.zeros(40, int))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.npy").header_offset + 80
    content[start] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match="is no npz file"):
        load_npz(path)


@pytest.mark.parametrize("field", [(6, 8, 1), (8, 10, 99)], ids=["encrypted", "compressed in another way"])
def test_a_header_that_says_what_cannot_be_is_refused(tmp_path: Path, field: tuple[int, int, int]) -> None:
    path = write(tmp_path / "d.npz", x=X, y=Y)
    content = bytearray(path.read_bytes())
    local, central, value = field  # offsets of the same field in the two headers of a member
    content[content.find(b"PK\3\4") + local] = content[content.find(b"PK\1\2") + central] = value
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"d\.npz' is no npz file"):
        load_npz(path)
