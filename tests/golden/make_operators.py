"""Writes `operators.tkt` and `sequences.tkt`: between them every operator, for the C tests that run on every target; and
`packed.tkt`, which is the first one packed.

`python -m tests.golden.make_operators` rewrites the files; a test holds them against this script, byte for byte. Built by
tests/device_runtime/tkt_writer.py, which knows FORMAT.md alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.nets import Builder
from tests.device_runtime.tkt_writer import Net, Recipe, artifact, packed_artifact

HERE = Path(__file__).parent


def images() -> Net:
    """(3, 9, 8) in; a residual block, a depthwise one, pooling of every kind, every activation."""
    b = Builder(np.random.default_rng(11), (3, 9, 8))
    b.conv(8, 3, 0.6, pad=1, bias=False)
    b.batch_norm()
    source = b.relu()
    b.conv(8, 3, 0.4, pad=1, block=8)
    b.unary(ops.LEAKY_RELU, 0.1)
    b.add(source)
    b.pool(ops.MAX_POOL, 2, 2)
    b.conv(8, 3, None, pad=1, groups=8)
    b.unary(ops.RELU6)
    b.conv(6, (3, 2), 0.5, stride=(2, 1), pad=1, dilation=(1, 2), groups=2, wide=True)
    gate = b.unary(ops.HARDSWISH)
    b.unary(ops.SIGMOID)
    b.mul(gate)
    b.concat(gate)
    b.pool(ops.AVG_POOL, 2, 1, 1, 0)
    b.layer_norm(2)
    b.unary(ops.GELU, 0)
    b.unary(ops.DROPOUT, 0.2)
    b.global_avg_pool()
    b.linear(12, 0.5, block=4)
    b.linear(10, 0.5)
    b.unary(ops.TANH)
    b.linear(5, None)
    recipe = Recipe(
        batch=8,
        label_smoothing=0.1,
        clip_norm=5.0,
        schedule=ops.COSINE,
        warmup_steps=5,
        schedule_steps=40,
        schedule_factor=0.1,
    )
    return b.net(
        recipe=recipe, class_weights=(1.0, 0.5, 2.0, 1.0, 1.5), mean=(0.1, 0.0, -0.1), inverse_std=(1.0, 2.0, 0.5)
    )


def sequences() -> Net:
    """(7) entries of 12; embedding, one-dimensional convolution, softmax, layer norm over features, floats as targets."""
    b = Builder(np.random.default_rng(12), (7,))
    b.embedding(12, 6, 0.7)
    b.conv(5, 3, 0.6, pad=1, stride=2)
    b.unary(ops.GELU, 1)
    b.flatten()
    b.layer_norm(1)
    b.linear(6, 0.6)
    b.unary(ops.SOFTMAX)
    b.linear(3, None)
    return b.net(loss=ops.BCE, recipe=Recipe(optimizer=ops.ADAMW, batch=8, weight_decay=0.01, learning_rate=0.01))


def packed() -> Net:
    """The images, with lines of every kind that a matrix has."""
    net = images()
    lines = (2, 3, 9, 27, 0, 72, 1023)
    return replace(net, params=tuple(replace(p, line=lines[i % len(lines)]) for i, p in enumerate(net.params)))


FILES = {"operators.tkt": images, "sequences.tkt": sequences}
CONTENTS = {name: artifact(net()) for name, net in FILES.items()} | {"packed.tkt": packed_artifact(packed())}

if __name__ == "__main__":
    for name, content in CONTENTS.items():
        (HERE / name).write_bytes(content)
        print(f"{name}: {len(content)} bytes")
