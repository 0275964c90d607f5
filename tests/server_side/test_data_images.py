"""Folders of pictures: what is read bit for bit, in which order, what options change, and what is refused by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.data import load_data
from tests.server_side.sources import refusal

Image = pytest.importorskip("PIL.Image", reason="needs the `data` extra")
RANDOM = np.random.default_rng(9)


def pixels(height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray[Any, Any]:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RANDOM.integers(0, 256, shape, np.uint8)


def save(path: Path, array: np.ndarray[Any, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def folder(root: Path, counts: Mapping[str, int], channels: int = 3) -> dict[str, np.ndarray[Any, Any]]:
    """Makes `counts` PNG files in each folder; returns their pixels by path."""
    made = {f"{name}/{n}.png": pixels(channels=channels) for name, count in counts.items() for n in range(count)}
    for path, array in made.items():
        save(root / path, array)
    return made


def test_train_and_test_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    made = folder(tmp_path, {"train/dog": 3, "train/ant": 2, "test/dog": 1, "test/ant": 2})
    data = load_data(f"images:{tmp_path}")
    assert (data.name, data.labels, data.input_shape) == (f"images:{tmp_path.name}", ("ant", "dog"), (3, 6, 5))
    train = ["train/ant/0.png", "train/ant/1.png", "train/dog/0.png", "train/dog/1.png", "train/dog/2.png"]
    assert np.array_equal(data.x_train, np.stack([made[path].transpose(2, 0, 1) for path in train]))
    assert data.y_train.tolist() == [0, 0, 1, 1, 1]
    assert data.y_test.tolist() == [0, 0, 1]
    assert data.x_train.dtype == np.uint8


def test_classes_alone_have_a_test_part_held_out(tmp_path: Path) -> None:
    made = folder(tmp_path, {"10": 5, "9": 10}, channels=1)
    data = load_data(f"images:{tmp_path}")
    assert data.labels == ("9", "10"), "numbers are in the order of numbers"
    assert np.bincount(data.y_train).tolist() == [8, 4]
    assert data.input_shape == (1, 6, 5)
    there = {x.tobytes() for x in [*data.x_train, *data.x_test]}
    assert there == {array.tobytes() for array in made.values()}


def test_jpeg_and_hidden_files(tmp_path: Path) -> None:
    flat = np.full((6, 5, 3), 200, np.uint8)
    for name in ("a/1.JPG", "a/2.jpeg", "b/1.jpg", "b/2.png"):
        save(tmp_path / name, flat)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a/.DS_Store").write_bytes(b"x")
    assert (load_data(f"images:{tmp_path}").x_train == 200).all()


def test_a_picture_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    array = np.zeros((6, 6, 3), np.uint8)
    array[0] = 255  # the top row, which orientation 3 says is the bottom one
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        save(tmp_path / name, array, exif=exif)
    (first, *_) = load_data(f"images:{tmp_path}").x_train
    assert np.array_equal(first, array[::-1].transpose(2, 0, 1))


def test_size_crops_to_the_middle_and_keeps_proportions(tmp_path: Path) -> None:
    array = np.zeros((8, 16, 3), np.uint8)
    array[:, 4:12] = 100  # the middle square
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save(tmp_path / name, array)
    save(tmp_path / "b/2.png", np.full((20, 20, 3), 100, np.uint8))
    assert "is 20 x 20 pixels, but" in refusal(f"images:{tmp_path}")
    data = load_data(f"images:{tmp_path}?size=4")
    assert data.input_shape == (3, 4, 4)
    assert data.name == f"images:{tmp_path.name}-4"
    assert (data.x_train == 100).all()
    assert (data.x_test == 100).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_convert(channels: int, tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2}, channels=1)
    folder(tmp_path, {"b": 2}, channels=3)
    assert "has 3 channels, but" in refusal(f"images:{tmp_path}")
    assert load_data(f"images:{tmp_path}?channels={channels}").input_shape == (channels, 6, 5)


def palette() -> Any:
    return Image.fromarray(pixels()).quantize(8)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (Image.fromarray(pixels(channels=4)), "is RGBA; save it as grey or RGB, or say ?channels=1"),
        (Image.fromarray(pixels(channels=1)).convert("LA"), "is LA; save it"),
        (Image.fromarray(RANDOM.integers(0, 65536, (6, 5)).astype(np.uint16)), "more than 8 bits a channel"),
        (palette(), None),
        (Image.fromarray(pixels(channels=1) > 99), "has 1 channels, but"),
        (Image.fromarray(pixels(7, 5)), "is 5 x 7 pixels, but"),
    ],
)
def test_other_modes_and_sizes(image: Any, text: str | None, tmp_path: Path) -> None:
    folder(tmp_path, {"a": 3, "b": 3})
    image.save(tmp_path / "a/3.png")
    if text is None:
        data = load_data(f"images:{tmp_path}")
        turned = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        assert any(np.array_equal(x, turned) for x in [*data.x_train, *data.x_test])
    else:
        assert text in refusal(f"images:{tmp_path}")
        assert f"{tmp_path}/a/3.png" in refusal(f"images:{tmp_path}")


def test_transparency_of_a_palette_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    palette().save(tmp_path / "a/3.png", transparency=0)
    assert "is P with transparency" in refusal(f"images:{tmp_path}")


def test_sixteen_bits_are_not_cut_off_by_an_option(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    save(tmp_path / "a/3.png", RANDOM.integers(0, 65536, (6, 5)).astype(np.uint16))
    assert "more than 8 bits" in refusal(f"images:{tmp_path}?channels=1")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", "cut", "gif"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damaged_pictures_are_named(content: bytes | str, suffix: str, tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    path = tmp_path / f"b/x.{suffix}"
    Image.fromarray(pixels()).save(path, format="GIF" if content == "gif" else None)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[: -40 if content == "cut" else None])
    assert f"{path} is no whole PNG or JPEG" in refusal(f"images:{tmp_path}")


@pytest.mark.parametrize(
    ("counts", "extra", "text"),
    [
        ({}, None, "has 0 folders of classes"),
        ({"a": 2}, None, "has 1 folders of classes"),
        ({"train/a": 2}, None, "has 1 folders of classes"),
        ({"test/a": 2, "test/b": 2}, None, "a folder test without train"),
        ({"train/a": 2, "train/b": 2, "val/a": 1}, None, "'val' beside train"),
        ({"train/a": 2, "train/b": 2, "test/a": 1, "test/c": 1}, None, "test has the class 'c', but train has a, b"),
        ({"a": 2, "b": 2}, "b/notes.txt", "notes.txt is no picture; a class has .png, .jpg, .jpeg"),
        ({"a": 2, "b": 2}, "b/1.gif", "1.gif is no picture"),
        ({"a": 2, "b": 2}, "labels.csv", "labels.csv is no folder"),
        ({"a": 2, "b/deeper": 2}, None, "deeper is no picture"),
        ({"a": 2, "b": 1}, None, "class 'b' has a single sample"),
    ],
)
def test_folders_that_are_mixed_up_are_named(
    counts: dict[str, int], extra: str | None, text: str, tmp_path: Path
) -> None:
    folder(tmp_path, counts)
    if extra:
        (tmp_path / extra).write_bytes(b"x")
    assert text in refusal(f"images:{tmp_path}")


def test_empty_classes_and_missing_folders_are_named(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    assert "c is empty" in refusal(f"images:{tmp_path}")
    assert "No such file or directory" in refusal(f"images:{tmp_path / 'nowhere'}")
    assert "option channels=2; expected 1 (grey) or 3" in refusal(f"images:{tmp_path}?channels=2")
    assert "option size=0" in refusal(f"images:{tmp_path}?size=0")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install 'pocket-ticket[data]'" in refusal(f"images:{tmp_path}")
