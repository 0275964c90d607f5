"""The order of stored values: which rows make blocks, how blocks are written, and that values come back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from export.layout import block_of, stored_values, whole_values
from export.network import Network, Node, Parameter
from export.ticket import Bits, Ticket
from export.to_native import to_native_bytes
from tests.export.test_to_native import reading
from tests.export.tickets import Builder, same_bits, small_parts, window
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


def pruned_layer(op: str, mask: Bits) -> Ticket:
    """One linear layer, or a convolution of 3x3 over images of one pixel."""
    rows, cols = len(mask), mask.shape[1]
    builder = Builder((cols // 9, 1, 1) if op == "conv" else (cols,))
    shape = (rows, cols // 9, 3, 3) if op == "conv" else (rows, cols)
    settings = window(builder.shape, kernel=3, stride=1, pad=1, dilation=1) | {"groups": 1} if op == "conv" else {}
    builder.add(op, params={"weight": shape}, **settings)
    if op == "conv":
        builder.add("reshape", shape=(rows,))
    network = builder.network()
    (name,) = network.parameter_shapes
    weight = np.where(mask, 1 + np.arange(mask.size).reshape(mask.shape), 0).astype(np.float32)
    return Ticket(network, {name: weight.reshape(shape)}, {name: mask.reshape(shape)}, card=small_parts()["card"])


@pytest.mark.parametrize(
    ("op", "live", "encoding"), [("linear", 134, 1), ("linear", 135, 5), ("conv", 152, 1), ("conv", 153, 5)]
)
def test_a_layer_that_is_hardly_pruned_is_stored_whole(op: str, live: int, encoding: int) -> None:
    """Of 180 weights."""
    mask = (np.random.default_rng(0).permutation(180) < live).reshape(10, 18)
    ticket = pruned_layer(op, mask)
    (found,) = read(to_native_bytes(ticket))["parameters"]
    assert (found["encoding"], found["nnz"]) == (encoding, live)
    assert found["live"] == np.argwhere(mask).tolist()
    assert same_bits(found["init"], next(iter(ticket.init.values())).reshape(mask.shape)[mask])
    stored = stored_values(ticket.network, ticket.masks, ticket.init)
    assert len(stored) == (180 if encoding == 5 else live)
    (back,) = whole_values(ticket.network, ticket.masks, stored).values()
    assert same_bits(back, np.where(mask, 1 + np.arange(180).reshape(mask.shape), 0))


def test_what_is_hardly_pruned_is_stored_whole_even_in_blocks_but_not_with_u32_columns_or_as_a_table() -> None:
    (found,) = read(to_native_bytes(pruned_layer("linear", np.ones((8, 5), np.bool_))))["parameters"]
    assert (found["encoding"], found["nnz"]) == (5, 40)
    (found,) = read(to_native_bytes(pruned_layer("linear", np.ones((2, 65537), np.bool_))))["parameters"]
    assert found["encoding"] == 2
    table = reading(0.0, 1.0)
    ticket = dataclasses.replace(table, masks={"embedding0.weight": np.ones((5, 2), np.bool_)})
    (found,) = read(to_native_bytes(ticket))["parameters"]
    assert found["encoding"] == 1
