"""Random horizontal flips and crops of pictures, drawn anew for every sample of every step, on any device of torch.

The draws are a pure function of (seed, step), so a run that goes on, or shares a batch with other replicas, sees the same
pictures. `apply` and `apply_numpy` copy numbers and compute none, so their bits are equal. Works on normalised samples:
what a crop takes from beyond the border is 0, the mean. Refuses samples that are no pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError
from server_side.seeds import generator

if TYPE_CHECKING:
    import torch

Draws = NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """`flip`: mirrored left to right with probability 1/2. `crop`: moved by up to so many pixels each way, all equally
    likely, as by cropping the picture out of itself with a border of `crop` zeros."""

    flip: bool = False
    crop: int = 0

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Of `flip`, `crop4` or `flip,crop4`; raises UsageError."""
        parts = text.split(",")
        crops = [part[4:] for part in parts if part.startswith("crop")]
        known = all(part == "flip" or part.startswith("crop") for part in parts)
        numbers = all(c.isascii() and c.isdecimal() and not c.startswith("0") and len(c) < 5 for c in crops)
        if not known or not numbers or len(crops) > 1 or parts.count("flip") > 1:
            raise UsageError(f"augment '{text}': expected flip, crop4 or flip,crop4, with any number of pixels from 1")
        return cls("flip" in parts, int(crops[0]) if crops else 0)

    def __str__(self) -> str:
        """What `parse` reads."""
        return ",".join(["flip"] * self.flip + [f"crop{self.crop}"] * (self.crop > 0))

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

    def draws(self, seed: int, step: int, batch: int) -> Draws:
        """(batch, 3) for step `step`, counted from 0: whether it is flipped, and the row and the column of the bordered
        picture at which the crop begins, each in 0..2 crop."""
        random = generator(seed, "augment", step)
        drawn: Draws = random.integers(0, [2, 2 * self.crop + 1, 2 * self.crop + 1], (batch, 3))
        drawn[:, 0] *= self.flip
        return drawn

    def apply(self, x: torch.Tensor, draws: Draws | torch.Tensor) -> torch.Tensor:
        """x (..., batch, channels, height, width) of any type; draws (..., batch, 3), or (batch, 3) for all alike."""
        import torch

        leading, (channels, height, width) = x.shape[:-3], x.shape[-3:]
        drawn = torch.as_tensor(draws).to(x.device, non_blocking=True)  # a few bytes: not worth waiting for the device
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
        """The same of x (batch, channels, height, width) and draws (batch, 3), a picture at a time."""
        (batch, channels, height, width), border = x.shape, self.crop
        bordered = np.zeros((batch, channels, height + 2 * border, width + 2 * border), x.dtype)
        bordered[:, :, border : border + height, border : border + width] = x
        result = np.empty_like(x)
        for to, picture, (flip, down, right) in zip(result, bordered, draws.tolist(), strict=True):
            crop = picture[:, down : down + height, right : right + width]
            to[:] = crop[:, :, ::-1] if flip else crop
        return result
