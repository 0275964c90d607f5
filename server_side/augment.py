"""Random horizontal flips and crops of pictures, drawn anew for every sample of every step, on any device of torch.

The draws are a pure function of (seed, step), so a run that goes on, or shares a batch with other replicas, sees the same
pictures. `apply` and `apply_numpy` copy numbers, or interpolate by the same operations one by one, so their bits are equal.
Works on normalised samples: what a crop takes from beyond the border is 0, the mean. Refuses samples that are no pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError
from server_side.seeds import generator

if TYPE_CHECKING:
    import torch

Draws = NDArray[np.int64]

TRIES = 10  # to draw a rectangle that fits, as in Szegedy et al. 2015 after torchvision; then the whole picture
NARROWEST = 3 / 4  # width by height; the widest is its reciprocal


CROPPING = re.compile(r"(crop|resized)([1-9][0-9]{0,3})", re.ASCII)


@dataclass(frozen=True)
class Augmentation:
    """`flip`: mirrored left to right with probability 1/2. `crop`: moved by up to so many pixels each way, all equally
    likely, as by cropping the picture out of itself with a border of `crop` zeros. `resized`: a rectangle of so many to 100 %
    of the area, of sides 3:4 to 4:3, anywhere, stretched to the whole picture (bilinear, not smoothed first)."""

    flip: bool = False
    crop: int = 0
    resized: int = 0

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Of `flip`, `crop4`, `resized8`, or `flip` and one of the others; raises UsageError."""
        parts = text.split(",")
        found = [CROPPING.fullmatch(part) for part in parts if part != "flip"]
        known = [match for match in found if match is not None and (match[1] == "crop" or int(match[2]) < 100)]
        if len(known) < len(found) or len(known) > 1 or parts.count("flip") > 1:
            raise UsageError(
                f"augment '{text}': expected flip, crop4 (or more pixels), resized8 (8 to 100 % of the area), or flip and one of "
                "them, such as flip,crop4"
            )
        return cls("flip" in parts, **{match[1]: int(match[2]) for match in known})

    def __str__(self) -> str:
        """What `parse` reads."""
        crops = [f"crop{self.crop}"] * (self.crop > 0) + [f"resized{self.resized}"] * (self.resized > 0)
        return ",".join(["flip"] * self.flip + crops)

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Raises UsageError where samples of this shape are no pictures, or so small that a crop could miss them."""
        if len(input_shape) not in (2, 3):
            raise UsageError(
                f"augment '{self}': samples have the shape {input_shape}, but pictures are (channels, height, width) or "
                "(height, width)"
            )
        if self.crop >= min(input_shape[-2:]):
            raise UsageError(
                f"augment '{self}': pictures of {input_shape[-2]} x {input_shape[-1]} pixels; take a smaller crop"
            )

    def draws(self, seed: int, step: int, batch: int, size: Sequence[int]) -> Draws:
        """For step `step`, counted from 0, of pictures of `size`, height and width: (batch, 3), whether it is flipped, and the
        row and the column of the bordered picture at which the crop begins, each in 0..2 crop. Where it is resized (batch, 5):
        whether it is flipped, and row, column, height and width of the rectangle."""
        random = generator(seed, "augment", step)
        if self.resized:
            flips = random.integers(0, 2, (batch, 1)) * self.flip
            return np.concatenate([flips, _rectangles(random, self.resized / 100, batch, size)], axis=1)
        drawn: Draws = random.integers(0, [2, 2 * self.crop + 1, 2 * self.crop + 1], (batch, 3))
        drawn[:, 0] *= self.flip
        return drawn

    def apply(self, x: torch.Tensor, draws: Draws | torch.Tensor) -> torch.Tensor:
        """x (..., batch, channels, height, width) of any type, of floats where they are resized; draws (..., batch, columns), or
        (batch, columns) for all alike."""
        import torch

        leading, (channels, height, width) = x.shape[:-3], x.shape[-3:]
        drawn = torch.as_tensor(draws).to(x.device, non_blocking=True)  # a few bytes: not worth waiting for the device
        if self.resized:
            return _stretched(x.reshape(-1, channels, height, width), drawn.expand(*leading, 5).reshape(-1, 5)).view(
                x.shape
            )
        flip, down, right = drawn.expand(*leading, 3).reshape(-1, 3, 1).unbind(1)
        rows = torch.arange(height, device=x.device) + down  # (samples, height), in the bordered picture
        columns = torch.arange(width, device=x.device)
        columns = torch.where(flip > 0, width - 1 - columns, columns) + right
        across = width + 2 * self.crop
        places = (rows.unsqueeze(2) * across + columns.unsqueeze(1)).view(-1, 1, height * width)
        bordered = torch.nn.functional.pad(x.reshape(-1, channels, height, width), [self.crop] * 4)
        taken = bordered.flatten(2).gather(2, places.expand(-1, channels, -1))
        return taken.view(x.shape)

    def apply_numpy(self, x: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """The same of x (batch, channels, height, width) and draws (batch, columns), a picture at a time."""
        if self.resized:
            stretched = [_stretched_numpy(picture, draw) for picture, draw in zip(x, draws.tolist(), strict=True)]
            return np.stack(stretched)
        (batch, channels, height, width), border = x.shape, self.crop
        bordered = np.zeros((batch, channels, height + 2 * border, width + 2 * border), x.dtype)
        bordered[:, :, border : border + height, border : border + width] = x
        result = np.empty_like(x)
        for to, picture, (flip, down, right) in zip(result, bordered, draws.tolist(), strict=True):
            crop = picture[:, down : down + height, right : right + width]
            to[:] = crop[:, :, ::-1] if flip else crop
        return result


def _rectangles(random: np.random.Generator, least: float, batch: int, size: Sequence[int]) -> Draws:
    """(batch, 4): row, column, height and width of a part of pictures of `size`."""
    area = size[0] * size[1] * random.uniform(least, 1, (batch, TRIES))
    ratio = np.exp(random.uniform(np.log(NARROWEST), -np.log(NARROWEST), (batch, TRIES)))
    tried = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=2).round().astype(np.int64).clip(1)
    fits: NDArray[np.bool_] = np.logical_and(*np.moveaxis(tried <= size, 2, 0))
    first = tried[np.arange(batch), fits.argmax(axis=1)]
    sides: Draws = np.where(np.any(fits, axis=1)[:, np.newaxis], first, np.array(size))
    return np.concatenate([random.integers(0, np.array(size) - sides + 1), sides], axis=1)


def _stretched(x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Of x (batch, channels, height, width); draws (batch, 5)."""
    import torch

    flip, row, column, high, wide = draws.unsqueeze(2).unbind(1)  # (batch, 1) each
    for axis, start, length in ((2, row, high), (3, column, wide)):
        count = x.shape[axis]
        numbers = torch.arange(count, device=x.device).expand(len(x), count)
        if axis == 3:
            numbers = torch.where(flip > 0, count - 1 - numbers, numbers)
        scale = length.float() / count
        place = ((numbers.float() + 0.5) * scale - 0.5).clamp(min=0).minimum(length.float() - 1)
        below = place.floor()
        first = below.long()
        second = torch.minimum(first + 1, length - 1)
        shape = [len(x), 1, *((count, 1) if axis == 2 else (1, count))]
        at = [(start + index).view(shape).expand(x.shape) for index in (first, second)]
        one, other = x.gather(axis, at[0]), x.gather(axis, at[1])
        x = one + (other - one) * (place - below).view(shape)
    return x


def _stretched_numpy(picture: NDArray[Any], draw: list[int]) -> NDArray[Any]:
    """The same of one picture (channels, height, width)."""
    flip, row, column, high, wide = draw
    for axis, start, length in ((1, row, high), (2, column, wide)):
        count, half = picture.shape[axis], np.float32(0.5)
        numbers = np.arange(count, dtype=np.float32)
        if axis == 2 and flip:
            numbers = numbers[::-1]
        scale = np.float32(length) / np.float32(count)
        place = np.clip((numbers + half) * scale - half, 0, np.float32(length - 1))
        first = np.floor(place).astype(np.int64)
        second = np.minimum(first + 1, length - 1)
        share = (place - first.astype(np.float32)).reshape((count, 1) if axis == 1 else (1, count))
        one, other = picture.take(start + first, axis), picture.take(start + second, axis)
        picture = one + (other - one) * share
    return picture
