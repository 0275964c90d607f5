"""The distance is the share of differing weights; training stops at the fifth calm distance in a row and not before."""

from __future__ import annotations

import numpy as np

from server_side.controls import Values
from server_side.early_bird import EarlyBird, mask_distance
from server_side.prune import Masks, keep_highest
from server_side.scores import magnitude

EVERYTHING = {"w": np.ones((1, 100), np.bool_)}


def kept(weights: Values) -> Masks:
    return keep_highest(magnitude(weights, EVERYTHING), EVERYTHING, 50, ("w",))


def weights_keeping(first: int) -> Values:
    """Those whose larger half begins at `first`."""
    value = np.full((1, 100), 0.1, np.float32)
    value[0, first : first + 50] = -1.0
    return {"w": value}


def test_distance_counts_differing_weights_over_all_layers() -> None:
    first = {"a": np.array([[True, False, True, False]]), "b": np.array([[True] * 6])}
    second = {"a": np.array([[False, True, True, False]]), "b": np.array([[True] * 5 + [False]])}
    assert mask_distance(first, second) == 0.3
    assert mask_distance(first, first) == 0


def test_it_stops_at_the_fifth_small_distance_in_a_row() -> None:
    bird = EarlyBird(kept)
    places = [0, 20, 24, 28, 30, 40, 42, 44, 46, 48, 50]  # distances .4 .08 .08 .04 .2 .04 .04 .04 .04 .04
    stops = [bird.check(10 * number, weights_keeping(first)) for number, first in enumerate(places)]
    assert stops == [False] * 10 + [True]
    assert bird.distances == [0.4, 0.08, 0.08, 0.04, 0.2, 0.04, 0.04, 0.04, 0.04, 0.04]
    assert bird.step == 100
    assert bird.mask is not None
    assert np.flatnonzero(bird.mask["w"]).tolist() == list(range(50, 100))


def test_a_distance_of_the_threshold_itself_is_not_below_it() -> None:
    bird = EarlyBird(kept, threshold=0.1, window=2)
    assert not any(bird.check(step, weights_keeping(5 * step)) for step in range(6))
    assert bird.distances == [0.1] * 5


def test_the_first_mask_has_no_distance() -> None:
    bird = EarlyBird(kept)
    assert [bird.check(step, weights_keeping(0)) for step in range(6)] == [False] * 5 + [True]


def test_after_the_stop_nothing_changes() -> None:
    bird = EarlyBird(kept, window=1)
    assert not bird.check(0, weights_keeping(0))
    assert bird.check(7, weights_keeping(1))
    assert bird.check(8, weights_keeping(30))
    assert (bird.step, bird.distances) == (7, [0.02])
    assert bird.mask is not None
    assert bird.mask["w"][0, 1]
    assert not bird.mask["w"][0, 79]


def test_a_bird_made_of_what_another_knew_goes_on_as_it_would_have() -> None:
    places = [0, 20, 24, 28, 30, 32, 34, 36]
    whole = EarlyBird(kept)
    stops = [whole.check(step, weights_keeping(first)) for step, first in enumerate(places)]
    begun = EarlyBird(kept)
    for step, first in enumerate(places[:4]):
        begun.check(step, weights_keeping(first))
    again = EarlyBird(kept, distances=list(begun.distances), mask=begun.mask, step=begun.step)
    assert [again.check(step, weights_keeping(places[step])) for step in range(4, 8)] == stops[4:]
    assert again.step == whole.step
