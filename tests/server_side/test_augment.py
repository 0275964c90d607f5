"""Flips and crops: pure in (seed, step), evenly drawn, the same bits by torch and numpy, 0 beyond the border."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server_side.augment import Augmentation
from server_side.errors import UsageError

BOTH = Augmentation(flip=True, crop=4)
EVERY = [BOTH, Augmentation(flip=True), Augmentation(crop=2)]


def pictures(batch: int = 7, shape: tuple[int, int, int] = (3, 9, 6)) -> np.ndarray[Any, Any]:
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
    draws = augmentation.draws(1, 2, 40)
    wanted = np.stack([expected(one, augmentation.crop, draw) for one, draw in zip(x, draws, strict=True)])
    assert augmentation.apply_numpy(x, draws).tobytes() == wanted.tobytes()
    assert augmentation.apply(torch.from_numpy(x), draws).numpy().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8])
def test_any_type_of_number(dtype: Any) -> None:
    x, draws = (np.random.default_rng(0).random((5, 1, 8, 8)) * 200).astype(dtype), BOTH.draws(0, 0, 5)
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
    draws = np.stack([BOTH.draws(seed, 3, 7) for seed in (0, 1)])
    each = np.stack([BOTH.apply_numpy(one, draw) for one, draw in zip(x, draws, strict=True)])
    assert BOTH.apply(torch.from_numpy(x), draws).numpy().tobytes() == each.tobytes()
    shared = np.stack([BOTH.apply_numpy(one, draws[0]) for one in x])
    assert BOTH.apply(torch.from_numpy(x), torch.from_numpy(draws[0])).numpy().tobytes() == shared.tobytes()


def test_what_is_given_is_not_changed() -> None:
    x = pictures()
    before, draws = x.tobytes(), BOTH.draws(0, 0, 7)
    drawn = draws.copy()
    assert not np.shares_memory(BOTH.apply_numpy(x, draws), x)
    BOTH.apply(torch.from_numpy(x), draws)
    assert x.tobytes() == before
    assert np.array_equal(draws, drawn)


def test_draws_are_a_function_of_seed_and_step() -> None:
    backwards = [BOTH.draws(3, step, 32) for step in reversed(range(10))]
    for step in range(10):
        assert np.array_equal(BOTH.draws(3, step, 32), backwards[9 - step])
    assert not np.array_equal(BOTH.draws(3, 0, 32), BOTH.draws(3, 1, 32))
    assert not np.array_equal(BOTH.draws(3, 0, 32), BOTH.draws(4, 0, 32))
    assert not np.array_equal(BOTH.draws(0, 12, 32), BOTH.draws(1, 2, 32)), "names of streams do not run together"
    state = str(np.random.get_state())  # noqa: NPY002
    BOTH.draws(0, 0, 32)
    assert str(np.random.get_state()) == state  # noqa: NPY002


def test_draws_are_even_and_independent() -> None:
    """Chi-squared by hand: 18 of 162 cells at once, 40,000 draws, far from the bound for a generator that is even."""
    draws = np.concatenate([BOTH.draws(0, step, 400) for step in range(100)])
    assert draws.min(axis=0).tolist() == [0, 0, 0]
    assert draws.max(axis=0).tolist() == [1, 8, 8]
    cells = np.bincount(draws @ [81, 9, 1], minlength=162)
    wanted = len(draws) / 162
    chi_squared = float(((cells - wanted) ** 2 / wanted).sum())
    assert 161 - 4 * np.sqrt(2 * 161) < chi_squared < 161 + 4 * np.sqrt(2 * 161)
    consecutive = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(consecutive) < 4 / np.sqrt(len(draws))


def test_what_is_not_asked_for_is_not_drawn() -> None:
    assert not Augmentation(crop=4).draws(0, 0, 500)[:, 0].any()
    assert not Augmentation(flip=True).draws(0, 0, 500)[:, 1:].any()


@pytest.mark.parametrize(
    ("text", "augmentation"),
    [("flip", Augmentation(True, 0)), ("crop4", Augmentation(False, 4)), ("flip,crop4", BOTH), ("crop4,flip", BOTH)],
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
]


@pytest.mark.parametrize("text", WRONG)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UsageError, match=f"^augment '{text}': expected flip, crop4 or flip,crop4"):
        Augmentation.parse(text)


def test_what_is_no_picture_is_refused() -> None:
    BOTH.check((3, 32, 32))
    BOTH.check((1, 5, 5))
    for shape in ((64,), (3, 4, 4, 4)):
        with pytest.raises(UsageError, match="pictures are \\(channels, height, width\\) or"):
            BOTH.check(shape)
    with pytest.raises(UsageError, match="pictures of 32 x 4 pixels; take a smaller crop"):
        BOTH.check((3, 32, 4))
