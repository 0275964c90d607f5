"""Flips and crops: pure in (seed, step), evenly drawn, the same bits by torch and numpy, 0 beyond the border."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server_side.augment import Augmentation
from server_side.errors import UsageError

SIZE = (9, 6)
BOTH = Augmentation(flip=True, crop=4)
RESIZED = Augmentation(flip=True, resized=8)
EVERY = [BOTH, Augmentation(flip=True), Augmentation(crop=2)]


def pictures(batch: int = 7, shape: tuple[int, int, int] = (3, *SIZE)) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    x[0, 0, :2, :2] = [[np.nan, -0.0], [np.inf, 1e-42]]  # whatever is there is copied
    return x


def expected(x: np.ndarray[Any, Any], crop: int, draw: Any) -> np.ndarray[Any, Any]:
    """One picture, a pixel at a time."""
    height, width = x.shape[1:]
    flip, down, right = (int(n) for n in draw)
    result = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            row, column = i + down - crop, (width - 1 - j if flip else j) + right - crop
            if 0 <= row < height and 0 <= column < width:
                result[:, i, j] = x[:, row, column]
    return result


@pytest.mark.parametrize("augmentation", EVERY, ids=str)
def test_torch_and_numpy_give_the_bits_of_the_definition(augmentation: Augmentation) -> None:
    x = pictures(40)
    draws = augmentation.draws(1, 2, 40, SIZE)
    wanted = np.stack([expected(one, augmentation.crop, draw) for one, draw in zip(x, draws, strict=True)])
    assert augmentation.apply_numpy(x, draws).tobytes() == wanted.tobytes()
    assert augmentation.apply(torch.from_numpy(x), draws).numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8])
def test_any_type_of_number(dtype: Any) -> None:
    x, draws = (np.random.default_rng(0).random((5, 1, 8, 8)) * 200).astype(dtype), BOTH.draws(0, 0, 5, SIZE)
    assert BOTH.apply(torch.from_numpy(x), draws).numpy().tobytes() == BOTH.apply_numpy(x, draws).tobytes()


def test_corners_of_the_border() -> None:
    """The furthest crops each way, flipped and not: one pixel moves by exactly `crop`, and what comes in is 0."""
    x = np.ones((1, 1, 5, 5), np.float32)
    augmentation = Augmentation(flip=True, crop=2)
    for flip in (0, 1):
        for down, right in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
            wanted = np.zeros((5, 5))
            rows = slice(2, 5) if down == 0 else slice(0, 3) if down == 4 else slice(0, 5)
            moved_right = (right == 0) != (flip == 1)
            columns = slice(0, 5) if right == 2 else slice(2, 5) if moved_right else slice(0, 3)
            wanted[rows, columns] = 1
            draws = np.array([[flip, down, right]])
            assert np.array_equal(augmentation.apply_numpy(x, draws)[0, 0], wanted)
            assert np.array_equal(augmentation.apply(torch.from_numpy(x), draws)[0, 0].numpy(), wanted)


def test_replicas_have_draws_of_their_own_or_share_them() -> None:
    x = np.stack([pictures(), pictures()[::-1]])
    draws = np.stack([BOTH.draws(seed, 3, 7, SIZE) for seed in (0, 1)])
    each = np.stack([BOTH.apply_numpy(one, draw) for one, draw in zip(x, draws, strict=True)])
    assert BOTH.apply(torch.from_numpy(x), draws).numpy().tobytes() == each.tobytes()
    shared = np.stack([BOTH.apply_numpy(one, draws[0]) for one in x])
    assert BOTH.apply(torch.from_numpy(x), torch.from_numpy(draws[0])).numpy().tobytes() == shared.tobytes()


def test_what_is_given_is_not_changed() -> None:
    x = pictures()
    before, draws = x.tobytes(), BOTH.draws(0, 0, 7, SIZE)
    drawn = draws.copy()
    assert not np.shares_memory(BOTH.apply_numpy(x, draws), x)
    BOTH.apply(torch.from_numpy(x), draws)
    assert x.tobytes() == before
    assert np.array_equal(draws, drawn)


def test_draws_are_a_function_of_seed_and_step() -> None:
    backwards = [BOTH.draws(3, step, 32, SIZE) for step in reversed(range(10))]
    for step in range(10):
        assert np.array_equal(BOTH.draws(3, step, 32, SIZE), backwards[9 - step])
    assert not np.array_equal(BOTH.draws(3, 0, 32, SIZE), BOTH.draws(3, 1, 32, SIZE))
    assert not np.array_equal(BOTH.draws(3, 0, 32, SIZE), BOTH.draws(4, 0, 32, SIZE))
    assert not np.array_equal(BOTH.draws(0, 12, 32, SIZE), BOTH.draws(1, 2, 32, SIZE)), (
        "names of streams do not run together"
    )
    state = str(np.random.get_state())  # noqa: NPY002
    BOTH.draws(0, 0, 32, SIZE)
    assert str(np.random.get_state()) == state  # noqa: NPY002


def test_draws_are_even_and_independent() -> None:
    """Chi-squared by hand: 18 of 162 cells at once, 40,000 draws, far from the bound for a generator that is even."""
    draws = np.concatenate([BOTH.draws(0, step, 400, SIZE) for step in range(100)])
    assert draws.min(axis=0).tolist() == [0, 0, 0]
    assert draws.max(axis=0).tolist() == [1, 8, 8]
    cells = np.bincount(draws @ [81, 9, 1], minlength=162)
    wanted = len(draws) / 162
    chi_squared = float(((cells - wanted) ** 2 / wanted).sum())
    assert 161 - 4 * np.sqrt(2 * 161) < chi_squared < 161 + 4 * np.sqrt(2 * 161)
    consecutive = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(consecutive) < 4 / np.sqrt(len(draws))


def test_what_is_not_asked_for_is_not_drawn() -> None:
    assert not Augmentation(crop=4).draws(0, 0, 500, SIZE)[:, 0].any()
    assert not Augmentation(flip=True).draws(0, 0, 500, SIZE)[:, 1:].any()


@pytest.mark.parametrize(
    ("text", "augmentation"),
    [
        ("flip", Augmentation(True, 0)),
        ("crop4", Augmentation(False, 4)),
        ("flip,crop4", BOTH),
        ("crop4,flip", BOTH),
        ("flip,resized8", RESIZED),
        ("resized99", Augmentation(resized=99)),
    ],
)
def test_parse(text: str, augmentation: Augmentation) -> None:
    assert Augmentation.parse(text) == augmentation
    assert Augmentation.parse(str(augmentation)) == augmentation


WRONG = [
    "",
    "flip,",
    "crop",
    "crop0",
    "crop-1",
    "crop4.5",
    "crop²",
    "flip,flip",
    "crop2,crop4",
    "Flip",
    "crop04",
    "none",
    "resized",
    "resized0",
    "resized100",
    "crop4,resized8",
]


@pytest.mark.parametrize("text", WRONG)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError, match=f"^augment '{text}': expected flip, crop4 "):
        Augmentation.parse(text)


def test_what_is_no_picture_is_refused() -> None:
    BOTH.check((3, 32, 32))
    BOTH.check((1, 5, 5))
    for shape in ((64,), (3, 4, 4, 4)):
        with pytest.raises(UsageError, match="pictures are \\(channels, height, width\\) or"):
            BOTH.check(shape)
    with pytest.raises(UsageError, match="pictures of 32 x 4 pixels; take a smaller crop"):
        BOTH.check((3, 32, 4))


def stretched(x: np.ndarray[Any, Any], draw: Any) -> np.ndarray[Any, Any]:
    """One picture by PyTorch's own bilinear resizing."""
    flip, row, column, high, wide = (int(n) for n in draw)
    part = torch.from_numpy(x[None, :, row : row + high, column : column + wide])
    resized = torch.nn.functional.interpolate(part, x.shape[1:], mode="bilinear", align_corners=False)[0]
    return (resized.flip(2) if flip else resized).numpy()


