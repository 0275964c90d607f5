"""How the native artifact stores parameters: as matrices, whose rows may share their columns in blocks, or which are whole
although some weights are pruned, and in which order.

FORMAT.md, PARAMS and INIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from export.network import Network
from export.operators import OPERATORS
from export.ticket import Bits, Floats

BLOCKS = (8, 4)
# From this density on a layer is stored whole, with a list of what is pruned. From 3/4 on that takes no more bytes than CSR,
# 4 + 2 (1 - density) <= 6 density, and a linear layer is faster, in batches from 8 already from 50 to 70 % on, in batches of
# one from 85 to 90 %. A convolution is from 50 % on AVX-512, but from 85 to 90 % on AVX2 and in batches of one
# (benchmarks/dense_fallback.py).
MASKED_DENSITY: Mapping[str, float] = MappingProxyType({"linear": 0.75, "conv": 0.85})
NARROW_COLUMNS = 65536  # as many have 16 bits


@dataclass(frozen=True)
class Layout:
    """A parameter as a matrix. Without a `mask` it is dense; `masked` stores every weight too, the pruned ones as 0; else the
    live ones are stored, and `block` rows share their columns."""

    shape: tuple[int, ...]
    rows: int
    cols: int
    mask: Bits | None  # (rows, cols)
    block: int
    masked: bool

    @property
    def stored(self) -> NDArray[np.intp]:
        """The places of the stored values, numbered row-major, in the artifact's order: a block column by column."""
        places = np.arange(self.rows * self.cols)
        if self.mask is None or self.masked:
            return places
        by_block = (self.rows // self.block, self.block, self.cols)
        live: NDArray[np.bool_] = self.mask.reshape(by_block).swapaxes(1, 2)
        found: NDArray[np.intp] = places.reshape(by_block).swapaxes(1, 2)[live]
        return found


def layouts(network: Network, masks: Mapping[str, Bits]) -> dict[str, Layout]:
    """Of each parameter, in the artifact's order."""
    users = {node.params["weight"]: node for node in network.nodes if OPERATORS[node.op].matrix}
    found = {}
    for parameter in network.parameters:
        user = users.get(parameter.name)
        rows = parameter.size if user is None else parameter.shape[0]
        cols = parameter.size // rows
        mask = masks[parameter.name].reshape(rows, cols) if parameter.name in masks else None
        block, masked = 1, False
        if mask is not None and user is not None and user.op in MASKED_DENSITY:
            masked = cols <= NARROW_COLUMNS and bool(mask.mean() >= MASKED_DENSITY[user.op])
            if not masked:
                block = block_of(mask, rows // user.whole("groups") if user.op == "conv" else rows)
        found[parameter.name] = Layout(parameter.shape, rows, cols, mask, block, masked)
    return found


def block_of(mask: Bits, group: int) -> int:
    """The largest number of consecutive rows, of BLOCKS, that always have the same live columns; 1 if none has.

    It divides the `group` of rows, those of one group of a convolution.
    """
    for block in BLOCKS:
        if group % block == 0 and mask.shape[1] <= NARROW_COLUMNS:
            blocks = mask.reshape(-1, block, mask.shape[1])
            if (blocks == blocks[:, :1]).all():
                return block
    return 1


def stored_values(network: Network, masks: Mapping[str, Bits], values: Mapping[str, Floats]) -> Floats:
    """The values as an artifact and a trainer have them, parameter after parameter."""
    parts = [values[name].ravel()[layout.stored] for name, layout in layouts(network, masks).items()]
    return np.concatenate(parts).astype(np.float32)


def whole_values(network: Network, masks: Mapping[str, Bits], stored: Floats) -> dict[str, Floats]:
    """Every parameter in its shape from `stored_values`; what is pruned is 0."""
    whole, start = {}, 0
    for name, layout in layouts(network, masks).items():
        places = layout.stored
        array = np.zeros(layout.rows * layout.cols, np.float32)
        array[places] = stored[start : start + len(places)]
        start += len(places)
        array = array.reshape(layout.shape)
        whole[name] = array if layout.mask is None else np.where(masks[name], array, np.float32(0))
    return whole
