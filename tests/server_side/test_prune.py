"""Exactly n weights go, whatever the ties; quotas count what is pruned and nothing else; the paper's ladder holds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server_side.prune import LayerCollapse, Masks, Weights, keep_highest, live_count, removed_count

LAYERS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9),
                    elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]))  # fmt: skip


def prune(weights: Weights, masks: Masks, fraction: float, *layers: str) -> Masks:
    """Removes a share of the live weights of `layers` taken together, by magnitude."""
    live = live_count(masks, layers)
    return keep_highest({n: np.abs(weights[n]) for n in layers}, masks, live - removed_count(live, fraction), layers)


@given(LAYERS, st.floats(0.05, 0.8))
def test_exactly_n_weights_go_with_any_ties(weight: np.ndarray, fraction: float) -> None:
    before = {"w": np.ones(weight.shape, np.bool_)}
    count = round(fraction * weight.size)
    after = prune({"w": weight}, before, fraction, "w")["w"]
    assert int(after.sum()) == weight.size - count
    if count:
        assert np.abs(weight[~after]).max() <= np.abs(weight[after]).min()


def test_among_equals_the_lower_position_goes_first() -> None:
    weight = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], np.float32)
    mask = prune({"w": weight}, {"w": np.ones((2, 3), np.bool_)}, 0.5, "w")["w"]
    assert mask.tolist() == [[False, False, False], [True, True, True]]


def test_magnitude_decides_not_sign() -> None:
    weight = np.array([[-5.0, 0.1, 4.0, -0.2]], np.float32)
    assert prune({"w": weight}, {"w": np.ones((1, 4), np.bool_)}, 0.5, "w")["w"].tolist() == [
        [True, False, True, False]
    ]


def test_masks_are_nested_and_a_live_zero_is_not_a_pruned_weight() -> None:
    weight = np.array([[0.0, 0.0, 3.0, 4.0]], np.float32)
    first = prune({"w": weight}, {"w": np.array([[False, True, True, True]])}, 1 / 3, "w")["w"]
    assert first.tolist() == [[False, False, True, True]]


def test_global_quota_counts_the_pruned_layers_alone() -> None:
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(10, 10)).astype(np.float32) for name in ("a", "b", "kept")}
    masks = {name: np.ones((10, 10), np.bool_) for name in weights}
    after = prune(weights, masks, 0.2, "a", "b")
    assert sum(int(after[name].sum()) for name in ("a", "b")) == 160
    assert after["kept"].all()


def test_global_compares_over_layers() -> None:
    weights = {"small": np.full((2, 2), 0.1, np.float32), "large": np.full((2, 2), 9.0, np.float32)}
    masks = {name: np.ones((2, 2), np.bool_) for name in weights}
    after = prune(weights, masks, 0.25, "small", "large")
    assert int(after["small"].sum()) == 2
    assert after["large"].all()


def test_a_layer_is_never_emptied() -> None:
    weights = {"a": np.full((1, 2), 0.1, np.float32), "b": np.full((1, 6), 9.0, np.float32)}
    masks = {name: np.ones(w.shape, np.bool_) for name, w in weights.items()}
    with pytest.raises(LayerCollapse, match="'a'"):
        prune(weights, masks, 0.3, "a", "b")


@pytest.mark.parametrize(("rounds", "percent"), [(3, 51.3), (7, 21.1), (9, 13.5), (15, 3.6), (18, 1.9), (20, 1.2)])
def test_the_ladder_of_lenet_is_the_papers(rounds: int, percent: float) -> None:
    live = [235_200, 30_000, 1_000]
    for _ in range(rounds):
        live = [n - removed_count(n, fraction) for n, fraction in zip(live, (0.2, 0.2, 0.1), strict=True)]
    exact = 265_200 * Fraction(8, 10) ** rounds + 1000 * Fraction(9, 10) ** rounds
    assert abs(sum(live) - exact) <= 3 * 2.5  # each layer's rounding of a half a round, damped by 0.8
    assert round(100 * sum(live) / 266_200, 1) == percent
