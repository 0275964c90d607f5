"""What a node may be: every operator sound once, and each of its rules broken once, refused by node and operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_runtime import CorruptArtifact, inspect
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.nets import Builder
from tests.device_runtime.tkt_writer import Node, Param, artifact


def node(op: int, shape: tuple[int, ...], out: tuple[int, ...], *attrs: float, **fields: Any) -> Callable[[], bytes]:
    """One node between a layer that gives `shape` and one that takes whatever comes; `vectors` are its parameters."""

    def make() -> bytes:
        b = Builder(np.random.default_rng(0), (4,))
        b.linear(int(np.prod(shape)), None)
        b.reshape(*shape)
        inputs = tuple(b.last for _ in range(fields.get("inputs", 1)))
        params = []
        for rows, cols in fields.get("params", ()):
            b.params.append(Param(np.ones((rows, cols), np.float32)))
            params.append(len(b.params) - 1)
        b.nodes.append(Node(op, inputs, tuple(params), attrs))
        b.shapes.append(out)
        b.flatten()
        b.linear(2, None)
        return artifact(b.net())

    return make


CONV = (3, 3, 1, 1, 0, 0, 1, 1, 1)  # of (2, 5, 5) gives (4, 3, 3) with a weight of (4, 18)
IMAGE, MAPS, KERNEL = (2, 5, 5), (4, 3, 3), {"params": ((4, 18), (4, 1))}
SOUND: dict[str, Callable[[], bytes]] = {
    "conv": node(ops.CONV, IMAGE, MAPS, *CONV, **KERNEL),
    "max_pool": node(ops.MAX_POOL, IMAGE, (2, 2, 2), 2, 2, 2, 2, 0, 0),
    "avg_pool": node(ops.AVG_POOL, IMAGE, (2, 2, 2), 2, 2, 2, 2, 0, 0, 1),
    "batch_norm": node(ops.BATCH_NORM, IMAGE, IMAGE, 1e-5, 0.1, 0, params=()),
    "layer_norm": node(ops.LAYER_NORM, IMAGE, IMAGE, 1e-5, 2),
    "dropout": node(ops.DROPOUT, IMAGE, IMAGE, 0.5),
    "concat": node(ops.CONCAT, IMAGE, (4, 5, 5), inputs=2),
    "softmax": node(ops.SOFTMAX, (6,), (6,)),
    "global_avg_pool": node(ops.GLOBAL_AVG_POOL, IMAGE, (2,)),
    "conv in blocks": lambda: conv_in_blocks(1),
}


def conv_with(place: int, value: int) -> Callable[[], bytes]:
    return node(ops.CONV, IMAGE, MAPS, *CONV[:place], value, *CONV[place + 1 :], **KERNEL)


def conv_in_blocks(groups: int) -> bytes:
    b = Builder(np.random.default_rng(0), (4,))
    b.linear(100, None)
    b.reshape(4, 5, 5)
    b.conv(12, 3, 0.5, groups=groups, block=4)
    b.flatten()
    b.linear(2, None)
    return artifact(b.net())


BROKEN_NODES: dict[str, Callable[[], bytes]] = {
    **{
        f"conv attribute {place} is {value}": conv_with(place, value)
        for place in range(9)
        for value in (0, 7, 2**31)
        if value or place not in (4, 5)
    },
    "conv in blocks that straddle groups": lambda: conv_in_blocks(2),
    "conv of rank 1": node(ops.CONV, (50,), MAPS, *CONV, **KERNEL),
    "conv that changes the rank": node(ops.CONV, IMAGE, (4, 9), *CONV, **KERNEL),
    "conv output": node(ops.CONV, IMAGE, (4, 3, 4), *CONV, **KERNEL),
    "conv weight": node(ops.CONV, IMAGE, MAPS, *CONV, params=((4, 9),)),
    "conv bias": node(ops.CONV, IMAGE, MAPS, *CONV, params=((4, 18), (3, 1))),
    "conv groups": node(ops.CONV, IMAGE, MAPS, *CONV[:8], 3, **KERNEL),
    "conv of length with a height": node(ops.CONV, (2, 9), (4, 7), 3, 3, 1, 1, 0, 0, 1, 1, 1, params=((4, 18),)),
    "conv without a weight": node(ops.CONV, IMAGE, MAPS, *CONV),
    "conv kernel of 257": node(ops.CONV, (1, 1, 300), (1, 1, 44), 1, 257, 1, 1, 0, 0, 1, 1, 1, params=((1, 257),)),
    "conv reach of 4097": node(ops.CONV, (1, 1, 5000), (1, 1, 904), 1, 17, 1, 1, 0, 0, 1, 256, 1, params=((1, 17),)),
    "max_pool kernel 0": node(ops.MAX_POOL, IMAGE, (2, 2, 2), 0, 2, 2, 2, 0, 0),
    "max_pool stride 0": node(ops.MAX_POOL, IMAGE, (2, 2, 2), 2, 2, 0, 2, 0, 0),
    "max_pool padding": node(ops.MAX_POOL, IMAGE, (2, 4, 4), 2, 2, 2, 2, 2, 2),
    "max_pool channels": node(ops.MAX_POOL, IMAGE, (3, 2, 2), 2, 2, 2, 2, 0, 0),
    "avg_pool count_include_pad 2": node(ops.AVG_POOL, IMAGE, (2, 2, 2), 2, 2, 2, 2, 0, 0, 2),
    "batch_norm without parameters": node(ops.BATCH_NORM, IMAGE, IMAGE, 1e-5, 0.1, 0),
    "layer_norm over nothing": node(ops.LAYER_NORM, IMAGE, IMAGE, 1e-5, 0),
    "layer_norm over 4 of 3": node(ops.LAYER_NORM, IMAGE, IMAGE, 1e-5, 4),
    "layer_norm epsilon 0": node(ops.LAYER_NORM, IMAGE, IMAGE, 0.0, 2),
    "layer_norm weight alone": node(ops.LAYER_NORM, IMAGE, IMAGE, 1e-5, 1, params=((5, 1),)),
    "layer_norm width": node(ops.LAYER_NORM, IMAGE, IMAGE, 1e-5, 1, params=((5, 1), (4, 1))),
    "leaky_relu below 0": node(ops.LEAKY_RELU, (6,), (6,), -0.5),
    "leaky_relu NaN": node(ops.LEAKY_RELU, (6,), (6,), float("nan")),
    "gelu approximation 2": node(ops.GELU, (6,), (6,), 2),
    "dropout of everything": node(ops.DROPOUT, IMAGE, IMAGE, 1.0),
    "dropout below 0": node(ops.DROPOUT, IMAGE, IMAGE, -0.5),
    "concat of one": node(ops.CONCAT, IMAGE, IMAGE, inputs=1),
    "concat of 17": node(ops.CONCAT, IMAGE, (34, 5, 5), inputs=17),
    "concat to fewer channels": node(ops.CONCAT, IMAGE, (3, 5, 5), inputs=2),
    "concat of other sizes": node(ops.CONCAT, IMAGE, (4, 5, 4), inputs=2),
    "reshape to fewer": node(ops.RESHAPE, IMAGE, (49,)),
    "softmax of an image": node(ops.SOFTMAX, IMAGE, IMAGE),
    "global_avg_pool to another number": node(ops.GLOBAL_AVG_POOL, IMAGE, (3,)),
    "global_avg_pool of features": node(ops.GLOBAL_AVG_POOL, (6,), (6,)),
    "mul of one": node(ops.MUL, (6,), (6,)),
    "an embedding of features": node(ops.EMBEDDING, (6,), (6, 3), params=((5, 3),)),
    "sigmoid that changes the shape": node(ops.SIGMOID, (6,), (2, 3)),
}


@pytest.mark.parametrize("name", [name for name in SOUND if name != "batch_norm"])
def test_the_nodes_that_are_broken_below_are_sound_before(name: str) -> None:
    inspect(SOUND[name]())


@pytest.mark.parametrize("name", BROKEN_NODES)
def test_a_node_that_breaks_a_rule_is_refused(name: str) -> None:
    with pytest.raises(CorruptArtifact, match=rf"node 2 \({name.removeprefix('an ').split()[0]}\)"):
        inspect(BROKEN_NODES[name]())


def test_a_table_in_blocks_is_refused() -> None:
    b = Builder(np.random.default_rng(0), (6,))
    b.embedding(8, 3, 0.9)
    b.flatten()
    b.linear(2, None)
    net = b.net()
    mask = np.ones((8, 3), bool)
    for block in (1, 4):
        content = artifact(replace(net, params=(replace(net.params[0], mask=mask, block=block), *net.params[1:])))
        if block == 1:
            inspect(content)
        else:
            with pytest.raises(CorruptArtifact, match=r"node 0 \(embedding\) has a weight in blocks"):
                inspect(content)
