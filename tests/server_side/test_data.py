"""Data of a search: what every source must hold, how a test part is held out, how samples are normalised; npz and idx."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.data import READERS, Dataset, load_data, split
from server_side.errors import UsageError
from server_side.sources.download import SETS
from tests.server_side.sources import refusal

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
RANDOM = np.random.default_rng(5)
X, Y = RANDOM.normal(size=(20, 3)).astype(np.float32), np.arange(20) % 4


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def same(one: Dataset, two: Dataset) -> bool:
    return one.fingerprint == two.fingerprint


def test_the_readme_names_every_source_and_option() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind, (_, options) in READERS.items():
        assert f"`{kind}:" in readme
        assert [option for option in options if f"?{option}=" not in readme] == []
    assert [name for name in SETS if f"`download:{name}`" not in readme] == []


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nonsense", "expected digits, idx:DIR, npz:FILE, cifar10:DIR"),
        ("images", "expected digits, idx:DIR"),
        ("table:", "names nothing after the colon"),
        ("npz:a.npz?", "option ''; expected first_label=... and labels=..., each once"),
        ("npz:a.npz?size=3", "option 'size=3'"),
        ("npz:a.npz?labels=", "option 'labels='"),
        ("npz:a.npz?labels=a&labels=b", "option 'labels=b'"),
        ("cifar10:a?size=3", "option 'size=3'; expected no options"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(source: str, text: str) -> None:
    assert text in refusal(source)


@pytest.mark.parametrize("value", ["-1", "1.5", "²", "one", "9999999999"])
def test_an_option_that_is_no_number_is_refused(value: str, tmp_path: Path) -> None:
    assert f"option first_label={value}; expected a whole number" in refusal(
        npz(tmp_path, x=X, y=Y) + f"?first_label={value}"
    )


def test_npz_with_either_names_and_either_test_part(tmp_path: Path) -> None:
    plain = load_data(npz(tmp_path, x=X[:16], y=Y[:16], x_test=X[16:], y_test=Y[16:]))
    assert same(plain, load_data(npz(tmp_path, x_train=X[:16], y_train=Y[:16], x_test=X[16:], y_test=Y[16:])))
    mixed = [3, 0, 17, *(n for n in range(20) if n not in (3, 0, 17))]
    part = np.array([int(n >= 16) for n in mixed], np.uint8)
    spread = load_data(npz(tmp_path, x=X[mixed], y=Y[mixed], split=part))
    order = [n for n in mixed if n < 16]
    assert np.array_equal(spread.x_train, X[order])
    assert np.array_equal(spread.y_test, Y[[n for n in mixed if n >= 16]])
    assert plain.name == "npz:data.npz"


def test_classes_have_the_names_that_came_with_them(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog", "none yet"])  # the last for devices to learn
    named = load_data(npz(tmp_path, x=X, y=Y, labels=names))
    assert named.labels == ("ant", "bee", "cat", "dog", "none yet")
    assert same(named, load_data(npz(tmp_path, x=X, y=Y, animals=names) + "?labels=animals"))
    assert not same(named, load_data(npz(tmp_path, x=X, y=Y, labels=names[::-1])))
    assert load_data(npz(tmp_path, x=X, y=Y)).labels == ("0", "1", "2", "3")


def test_labels_may_count_from_one_where_one_says_so(tmp_path: Path) -> None:
    source = npz(tmp_path, x=X, y=(Y + 1).astype(np.uint8))
    assert "labels 1..4 in the training part, but they count from 0; say ?first_label=1" in refusal(source)
    shifted, plain = load_data(source + "?first_label=1"), load_data(npz(tmp_path, x=X, y=Y))
    assert shifted.labels == ("1", "2", "3", "4")
    assert np.array_equal(shifted.y_train, plain.y_train)
    assert "label 0; labels count from 1" in refusal(npz(tmp_path, x=X, y=Y) + "?first_label=1")


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X, "x_train": X, "y": Y}, "both x and x_train; keep one"),
        ({"x": X}, "no array 'y'; it has x"),
        ({"x": X, "y": Y, "x_test": X}, "x_test without y_test"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y, "split": Y}, "both x_test and split"),
        ({"x": X, "y": Y, "split": Y}, "split is int64 of shape (20,); expected 0 (training) or 1 (test)"),
        ({"x": X, "y": Y, "split": np.zeros(19, int)}, "split has 19 entries for x of shape (20, 3)"),
        ({"x": X, "y": Y, "split": np.zeros(20, int)}, "test part: x has shape (0, 3)"),
        ({"x": X, "y": Y, "labels": Y}, "'labels' is int64 of shape (20,); expected the name of each class"),
        ({"x": X, "y": Y, "labels": np.array(["a", "b", "c"])}, "label 3, but the classes are 0..2"),
        (
            {"x": X, "y": Y, "labels": np.array(["a", "b", "a", "c"])},
            "classes without a printable name or with the same one",
        ),
        (
            {"x": X, "y": Y, "labels": np.array(["a", "b", "", "c"])},
            "classes without a printable name or with the same one",
        ),
        ({"x": X, "y": Y * 10**12}, "3000000000001 classes for 20 samples to train"),
        ({"x": X, "y": Y * 0}, "1 classes for 20 samples to train"),
        ({"x": X, "y": Y.astype(np.uint64) << 62}, "classes for 20 samples"),
        ({"x": X, "y": np.where(np.arange(20) == 7, 4, Y)}, "class '4' has a single sample"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, "training samples (3,) but test samples (2,)"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "test part: label 4, but the classes are 0..3"),
        ({"x": X[:, :0], "y": Y}, "x has shape (20, 0)"),
        ({"x": X.astype(object), "y": Y}, "not a whole npz file of plain arrays"),
    ],
)
def test_arrays_that_cannot_be_meant_are_named(arrays: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert text in refusal(npz(tmp_path, **arrays))


def test_a_name_of_labels_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no array 'animals'; it has x, y" in refusal(npz(tmp_path, x=X, y=Y) + "?labels=animals")


def test_a_test_part_is_held_out_by_class(tmp_path: Path) -> None:
    y = np.repeat(np.arange(3), [50, 11, 2])
    x = np.arange(63, dtype=np.float32)[:, None]
    source = npz(tmp_path, x=x, y=y)
    data = load_data(source, 3)
    assert np.bincount(data.y_test).tolist() == [10, 3, 1]
    assert sorted([*data.x_train[:, 0], *data.x_test[:, 0]]) == list(range(63))
    assert same(data, load_data(source, 3))
    assert not same(data, load_data(source, 4))


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_folder(folder: Path, first_label: int = 0) -> str:
    random = np.random.default_rng(2)
    for part, count in (("train", 24), ("t10k", 8)):
        x, y = random.integers(0, 256, (count, 5, 4)), np.arange(count) % 4 + first_label
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(x)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(y))
    return f"idx:{folder}"


def test_idx_files(tmp_path: Path) -> None:
    data = load_data(idx_folder(tmp_path))
    assert (data.name, data.input_shape, data.classes) == (f"idx:{tmp_path.name}", (5, 4), 4)
    assert np.array_equal(data.x_train, np.random.default_rng(2).integers(0, 256, (24, 5, 4)))
    shifted = load_data(idx_folder(tmp_path, first_label=1) + "?first_label=1")  # as EMNIST Letters count
    assert np.array_equal(shifted.y_test, data.y_test)


@pytest.mark.parametrize("change", ["cut", "longer", "no gzip", "swapped", "gone"])
def test_damaged_idx_files_are_named(change: str, tmp_path: Path) -> None:
    source = idx_folder(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte"
    content = gzip.decompress(images.read_bytes())
    damaged = {"cut": content[:-1], "longer": content + b"0", "swapped": labels.read_bytes()}
    images.write_bytes(b"hello" if change == "no gzip" else gzip.compress(damaged.get(change, content)))
    if change == "gone":
        images.unlink()
    wanted = {"gone": "no file train-images-idx3", "swapped": "x has shape (24,)"}
    assert wanted.get(change, "is not a whole IDX file") in refusal(source)


def normalised(x: np.ndarray[Any, Any], by_feature: bool) -> np.ndarray[Any, Any]:
    y = np.arange(len(x)) % 2
    parts = split(Dataset("d", x, y, x[:4], y[:4], ("a", "b"), by_feature), 0.5, 0)
    assert len(parts.mean) == len(parts.inverse_std)
    return parts.x_train


@pytest.mark.parametrize(
    ("shape", "by_feature", "axes"),
    [((60, 3), False, None), ((60, 3), True, 0), ((60, 3, 4), False, None), ((60, 3, 4, 5), False, (0, 2, 3))],
)
def test_normalised_as_a_whole_by_feature_or_by_channel(shape: tuple[int, ...], by_feature: bool, axes: Any) -> None:
    scale = np.array([1.0, 100.0, 0.01]).reshape(3, *[1] * (len(shape) - 2))
    x = (RANDOM.normal(size=shape) * scale + 7 * scale).astype(np.float32)
    result = normalised(x, by_feature)
    np.testing.assert_allclose(result.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=axes), 1, atol=1e-5)


def test_normalised_as_devices_do() -> None:
    """`(x - mean) * inverse_std`, each step rounded to float32."""
    x = RANDOM.normal(3, 9, (60, 3, 4, 5)).astype(np.float32)
    y = np.arange(60) % 2
    parts = split(Dataset("d", x, y, x, y, ("a", "b")), 0.5, 0)
    wide = (-1, 1, 1)
    assert np.array_equal(parts.x_test, (x - parts.mean.reshape(wide)) * parts.inverse_std.reshape(wide))


REAL = {
    "idx:mnist": ((28, 28), 60000, 10000, "0"),
    "idx:fashion-mnist": ((28, 28), 60000, 10000, "0"),
    "npz:cifar10-20k/cifar10_20k.npz": ((3, 32, 32), 16000, 4000, "0"),
    "npz:uci-har/uci_har_inertial.npz?first_label=1&labels=activities": ((9, 128), 7352, 2947, "WALKING"),
}


@pytest.mark.parametrize("source", REAL)
def test_real_sets_beside_the_repository_load(source: str) -> None:
    kind, _, rest = source.partition(":")
    if not (SHARED / rest.partition("?")[0]).exists():
        pytest.skip(f"no {rest.partition('?')[0]} beside the repository")
    shape, train, test, first = REAL[source]
    data = load_data(f"{kind}:{SHARED / rest}")
    assert (data.input_shape, len(data.x_train), len(data.x_test), data.labels[0]) == (shape, train, test, first)
    assert "/" not in data.name
    assert (np.bincount(data.y_train) > 900).all()  # every class has its samples
    assert len(split(data, 0.1, 0).x_train) == round(0.9 * train)


def test_a_validation_part_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leaves 0 of 16 samples"):
        split(load_data(npz(tmp_path, x=X, y=Y)), 16, 0)
