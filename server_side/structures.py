"""Structured masks: weights that are pruned together, as groups, or so many of each few inputs (N:M).

A group's score is the mean of the scores of its live weights, so that groups of different sizes can compete; for equal
sizes that is the order of sums. Magnitudes give the order of L1 norms, squares of magnitudes that of L2 norms. Scores and
tie rule as in prune.py: high stays, of equals the group whose first weight comes first goes. Groups once pruned stay so.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.network import Network
from server_side.errors import UsageError
from server_side.prune import Masks, Scores, checked, excess, split

Structure = Literal["blocks-of-4", "blocks-of-8", "rows"]
Groups = dict[str, NDArray[np.intp]]
"""Of each layer, the number of the group of every weight; groups are numbered in the order of their first weights."""
BLOCK_ROWS = {"blocks-of-4": (4,), "blocks-of-8": (8, 4)}  # what is tried, in this order
MAX_BLOCK_COLUMNS = 65536  # FORMAT.md: blocks have columns of 16 bits


def groups_of(network: Network, structure: Structure) -> Groups:
    """The groups of every prunable weight.

    `rows`: an output unit, or a whole filter of a convolution; the rows of the output layer are classes, which the caller
    leaves out. `blocks-of-8`: 8 consecutive rows of a
    column, as the artifact stores and the device computes them (FORMAT.md, PARAMS); where 8 does not divide the rows of
    a convolution's group or of the layer, 4, and where that does not either, or the columns are more than 65,536, every
    weight is a group of its own: a part of such a layer in blocks would not be stored as blocks.
    """
    users = {node.params["weight"]: node for node in network.nodes if "weight" in node.params}
    found: Groups = {}
    for name in network.prunable:
        shape, node = network.parameter_shapes[name], users[name]
        if structure == "rows":
            found[name] = row_groups(shape)
        elif structure in BLOCK_ROWS:
            together = shape[0] // node.whole("groups") if node.op == "conv" else shape[0]
            fits = node.op != "embedding" and math.prod(shape[1:]) <= MAX_BLOCK_COLUMNS
            block = next((rows for rows in BLOCK_ROWS[structure] if fits and together % rows == 0), 1)
            found[name] = block_groups(shape, block)
        else:
            raise UsageError(f"structure '{structure}' is not known; known are {', '.join([*BLOCK_ROWS, 'rows'])}")
    return found


def row_groups(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Every row of the first axis is a group."""
    rows = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(rows, shape))


def block_groups(shape: tuple[int, ...], block: int) -> NDArray[np.intp]:
    """Every `block` consecutive rows of a column are a group; `block` divides the rows."""
    columns = math.prod(shape[1:])
    numbers = np.arange(shape[0] // block * columns).reshape(-1, 1, columns)
    return np.repeat(numbers, block, axis=1).reshape(shape)


def keep_highest_groups(scores: Scores, masks: Masks, groups: Groups, live: int, layers: tuple[str, ...]) -> Masks:
    """Prunes the groups with the lowest scores of `layers` taken together, one after another, until the next one would
    leave fewer than `live` weights: exactly n of them, n = (weights to remove) // (weights of a group) where all have one
    size. Raises LayerCollapse where a layer would be left empty, UsageError where fewer than `live` are live already."""
    starts = np.cumsum([0, *(int(groups[name].max()) + 1 for name in layers)])
    group = np.concatenate([groups[name].ravel() + start for name, start in zip(layers, starts[:-1], strict=True)])
    flat_mask = np.concatenate([masks[name].ravel() for name in layers])
    flat_scores = np.concatenate([scores[name].ravel() for name in layers])
    sizes = np.bincount(group[flat_mask], minlength=starts[-1])
    sums = np.bincount(group[flat_mask], weights=flat_scores[flat_mask], minlength=starts[-1])
    candidates = np.flatnonzero(sizes)
    order = candidates[np.argsort(sums[candidates] / sizes[candidates], kind="stable")]
    pruned = np.zeros(len(sizes), np.bool_)
    pruned[order[np.cumsum(sizes[order]) <= excess(masks, live, layers)]] = True
    return checked({**masks, **split(flat_mask & ~pruned[group], masks, layers)})


def whole_rows(scores: Scores, masks: Masks) -> tuple[Scores, Masks]:
    """`masks` in which a row is live as a whole if any of it is, whatever it no longer reads, and scores of which a row's mean is
    that of its live weights in `masks`."""
    means, whole = {}, {}
    for name, mask in masks.items():
        rows = mask.reshape(len(mask), -1)
        shape = (-1, *[1] * (mask.ndim - 1))
        whole[name] = np.broadcast_to(rows.any(axis=1).reshape(shape), mask.shape).copy()
        if name in scores:
            live = np.where(rows, scores[name].reshape(rows.shape), 0).sum(axis=1, dtype=np.float64)
            means[name] = np.broadcast_to((live / np.maximum(rows.sum(axis=1), 1)).reshape(shape), mask.shape)
    return means, whole


def keep_n_of_m(scores: Scores, masks: Masks, n: int, m: int, layers: tuple[str, ...]) -> Masks:
    """Of every `m` consecutive inputs of an output (axis 1; of a kernel, position by position) at most the `n` with the
    highest scores stay, fewer where fewer are live; 2:4 is Mishra et al. 2021.

    Where `m` does not divide the inputs, the last few count as `m` with zeros added, as hardware does, and keep up to `n`.
    The device's runtime has no kernels for N:M: it stores and computes these as single weights.
    """
    if not 0 < n < m:
        raise UsageError(f"{n}:{m} must leave at least 1 and fewer than all of {m}")
    return {**masks, **{name: _n_of_m(scores[name], masks[name], n, m) for name in layers}}


def _n_of_m(scores: NDArray[np.floating], mask: NDArray[np.bool_], n: int, m: int) -> NDArray[np.bool_]:
    inputs = mask.shape[1]
    padded = -(-inputs // m) * m
    ranked = np.full((padded, mask.shape[0], *mask.shape[2:]), -np.inf)  # inputs first
    ranked[:inputs] = np.where(mask, scores, -np.inf).swapaxes(0, 1)
    fews = ranked.reshape(padded // m, m, *ranked.shape[1:])
    order = np.argsort(fews, axis=1, kind="stable")
    stays = np.zeros(fews.shape, np.bool_)
    np.put_along_axis(stays, order[:, m - n :], True, axis=1)
    kept: NDArray[np.bool_] = mask & stays.reshape(ranked.shape)[:inputs].swapaxes(0, 1)
    return kept
