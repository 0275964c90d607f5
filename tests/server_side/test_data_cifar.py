"""CIFAR: both versions, folders and archives give the same set; damage is named; a pickle can run nothing."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.data import load_data
from server_side.sources import cifar
from server_side.sources.plain_pickle import load_plain
from tests.server_side.sources import refusal

TRAIN, TEST = 20, 10  # records of a file here, instead of 10,000


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, train_records=TRAIN, test_records=TEST))
    monkeypatch.setattr(
        cifar, "CIFAR100", replace(cifar.CIFAR100, train_records=TRAIN * 5, test_records=TEST, classes=5)
    )


def python2_array(x: np.ndarray[Any, Any]) -> bytes:
    """What Python 2 wrote for a matrix of bytes, opcode by opcode."""
    rows, columns = (struct.pack("<H", n) for n in x.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01M"
        + rows + b"M" + columns + b"\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", x.size) + x.tobytes() + b"tb"
    )  # fmt: skip


def python2_list(values: list[int]) -> bytes:
    return b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"


def python2_batch(x: np.ndarray[Any, Any], y: list[int], labels_key: bytes) -> bytes:
    keys = [b"U" + bytes([len(key)]) + key for key in (b"data", labels_key)]
    return b"\x80\x02}q\x01(" + keys[0] + python2_array(x) + keys[1] + python2_list(y) + b"u."


NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": ["apple", "aquarium_fish", "baby", "bear", "beaver"],
}
STEMS = {"cifar10": [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], "cifar100": ["train", "test"]}
FOLDERS = {"binary": "cifar-batches-bin", "python": "cifar-batches-py"}
KINDS = [(kind, version) for kind in NAMES for version in FOLDERS]


def records(kind: str, stem: str) -> tuple[np.ndarray[Any, Any], list[int]]:
    count = TEST if stem.startswith("test") else TRAIN * (5 if kind == "cifar100" else 1)
    x = np.random.default_rng(len(stem) + ord(stem[-1])).integers(0, 256, (count, 3072), np.uint8)
    return x, [int(x[row, 0]) % 5 + 5 * (row % 2) * (kind == "cifar10") for row in range(count)]


def write(folder: Path, kind: str, version: str) -> Path:
    """The files of a small set, as the official ones are laid out."""
    folder = folder / FOLDERS[version]
    folder.mkdir()
    for stem in STEMS[kind]:
        x, y = records(kind, stem)
        if version == "binary":
            labels = [y] if kind == "cifar10" else [[9] * len(y), y]
            (folder / f"{stem}.bin").write_bytes(np.concatenate([np.array(labels, np.uint8).T, x], axis=1).tobytes())
        else:
            key = b"labels" if kind == "cifar10" else b"fine_labels"
            (folder / stem).write_bytes(python2_batch(x, y, key))
    names = NAMES[kind]
    if version == "binary":
        name = "batches.meta.txt" if kind == "cifar10" else "fine_label_names.txt"
        (folder / name).write_text("\n".join(names) + "\n\n")
    else:
        names_key = "label_names" if kind == "cifar10" else "fine_label_names"
        (folder / ("batches.meta" if kind == "cifar10" else "meta")).write_bytes(pickle.dumps({names_key: names}, 2))
    return folder


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("kind", NAMES)
def test_every_version_is_the_same_set(kind: str, tmp_path: Path) -> None:
    folders = [write(tmp_path, kind, version) for version in FOLDERS]
    sets = [load_data(f"{kind}:{path}") for path in [*folders, *map(packed, folders)]]
    assert len({data.fingerprint for data in sets}) == 1
    data = sets[0]
    assert (data.name, data.labels) == (kind, tuple(NAMES[kind]))
    expected = [records(kind, stem) for stem in STEMS[kind]]
    assert np.array_equal(data.x_train.reshape(-1, 3072), np.concatenate([x for x, _ in expected[:-1]]))
    assert data.y_train.tolist() == [label for _, y in expected[:-1] for label in y]
    assert data.x_test.shape == (TEST, 3, 32, 32)
    assert data.y_test.tolist() == expected[-1][1]


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_a_file_that_is_missing_or_cut_is_named(kind: str, version: str, tmp_path: Path) -> None:
    folder = write(tmp_path, kind, version)
    path = folder / (STEMS[kind][0] + (".bin" if version == "binary" else ""))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert STEMS[kind][0] in refusal(f"{kind}:{folder}")
    assert "download it again" in refusal(f"{kind}:{folder}")
    path.unlink()
    assert f"no file {STEMS[kind][0]}" in refusal(f"{kind}:{folder}")


@pytest.mark.parametrize(("kind", "version"), KINDS)
def test_names_of_other_classes_are_refused(
    kind: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(NAMES[kind])
    monkeypatch.setitem(NAMES, kind, [*NAMES[kind], "unicorn"])
    folder = write(tmp_path, kind, version)
    assert f"names {count + 1} classes, not {count}" in refusal(f"{kind}:{folder}")


def test_a_set_is_not_taken_for_another(tmp_path: Path) -> None:
    folder = write(tmp_path, "cifar10", "python")
    assert "no file train" in refusal(f"cifar100:{folder}")
    folder = write(tmp_path, "cifar10", "binary")
    content = bytearray((folder / "data_batch_3.bin").read_bytes())
    content[3073 * 4] = 77
    (folder / "data_batch_3.bin").write_bytes(content)
    assert "data_batch_3.bin: record 4 has a label that is none of 10 classes" in refusal(f"cifar10:{folder}")


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"data": np.zeros((TRAIN, 3071), np.uint8), "labels": [0] * TRAIN}, "data is uint8 of shape (20, 3071)"),
        ({"data": np.zeros((TRAIN, 384), np.int64)}, "holds an array of i8"),
        ({"data": [1, 2], "labels": [0] * TRAIN}, "data is list"),
        ({"labels": [0] * TRAIN}, "data is NoneType"),
        ({"data": np.zeros((TRAIN, 3072), np.uint8), "labels": [0] * 19}, "labels is no list of 20 whole numbers"),
        ({"data": np.zeros((TRAIN, 3072), np.uint8), "labels": ["0"] * TRAIN}, "labels is no list of 20"),
        ({"data": np.zeros((TRAIN, 3072), np.uint8), "labels": [10**30] * TRAIN}, "record 0 has a label"),
        ({"data": np.zeros((TRAIN, 3072), np.uint8), "labels": [0] * 19 + [-1]}, "record 19 has a label"),
        ([1, 2], "holds list, not a dict"),
        ({"data": np.zeros(3, np.float32)}, "holds an array of f4"),
        ({"data": np.zeros(3, object)}, "holds an array of O8"),
        ({1: 2}, "names something by int"),
    ],
)
def test_a_batch_of_another_kind_is_refused(batch: Any, text: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "cifar10", "python")
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch, 4))
    line = refusal(f"cifar10:{folder}")
    assert "data_batch_2" in line
    assert text in line


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_whatever_their_order(order: Any, protocol: int) -> None:
    x = np.asarray(np.arange(6, dtype=np.uint8).reshape(2, 3), order=order)
    found = load_plain(pickle.dumps({"x": x, "text": "a", "bytes": b"b", "list": [1]}, protocol))
    assert np.array_equal(found["x"], x)
    assert (found["text"], found["bytes"], found["list"]) == ("a", b"b", [1])


class Attack:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


NDARRAY = b"cnumpy\nndarray\n"
BEGIN = b"cnumpy.core.multiarray\n_reconstruct\n"
ATTACKS: list[tuple[bytes, str]] = [
    (pickle.dumps({"x": Attack(os.system, "touch pwned")}), "asks for posix.system"),
    (pickle.dumps({"x": Attack(eval, "1")}), "asks for builtins.eval"),
    (pickle.dumps({"x": Attack(getattr, "a", "b")}, 2), "asks for __builtin__.getattr"),
    (pickle.dumps({"x": Attack(np.frombuffer, b"abc")}), "asks for numpy.frombuffer"),
    (pickle.dumps({"x": np.float64}), "asks for numpy.float64"),
    (pickle.dumps({"x": io.BytesIO(b"a")}), "asks for _io.BytesIO"),
    (b"Vos\nVsystem\n\x93.", "asks for os.system"),
    (b"cserver_side.sources.plain_pickle\n_Array\n.", "asks for server_side"),
    (b"(ios\nsystem\n.", "asks for os.system"),
    (NDARRAY + b"K\x03\x85R.", "calls numpy.ndarray"),
    (NDARRAY + b"}X\x01\x00\x00\x00aK\x01sb.", "changes a name of numpy"),
    (BEGIN + b"N}X\x05\x00\x00\x00_makeNs\x86b.", "changes a name of numpy"),
    (BEGIN + b"(cnumpy\ndtype\nK\x00tR.", "holds an array of another kind"),
    (BEGIN + b"(" + NDARRAY + b"tR(K\x01(K\x09tNNC\x01atb.", "without its type or its bytes"),
    (
        BEGIN + b"(" + NDARRAY + b"tR(K\x01(K\x09tcnumpy\ndtype\n(X\x02\x00\x00\x00u1tRNC\x01atb.",
        "holds 1 bytes for an array of shape (9,)",
    ),
    (b"Pid\n.", "persistent"),
]


@pytest.mark.parametrize(("stream", "text"), ATTACKS, ids=[text for _, text in ATTACKS])
def test_a_pickle_can_run_nothing(stream: bytes, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match=re.escape(text)):
        load_plain(stream)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_none_or_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"hello")
    assert "cannot be read" in refusal(f"cifar10:{tmp_path / 'a.tar.gz'}")
    path = packed(write(tmp_path, "cifar10", "python"))
    path.write_bytes(path.read_bytes()[:-2000])
    assert "cannot be read" in refusal(f"cifar10:{path}")
    assert "no such folder or file" in refusal(f"cifar10:{tmp_path / 'nowhere'}")
