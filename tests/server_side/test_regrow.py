"""Counts are exact in every replica, replicas never mix, drops go by magnitude and growth by gradient, schedules end where the
papers end them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server_side.errors import UsageError
from server_side.prune import keep_highest
from server_side.regrow import (
    erk_counts,
    gradual_density,
    prune_and_regrow,
    prune_stack,
    regrow,
    update_fraction,
    with_highest,
    without_lowest,
)

SHAPES = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.integers(2, 40), min_size=2, max_size=4).map(tuple), min_size=1
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masked_layer(replicas: int, *shape: int, live: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and a mask with `live` weights in every replica."""
    mask = without_lowest(
        draw(replicas, *shape, seed=seed + 1), torch.ones(replicas, *shape, dtype=torch.bool), math.prod(shape) - live
    )
    return draw(replicas, *shape, seed=seed) * mask, mask


def test_the_update_fraction_is_half_a_cosine_that_ends_at_three_quarters() -> None:
    assert update_fraction(0, 1000) == 0.3
    assert update_fraction(375, 1000) == pytest.approx(0.15)
    assert update_fraction(250, 1000, first=0.5) == pytest.approx(0.375)
    assert 0 < update_fraction(749, 1000) < 1e-5
    assert [update_fraction(step, 1000) for step in (750, 751, 1000)] == [0, 0, 0]
    with pytest.raises(UsageError, match=r"end 1.5 of the mask updates"):
        update_fraction(0, 10, end=1.5)


def test_gradual_density_falls_as_a_cube() -> None:
    assert [gradual_density(step, 100, 300, 1.0, 0.1) for step in (0, 100)] == [1.0, 1.0]
    assert gradual_density(200, 100, 300, 1.0, 0.1) == pytest.approx(0.1 + 0.9 / 8)
    assert [gradual_density(step, 100, 300, 1.0, 0.1) for step in (300, 999)] == [0.1, 0.1]
    with pytest.raises(UsageError, match="from step 5 to 5"):
        gradual_density(5, 5, 5, 1.0, 0.1)


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_the_batched_rule_is_that_of_prune(live: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 4, 5)) < 0.9
    scores = generator.integers(-2, 3, masks.shape).astype(np.float32)
    counts = np.maximum(masks.sum((1, 2)) - live - 1, 0)
    after = without_lowest(torch.tensor(scores), torch.tensor(masks), torch.tensor(counts)).numpy()
    for replica in range(3):
        left = int(masks[replica].sum() - counts[replica])
        expected = keep_highest({"w": scores[replica]}, {"w": masks[replica]}, left, ("w",))
        assert (after[replica] == expected["w"]).all()


