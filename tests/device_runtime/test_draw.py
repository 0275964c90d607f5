"""Values drawn from a seed: the core's bits are those of the numpy reference in export, their moments those of torch's fills."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from device_runtime import InvalidInput, draw
from export.drawn import Distribution, philox

SAMPLES = 100_000
# Without chance: the seeds are fixed. Below this a test of equal distributions would be surprised.
SURPRISE = 1e-3


def bits(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint32)


def test_philox_gives_its_authors_words() -> None:
    """Two of the known answers of Random123; the C test has three."""
    assert [int(word) for word in philox(0, [np.uint64(0)] * 4)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    counter = [np.uint64(word) for word in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
    words = philox(0x299F31D0_A4093822, counter)
    assert [int(word) for word in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("kind", ["constant", "uniform", "normal"])
@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**64 - 1])
def test_core_and_reference_agree_in_every_bit(kind: str, seed: int) -> None:
    for a, b, stream, first in ((0.0, 0.05, 0, 0), (-1.5, 3.0, 7, 2**32 - 5000), (1e-30, 2e-30, 2**32 - 1, 12345)):
        distribution = Distribution(kind, a, 0.0 if kind == "constant" else b)
        drawn = draw(seed, stream, kind, a, distribution.b, 5000, first=first)
        assert drawn.dtype == np.float32
        assert np.array_equal(bits(drawn), bits(distribution.draw(seed, stream, np.arange(first, first + 5000))))


def test_a_value_is_a_pure_function_of_its_number() -> None:
    whole = draw(5, 3, "normal", 0, 1, 1000)
    assert np.array_equal(bits(draw(5, 3, "normal", 0, 1, 1000)), bits(whole))
    assert np.array_equal(bits(draw(5, 3, "normal", 0, 1, 100, first=900)), bits(whole[900:]))
    some = np.array([999, 0, 17])
    assert np.array_equal(bits(Distribution("normal", 0, 1).draw(5, 3, some)), bits(whole[some]))
    assert draw(5, 3, "normal", 0, 1, 0).shape == (0,)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_streams_and_seeds_are_independent(kind: str) -> None:
    """No correlation beyond five standard errors: of neighbours, of streams, of seeds, even those that differ in a bit."""
    first = draw(1, 0, kind, 0, 1, SAMPLES)
    others = [
        draw(seed, stream, kind, 0, 1, SAMPLES) for seed, stream in ((1, 1), (0, 0), (1 + 2**32, 0), (2**63 + 1, 0))
    ]
    for other in (*others, np.roll(first, 1), np.roll(first, 2)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 5 / np.sqrt(SAMPLES)


LAYERS: dict[str, tuple[Callable[[], torch.Tensor], str, float, float]] = {
    "a linear layer as torch makes it": (lambda: nn.Linear(200, 500).weight, "uniform", -(200**-0.5), 200**-0.5),
    "its bias": (lambda: nn.Linear(200, 50_000).bias, "uniform", -(200**-0.5), 200**-0.5),
    "a convolution as torch makes it": (lambda: nn.Conv2d(20, 500, 3).weight, "uniform", -(180**-0.5), 180**-0.5),
    "Gaussian Glorot": (lambda: nn.init.xavier_normal_(torch.empty(100, 784)), "normal", 0, (2 / 884) ** 0.5),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_distributions_are_those_of_torch(layer: str) -> None:
    """By Kolmogorov and Smirnov, against torch's draw and against the distribution itself; and by the moments."""
    make, kind, a, b = LAYERS[layer]
    torch.manual_seed(3)
    theirs = make().detach().numpy().ravel()
    ours = draw(3, 0, kind, a, b, SAMPLES)
    exact = stats.norm(a, b) if kind == "normal" else stats.uniform(a, b - a)
    assert stats.ks_2samp(ours, theirs).pvalue > SURPRISE
    assert stats.kstest(ours.astype(np.float64), exact.cdf).pvalue > SURPRISE
    assert abs(ours.mean() - exact.mean()) < 5 * exact.std() / np.sqrt(SAMPLES)
    assert abs(ours.std() / exact.std() - 1) < 5 / np.sqrt(2 * SAMPLES)


def test_the_tails_of_the_normal_are_there() -> None:
    values = draw(2, 1, "normal", 0, 1, 1_000_000)
    for size in (3.0, 4.0):
        expected = 2_000_000 * stats.norm.sf(size)
        assert abs((np.abs(values) > size).sum() - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 0, "cauchy", 0, 1, 1), "distribution 'cauchy': take one of constant, uniform, normal"),
        ((0, 0, "uniform", 1, 0, 1), "distribution 1 of 1 and 0 is none"),
        ((0, 0, "normal", 0, float("nan"), 1), "distribution 2 of 0 and NaN is none"),
        ((0, 0, "normal", 0, 1e300, 1), "distribution 2 of 0 and infinity is none"),
        ((0, 0, "constant", 1, 1, 1), "distribution 0 of 1 and 1 is none"),
        ((2**64, 0, "normal", 0, 1, 1), "seed 18446744073709551616: must be at least 0 and below"),
        ((0, -1, "normal", 0, 1, 1), "stream -1: must be at least 0"),
        ((0, 0, "normal", 0, 1, -1), "count -1: must be at least 0"),
    ],
)
def test_what_is_no_distribution_is_refused(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        draw(*arguments)
    with pytest.raises(InvalidInput, match="count 2 from element 4294967295 on is beyond"):
        draw(0, 0, "normal", 0, 1, 2, first=2**32 - 1)