@pytest.mark.parametrize("size", [(9, 6), (32, 32), (1, 5)])
def test_a_resized_crop_is_the_rectangle_stretched(size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3, *size)).astype(np.float32)
    draws = RESIZED.draws(0, 0, 60, size)
    wanted = np.stack([stretched(one, draw) for one, draw in zip(x, draws, strict=True)])
    ours = RESIZED.apply_numpy(x, draws)
    assert np.allclose(ours, wanted, atol=1e-5)
    assert RESIZED.apply(torch.from_numpy(x), draws).numpy().tobytes() == ours.tobytes()
    two = torch.from_numpy(np.stack([x, x[::-1]]))
    shared = RESIZED.apply(two, draws)[1].numpy()
    assert shared.tobytes() == RESIZED.apply_numpy(x[::-1], draws).tobytes()


def test_rectangles_lie_inside_and_are_drawn_as_they_say() -> None:
    size = (64, 48)
    draws = np.concatenate([RESIZED.draws(0, step, 400, size) for step in range(50)])
    flip, row, column, high, wide = draws.T
    assert (row >= 0).all()
    assert (column >= 0).all()
    assert (row + high <= size[0]).all()
    assert (column + wide <= size[1]).all()
    assert 0.47 < flip.mean() < 0.53
    inside = (high < size[0]) & (wide < size[1])
    ratio, area = (wide / high)[inside], (high * wide / 64 / 48)[inside]
    assert 0.68 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.45  # whole pixels
    assert 0.07 < area.min() < 0.09
    assert abs(np.median(np.log(ratio))) < 0.05
    assert (row[high == size[0]] == 0).all()
    assert {int(row.min()), int(column.min())} == {0}
    assert (row + high).max() == size[0]


def test_a_picture_without_a_rectangle_that_fits_stays_whole() -> None:
    """One row of 200 pixels: nearly every rectangle of these sides is higher."""
    draws = RESIZED.draws(0, 0, 50, (1, 200))
    assert (draws[:, 3] == 1).all()
    whole = draws[:, 4] == 200
    assert whole.any()
    assert (draws[whole, 2] == 0).all()
