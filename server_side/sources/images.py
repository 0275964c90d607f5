"""`images:DIR`: PNG and JPEG files in a folder a class, train/CLASS/* with an optional test/CLASS/*, or CLASS/*.

Samples are (channels, height, width) uint8, 1 channel for grey files and 3 for colour. All files must be of one size and
kind, unless `?size=32` crops them to the middle square and resizes it to 32 x 32, or `?channels=1` or `3` converts them.
Refuses transparency, 16-bit files and what else would lose something silently. Needs Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server_side.sources.source import Samples, Source, in_order

if TYPE_CHECKING:
    from PIL import Image

IMAGE_OPTIONS = ("size", "channels")
SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {1: "L", 3: "RGB"}
CHANNELS = {"1": 1, "L": 1, "RGB": 3}  # of Pillow's modes that need no option; 1 is black and white

Pixels = NDArray[np.uint8]
Classes = Mapping[str, list[Path]]


def read_images(source: Source) -> Samples:
    directory = Path(source.path)
    size = source.whole("size", 0, 1) if "size" in source.options else None
    channels = source.whole("channels", 0, 1) if "channels" in source.options else None
    if channels not in (None, *MODES):
        raise source.error(f"option channels={channels}; expected 1 (grey) or 3 (colour)")
    train, test = _parts(source, directory)
    labels = tuple(in_order(train))
    if unknown := sorted(set(test) - set(labels)):
        raise source.error(f"test has the class '{unknown[0]}', but train has {', '.join(labels)}")
    wanted = _Wanted(source, size, channels)
    x, y = _load(wanted, train, labels)
    name = f"images:{directory.resolve().name}" + (f"-{size}" if size else "")
    if not test:
        return Samples(name, x, y, labels=labels)
    return Samples(name, x, y, *_load(wanted, test, labels), labels)


def _parts(source: Source, directory: Path) -> tuple[Classes, Classes]:
    """The files of each class of the training part, and of the test part."""
    folders = _folders(source, directory)
    if "train" not in folders:
        if "test" in folders:
            raise source.error("a folder test without train; expected train/CLASS/* and test/CLASS/*, or CLASS/*")
        return _classes(source, directory), {}
    if others := [name for name in folders if name not in ("train", "test")]:
        raise source.error(f"'{others[0]}' beside train; move it out, validation samples are taken from train")
    return _classes(source, directory / "train"), _classes(source, directory / "test") if "test" in folders else {}


def _folders(source: Source, directory: Path) -> list[str]:
    """Names of the folders in one that must hold nothing else. What is hidden does not count."""
    try:
        there = sorted(path for path in directory.iterdir() if path.name[0] != ".")
    except OSError as error:
        raise source.error(f"{directory}: {error.strerror}; name a folder of train/CLASS/* or CLASS/*") from error
    for path in there:
        if not path.is_dir():
            raise source.error(f"{path} is no folder; expected train/CLASS/* or CLASS/*, with pictures in the classes")
    return [path.name for path in there]


def _classes(source: Source, directory: Path) -> Classes:
    classes = {name: _pictures(source, directory / name) for name in _folders(source, directory)}
    if len(classes) < 2:
        raise source.error(f"{directory} has {len(classes)} folders of classes; expected two at least")
    return classes


def _pictures(source: Source, directory: Path) -> list[Path]:
    files = sorted(path for path in directory.iterdir() if path.name[0] != ".")
    for path in files:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise source.error(f"{path} is no picture; a class has {', '.join(SUFFIXES)} files and nothing else")
    if not files:
        raise source.error(f"{directory} is empty; a class has one picture at least")
    return files


def _load(wanted: _Wanted, classes: Classes, labels: tuple[str, ...]) -> tuple[Pixels, NDArray[np.int64]]:
    files = [(path, number) for number, label in enumerate(labels) for path in classes.get(label, [])]
    x = np.empty((len(files), *wanted.picture(files[0][0]).shape), np.uint8)
    for row, (path, _) in zip(x, files, strict=True):
        row[:] = wanted.picture(path)
    return x, np.array([number for _, number in files], np.int64)


class _Wanted:
    """What every picture must be: the options, and where they leave it open what the first picture is."""

    def __init__(self, source: Source, size: int | None, channels: int | None) -> None:
        self.source, self.size, self.channels = source, size, channels
        self.first: tuple[Path, tuple[int, ...]] | None = None

    def picture(self, path: Path) -> Pixels:
        """(channels, height, width)"""
        try:
            from PIL import Image, ImageOps
        except ImportError as error:
            raise self.source.error("pictures need Pillow; pip install 'pocket-ticket[data]'") from error
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as file:
                image = ImageOps.exif_transpose(file)  # phones store how the camera was held
                image.load()
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise self.source.error(f"{path} is no whole PNG or JPEG: {error}; replace or remove it") from error
        image = image.convert(MODES[self._channels_of(image, path)])
        if self.size is not None:
            image = _middle_square(image).resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return self._like_the_first(path, pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def _channels_of(self, image: Image.Image, path: Path) -> int:
        if image.mode[0] in "IF":
            raise self.source.error(f"{path} has more than 8 bits a channel; save it with 8 bits")
        if self.channels is not None:
            return self.channels
        mode = "RGB" if image.mode == "P" and "transparency" not in image.info else image.mode
        if mode not in CHANNELS or "transparency" in image.info:
            raise self.source.error(
                f"{path} is {image.mode}{' with transparency' * ('transparency' in image.info)}; save it as grey or RGB, "
                "or say ?channels=1 or ?channels=3"
            )
        return CHANNELS[mode]

    def _like_the_first(self, path: Path, pixels: Pixels) -> Pixels:
        self.first = self.first or (path, pixels.shape)
        if pixels.shape == self.first[1]:
            return pixels
        (c, h, w), (c0, h0, w0) = pixels.shape, self.first[1]
        if c != c0:
            raise self.source.error(
                f"{path} has {c} channels, but {self.first[0]} has {c0}; say ?channels=1 or ?channels=3"
            )
        raise self.source.error(
            f"{path} is {w} x {h} pixels, but {self.first[0]} is {w0} x {h0}; say for example ?size=32"
        )


def _middle_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, upper = ((length - side) // 2 for length in image.size)
    return image.crop((left, upper, left + side, upper + side))
