"""How the native artifact stores parameters: as matrices, whose rows may share their columns in blocks, and in which order.

FORMAT.md, PARAMS and INIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.network import Network
from export.operators import OPERATORS
from export.ticket import Bits, Floats

BLOCKS = (8, 4)
NARROW_COLUMNS = 65536  # as many have 16 bits


@dataclass(frozen=True)
class Layout:
    """A parameter as a matrix; `block` rows share their columns. Without a `mask` it is stored dense."""

    shape: tuple[int, ...]
    rows: int
    cols: int
    mask: Bits | None  # (rows, cols)
    block: int

    @property
    def stored(self) -> NDArray[np.intp]:
        """The places of the stored values, numbered row-major, in the artifact's order: a block column by column."""
        places = np.arange(self.rows * self.cols)
        if self.mask is None:
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
        block = 1
        if mask is not None and user is not None and user.op != "embedding":
            block = block_of(mask, rows // user.whole("groups") if user.op == "conv" else rows)
        found[parameter.name] = Layout(parameter.shape, rows, cols, mask, block)
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
        whole[name] = array.reshape(layout.shape)
    return whole
