"""Groups go whole and exactly n of them; blocks are what the exporter stores as blocks; N:M leaves at most N of every M."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.layout import layouts
from export.lower import lower
from export.network import Network
from server_side.errors import UsageError
from server_side.prune import LayerCollapse, Masks, keep_highest
from server_side.structures import Structure, block_groups, groups_of, keep_highest_groups, keep_n_of_m, row_groups


class Grouped(nn.Module):
    """Filters: 16 in 2 groups of 8; 24; 24 in 2 groups of 12, which blocks of 8 would straddle; then rows: 12 and 10."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 16, 3, groups=2), nn.Conv2d(16, 24, 1)
        self.c, self.fc, self.out = nn.Conv2d(24, 24, 1, groups=2), nn.Linear(24, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))).mean((2, 3))
        y: torch.Tensor = self.out(torch.relu(self.fc(x)))
        return y


NETWORK = lower(Grouped(), (2, 6, 6))
LAYERS = NETWORK.prunable


def dense(network: Network) -> Masks:
    return {name: np.ones(network.parameter_shapes[name], np.bool_) for name in network.prunable}


def drawn(masks: Masks, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=mask.shape).astype(np.float32) for name, mask in masks.items()}


@pytest.mark.parametrize(
    ("structure", "blocks"),
    [
        ("blocks-of-8", {"a.weight": 8, "b.weight": 8, "c.weight": 4, "fc.weight": 4, "out.weight": 1}),
        ("blocks-of-4", {"a.weight": 4, "b.weight": 4, "c.weight": 4, "fc.weight": 4, "out.weight": 1}),
    ],
)
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_blocks_are_stored_as_blocks(structure: Structure, blocks: dict[str, int], scope: str) -> None:
    masks, groups = dense(NETWORK), groups_of(NETWORK, structure)
    assert {name: set(np.bincount(numbers.ravel())) for name, numbers in groups.items()} == {
        name: {rows} for name, rows in blocks.items()
    }
    for pool in [LAYERS] if scope == "global" else [(name,) for name in LAYERS]:
        live = sum(masks[name].size for name in pool) // 3
        masks = keep_highest_groups(drawn(masks), masks, groups, live, pool)
    stored = layouts(NETWORK, masks)
    assert {name: layout.block for name, layout in stored.items() if layout.mask is not None} == blocks
    assert all(0 < mask.mean() < 1 for mask in masks.values())


