"""The order of stored values: which rows make blocks, how blocks are written, and that values come back."""

from __future__ import annotations

import numpy as np
import pytest

from export.layout import block_of, stored_values, whole_values
from export.network import Network, Node, Parameter
from export.ticket import Bits, Ticket
from export.to_native import to_native_bytes
from tests.export.tickets import same_bits, small_parts
from tests.export.tkt_reader import read


def in_blocks(block: int, *, rows: int, cols: int = 5) -> Bits:
    """Blocks of `block` rows with columns of their own, the first with none."""
    patterns = np.random.default_rng(0).random((rows, cols)) < 0.5
    patterns[0] = False
    patterns[1:, :2] = [[True, False]]  # no block is like the next but by chance, and none is empty
    patterns[1::2, :2] = [[False, True]]
    return np.repeat(patterns, block, axis=0)[:rows]


@pytest.mark.parametrize(("block", "found"), [(1, 1), (2, 1), (4, 4), (8, 8), (12, 4), (16, 8)])
def test_blocks_are_the_largest_whose_rows_share_their_columns(block: int, found: int) -> None:
    mask = in_blocks(block, rows=48)
    assert block_of(mask, 48) == found
    assert block_of(mask, 12) == min(found, 4)  # a block may not straddle groups of rows
    assert block_of(mask, 3) == 1
    mask[-1] ^= True  # one row is enough
    assert block_of(mask, 48) == 1


@pytest.mark.parametrize(("block", "cols", "encoding"), [(4, 5, 3), (4, 65537, 2), (8, 5, 4), (8, 65536, 4), (1, 5, 1)])
def test_blocks_are_written_once_and_their_values_column_by_column(block: int, cols: int, encoding: int) -> None:
    network = Network((cols,), (Parameter("w", (16, cols), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
    mask = in_blocks(block, rows=16, cols=cols)
    weight = np.where(mask, np.random.default_rng(1).normal(size=mask.shape), 0).astype(np.float32)
    artifact = to_native_bytes(Ticket(network, {"w": weight}, {"w": mask}, card=small_parts()["card"]))
    (found,) = read(artifact)["parameters"]
    assert found["encoding"] == encoding
    assert sorted(found["live"]) == np.argwhere(mask).tolist()
    assert same_bits(found["init"], np.array([weight[row, column] for row, column in found["live"]]))


@pytest.mark.parametrize("block", [1, 4, 8])
def test_stored_values_go_back(block: int) -> None:
    network = Network((5,), (Parameter("w", (16, 5), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
    masks = {"w": in_blocks(block, rows=16)}
    values = {"w": np.where(masks["w"], np.arange(1, 81).reshape(16, 5), 0).astype(np.float32)}
    stored = stored_values(network, masks, values)
    assert same_bits(whole_values(network, masks, stored)["w"], values["w"])
    first = [4 * [k] for k in np.flatnonzero(masks["w"][block])]  # of the first block that is not empty
    if block == 4:
        assert stored[: 4 * len(first)].reshape(-1, 4).tolist() == [
            [float(5 * row + k[0] + 1) for row in range(4, 8)] for k in first
        ]