def test_of_equals_the_first_goes_first_and_comes_back_first() -> None:
    mask = torch.tensor([[True, True, False, True], [True, True, True, True]])
    ones = torch.ones(2, 4)
    assert without_lowest(ones, mask, 2).int().tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]
    few = torch.tensor([[False, False, True, False], [False, False, False, False]])
    assert with_highest(ones, few, torch.tensor([2, 1])).int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_an_update_drops_small_weights_and_grows_large_gradients() -> None:
    weights = torch.tensor([[-3.0, 0.1, 2.0, -0.2, 0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, True, False, False, False, False]])
    gradient = torch.tensor([[9.0, 0.0, 9.0, 0.3, 0.1, -5.0, 0.2, -0.4]])
    moved, after = regrow(weights, mask, gradient, 0.5)
    assert after.int().tolist() == [[1, 0, 1, 0, 0, 1, 0, 1]]
    assert moved.tolist() == [[-3.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_a_weight_that_is_dropped_and_grown_at_once_keeps_its_value() -> None:
    weights, mask = torch.tensor([[-3.0, 0.1, 0.0]]), torch.tensor([[True, True, False]])
    moved, after = regrow(weights, mask, torch.tensor([[0.0, -7.0, 1.0]]), 0.5)
    assert after.tolist() == mask.tolist()
    assert moved.tolist() == weights.tolist()


def test_live_weights_that_stay_cannot_be_grown_again() -> None:
    """Were they candidates, their large gradients would take the places and the density would fall."""
    weights, mask = masked_layer(4, 10, 10, live=30)
    gradient = torch.where(mask, 100.0, draw(4, 10, 10, seed=5) * 1e-3)
    _, after = regrow(weights, mask, gradient, 0.2)
    assert after.flatten(1).sum(1).tolist() == [30] * 4


@given(st.floats(0, 1), st.integers(1, 60), st.integers(0, 1000))
def test_every_replica_keeps_its_count_and_new_weights_are_zero(fraction: float, live: int, seed: int) -> None:
    weights, mask = masked_layer(3, 5, 4, 3, live=live, seed=seed)
    moved, after = regrow(weights, mask, draw(3, 5, 4, 3, seed=seed + 2), fraction)
    assert after.flatten(1).sum(1).tolist() == [live] * 3
    assert (moved[~after] == 0).all()
    assert (moved[after & ~mask] == 0).all()
    assert torch.equal(moved[after & mask], weights[after & mask])
    assert ((mask & ~after).flatten(1).sum(1) <= round(fraction * live)).all()


def test_replicas_do_not_mix_and_the_inputs_stay() -> None:
    weights, mask = masked_layer(5, 6, 7, live=20)
    gradient = draw(5, 6, 7, seed=9)
    before = weights.clone(), mask.clone(), gradient.clone()
    moved, after = regrow(weights, mask, gradient, 0.3)
    for replica in range(5):
        alone = slice(replica, replica + 1)
        one, one_mask = regrow(weights[alone], mask[alone], gradient[alone], 0.3)
        assert torch.equal(one, moved[alone])
        assert torch.equal(one_mask, after[alone])
    assert all(torch.equal(now, then) for now, then in zip((weights, mask, gradient), before, strict=True))


def test_a_replica_that_diverged_keeps_its_count_and_touches_no_other() -> None:
    weights, mask = masked_layer(2, 10, 10, live=40)
    gradient = draw(2, 10, 10, seed=9)
    sound = regrow(weights, mask, gradient, 0.3)
    weights[0][mask[0]] = torch.nan
    gradient[0] = torch.inf
    moved, after = regrow(weights, mask, gradient, 0.3)
    assert after.flatten(1).sum(1).tolist() == [40, 40]
    assert torch.equal(moved[1], sound[0][1])
    assert torch.equal(after[1], sound[1][1])


def test_gradual_pruning_compares_over_layers_and_never_grows() -> None:
    weights = {"a": draw(3, 4, 5), "b": draw(3, 6, 5, seed=1) * 3, "kept": draw(3, 2, 2)}
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in weights.items()}
    after = prune_stack(weights, masks, 25, ("a", "b"))
    for replica in range(3):
        numpy = {name: value[replica].abs().numpy() for name, value in weights.items()}
        expected = keep_highest(numpy, {n: m[replica].numpy() for n, m in masks.items()}, 25, ("a", "b"))
        assert all((after[name][replica].numpy() == mask).all() for name, mask in expected.items())
    assert after["kept"] is masks["kept"]
    assert after["a"].sum() < after["b"].sum()
    same = prune_stack(weights, after, 30, ("a", "b"))
    assert all(torch.equal(same[name], after[name]) for name in weights)


def test_granet_prunes_then_regrows_each_layer_by_its_own_share() -> None:
    weights = {"a": draw(2, 8, 5), "b": draw(2, 6, 5, seed=1), "kept": draw(2, 2, 2)}
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in weights.items()}
    gradients = {name: draw(*value.shape, seed=4) for name, value in weights.items()}
    pruned = prune_stack(weights, masks, 35, ("a", "b"))
    moved, after = prune_and_regrow(weights, masks, gradients, 35, 0.5, ("a", "b"))
    assert (after["a"].flatten(1).sum(1) + after["b"].flatten(1).sum(1)).tolist() == [35, 35]
    for name in ("a", "b"):
        assert torch.equal(after[name].flatten(1).sum(1), pruned[name].flatten(1).sum(1))
        assert not torch.equal(after[name], pruned[name])
        assert (moved[name][~after[name]] == 0).all()
        assert (moved[name][after[name] & ~pruned[name]] == 0).all()  # pruned now, grown now: it starts at 0
    assert moved["kept"] is weights["kept"]


@given(SHAPES, st.floats(0.01, 1))
def test_layer_counts_add_up_exactly(shapes: dict[str, tuple[int, ...]], density: float) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    try:
        counts = erk_counts(shapes, density)
    except UsageError as error:
        assert "without a weight" in str(error)  # noqa: PT017
        return
    assert counts.keys() == shapes.keys()
    assert sum(counts.values()) == round(density * sum(sizes.values()))
    assert all(0 < counts[name] <= size for name, size in sizes.items())


def test_erk_gives_small_layers_more_and_caps_them() -> None:
    shapes = {"conv1": (16, 3, 3, 3), "conv2": (64, 64, 3, 3), "fc": (10, 64)}
    counts = erk_counts(shapes, 0.1)
    size, raw = {n: math.prod(s) for n, s in shapes.items()}, {n: sum(s) for n, s in shapes.items()}
    assert counts["conv1"] == size["conv1"]  # (16 + 3 + 3 + 3) / 432 asks for more than all
    left = 0.1 * sum(size.values()) - size["conv1"] - size["fc"]
    assert counts["fc"] == size["fc"]
    assert counts["conv2"] == pytest.approx(left, abs=1)
    free = erk_counts(shapes, 0.01)
    factor = 0.01 * sum(size.values()) / sum(raw.values())
    assert all(free[name] == pytest.approx(factor * raw[name], abs=1) for name in shapes)


def test_densities_that_leave_a_layer_empty_are_refused() -> None:
    with pytest.raises(UsageError, match=r"density 0.0001 leaves 'a' without a weight"):
        erk_counts({"a": (2, 2), "b": (500, 500)}, 0.0001)
    with pytest.raises(UsageError, match=r"density 1.5 must be"):
        erk_counts({"a": (2, 2)}, 1.5)