def test_rows_are_whole_filters() -> None:
    groups = groups_of(NETWORK, "rows")
    masks = dense(NETWORK)
    after = keep_highest_groups(drawn(masks), masks, groups, 16 * 9 // 2, ("a.weight",))
    rows = after["a.weight"].reshape(16, -1)
    assert (rows.all(1) | ~rows.any(1)).all()
    assert rows.any(1).sum() == 8
    assert all(after[name] is masks[name] for name in LAYERS[1:])


def test_groups_are_numbered_by_their_first_weights() -> None:
    assert block_groups((4, 3), 2).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert row_groups((2, 2, 1)).tolist() == [[[0], [0]], [[1], [1]]]
    assert groups_of(NETWORK, "blocks-of-8")["out.weight"].ravel().tolist() == list(range(120))
    for groups in groups_of(NETWORK, "blocks-of-4").values():
        _, first = np.unique(groups, return_index=True)
        assert (np.diff(first) > 0).all()


def test_a_layer_too_wide_for_narrow_columns_has_no_blocks() -> None:
    wide = lower(nn.Sequential(nn.Flatten(), nn.Linear(65537, 8)), (65537,))
    assert groups_of(wide, "blocks-of-8")["1.weight"][1, 0] == 65537


@given(st.integers(1, 96), st.integers(0, 2**32 - 1))
def test_exactly_n_groups_go_the_lowest_and_of_equals_the_first(live: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = {name: np.ones((8, 6), np.bool_) for name in ("x", "y")}
    groups = {name: block_groups((8, 6), 4) for name in masks}
    scores = {name: np.repeat(generator.integers(-2, 3, (2, 6)), 4, axis=0).astype(np.float32) for name in masks}
    try:
        after = keep_highest_groups(scores, masks, groups, live, ("x", "y"))
    except LayerCollapse:
        return
    flat = np.concatenate([after[name].reshape(2, 4, 6).swapaxes(1, 2).reshape(12, 4) for name in masks])
    assert (flat.all(1) | ~flat.any(1)).all()
    gone = (96 - live) // 4
    assert (~flat.any(1)).sum() == gone
    by_group = np.concatenate([scores[name].reshape(2, 4, 6)[:, 0].ravel() for name in masks])
    assert (np.flatnonzero(~flat.any(1)) == np.sort(np.argsort(by_group, kind="stable")[:gone])).all()


def test_single_weights_are_pruned_as_prune_does() -> None:
    masks = dense(NETWORK)
    scores = drawn(masks)
    groups = {name: block_groups(mask.shape, 1) for name, mask in masks.items()}
    live = sum(mask.size for mask in masks.values()) // 5
    grouped, plain = keep_highest_groups(scores, masks, groups, live, LAYERS), keep_highest(scores, masks, live, LAYERS)
    assert all((grouped[name] == plain[name]).all() for name in LAYERS)


def test_groups_of_different_sizes_compete_by_their_mean() -> None:
    """The sum would let a block of 4 with means of 0.5 beat a single weight of 1."""
    masks = {"block": np.ones((4, 2), np.bool_), "single": np.ones((1, 2), np.bool_)}
    groups = {"block": block_groups((4, 2), 4), "single": block_groups((1, 2), 1)}
    scores = {"block": np.array([[0.5, 3.0]] * 4), "single": np.array([[1.0, 0.1]])}
    after = keep_highest_groups(scores, masks, groups, 5, ("block", "single"))
    assert after["block"].tolist() == [[False, True]] * 4
    assert after["single"].tolist() == [[True, False]]
    short = keep_highest_groups(scores, masks, groups, 6, ("block", "single"))  # the block would leave 5
    assert short["block"].all()
    assert short["single"].tolist() == [[True, False]]


def test_groups_once_pruned_stay_pruned() -> None:
    masks, groups = dense(NETWORK), groups_of(NETWORK, "blocks-of-4")
    for number in range(5):
        live = sum(int(mask.sum()) for mask in masks.values()) * 4 // 5
        after = keep_highest_groups(drawn(masks, number), masks, groups, live, LAYERS)
        assert all((masks[name] | ~after[name]).all() for name in LAYERS)
        assert live <= sum(int(mask.sum()) for mask in after.values()) < live + 4
        masks = after


def test_a_layer_is_never_emptied_and_nothing_comes_back() -> None:
    masks, groups = {"w": np.ones((4, 2), np.bool_)}, {"w": block_groups((4, 2), 4)}
    with pytest.raises(LayerCollapse, match="'w'"):
        keep_highest_groups({"w": np.ones((4, 2))}, masks, groups, 0, ("w",))
    half = {"w": np.array([[True, False]] * 4)}
    with pytest.raises(UsageError, match="5 live weights asked for, but 4 are live"):
        keep_highest_groups({"w": np.ones((4, 2))}, half, groups, 5, ("w",))


@given(st.sampled_from([(2, 4), (4, 8), (1, 4)]), st.integers(1, 13), st.integers(0, 2**32 - 1))
def test_n_of_m_leaves_the_highest_n_of_every_m_inputs(pattern: tuple[int, int], inputs: int, seed: int) -> None:
    n, m = pattern
    generator = np.random.default_rng(seed)
    mask = generator.random((3, inputs, 2)) < 0.8
    scores = generator.integers(-2, 3, mask.shape).astype(np.float32)
    after = keep_n_of_m({"w": scores}, {"w": mask, "kept": mask}, n, m, ("w",))
    assert after["kept"] is mask
    for row, position in np.ndindex(3, 2):
        for start in range(0, inputs, m):
            few = slice(start, start + m)
            before, left = mask[row, few, position], after["w"][row, few, position]
            assert left.sum() == min(n, before.sum())
            assert not (left & ~before).any()
            live = np.flatnonzero(before)
            worst_first = live[np.argsort(scores[row, few, position][live], kind="stable")]
            assert set(np.flatnonzero(left)) == set(worst_first[-n:])


def test_n_of_m_tightens_in_rounds() -> None:
    masks = {"w": np.ones((5, 16), np.bool_)}
    scores = drawn(masks)
    three = keep_n_of_m(scores, masks, 3, 4, ("w",))
    two = keep_n_of_m(scores, three, 2, 4, ("w",))
    assert (three["w"] | ~two["w"]).all()
    assert (two["w"] == keep_n_of_m(scores, masks, 2, 4, ("w",))["w"]).all()
    assert two["w"].mean() == 0.5


def test_patterns_and_structures_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="4:4 must leave"):
        keep_n_of_m({}, {}, 4, 4, ())
    with pytest.raises(UsageError, match="structure 'diagonal' is not known; known are blocks-of-4, blocks-of-8, rows"):
        groups_of(NETWORK, "diagonal")  # type: ignore[arg-type]
