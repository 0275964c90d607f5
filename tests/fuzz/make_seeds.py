"""Writes what the fuzz targets begin with: `FOLDER/artifact/*.tkt`, the golden artifacts among them, and `FOLDER/calls/*`.

python -m tests.fuzz.make_seeds FOLDER

Equal runs write equal files. A new operator comes in by its case in test_operators.py or by a golden artifact.
Checkpoints are made by their target.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.device_runtime import nets, test_operators
from tests.device_runtime.tkt_writer import (
    ADAM,
    ADAMW,
    ARTIFACT_MAGIC,
    COSINE,
    SGD,
    STEP,
    Net,
    Recipe,
    artifact,
    file,
    packed_artifact,
    packed_values,
    section,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PROGRAMS, PROGRAM_BYTES, TANGLED = 24, 600, 12
PACKED = {
    "small": "float32",
    "wide": "float16",
    "masked": "float32",
    "trained": "float16",
    "plain": "float16",
    "tangled-1": "float32",
}


def seed_nets() -> dict[str, Net]:
    """Small networks of every encoding, optimizer and kind of edge; more classes and inputs than lanes in one of them."""
    random = np.random.default_rng(5)
    wide = nets.Builder(random, (33,))
    wide.linear(18, 0.4, wide=True)
    wide.relu()
    wide.linear(21, 0.2, bias=False)
    fork = nets.Builder(random, (2, 3))
    flat = fork.flatten()
    fork.linear(6, None)
    fork.add(flat)
    skip = fork.relu()
    fork.flatten()
    fork.add(skip)
    fork.linear(3, 0.7)
    masked = nets.Builder(random, (2, 5, 4))
    masked.conv(3, 3, 0.7, pad=1, masked=True)
    masked.relu()
    masked.flatten()
    masked.linear(3, 0.8, masked=True)
    small = nets.small(recipe=Recipe(SGD, momentum=0.9, weight_decay=0.01))
    return {
        "small": small,
        "adam": nets.small(recipe=Recipe(ADAM, learning_rate=0.01)),
        "trained": nets.small(trained=tuple(-param.stored for param in small.params)),
        "origin": nets.small(origin=(10**6, 10**5)),
        "plain": nets.mlp((5, 2), None, recipe=Recipe(SGD, momentum=0.0)),
        "wide": wide.net(),
        "fork": fork.net(),
        "masked": masked.net(),
        "scheduled": nets.small(recipe=Recipe(ADAMW, schedule=COSINE, schedule_steps=4, warmup_steps=2, clip_norm=0.5)),
        "nesterov": nets.small(recipe=Recipe(SGD, nesterov=True, schedule=STEP, schedule_steps=2, schedule_factor=0.1)),
        **{f"tangled-{seed}": nets.tangled(seed) for seed in range(TANGLED)},
    } | {name.replace(" ", "-"): make() for name, make in test_operators.CASES.items()}


def with_optional_section(content: bytes) -> bytes:
    """The artifact as a newer minor version may have it."""
    sections = [(kind, content[slice(at, at + size)]) for kind in range(1, 8) for at, size in [section(content, kind)]]
    return file(ARTIFACT_MAGIC, [*sections, (0x8001, b"newer")], content[24:56], (1, 3))


def packed(name: str, net: Net) -> bytes:
    """With lines of several lengths, and of one network the trained values packed too."""
    lines = (0, 2, 33, 9)
    params = tuple(replace(param, line=lines[number % 4]) for number, param in enumerate(net.params))
    ticket_hash = hashlib.sha256(f"packed {name}".encode()).digest()
    trained = {"packed_trained": packed_values(net, "float16")} if name == "small" else {}
    return packed_artifact(replace(net, params=params, ticket_hash=ticket_hash), PACKED[name], **trained)


def drawn(name: str, net: Net) -> bytes:
    """With a seed in the place of the values, of every distribution but for state."""
    each = [
        (0, 1.0, 0.0) if param.state else (index % 3, -0.5 * (index % 3), 0.5 * (index % 3))
        for index, param in enumerate(net.params)
    ]
    seed = struct.pack("<2IQ", 3, 0, 7) + b"".join(struct.pack("<I2f", *one) for one in each)
    ticket_hash = hashlib.sha256(f"drawn {name}".encode()).digest()
    return packed_artifact(replace(net, ticket_hash=ticket_hash), packed_init=seed)


def write_seeds(folder: Path) -> None:
    artifacts, calls = folder / "artifact", folder / "calls"
    for place in (artifacts, calls):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    for path in sorted(GOLDEN.glob("*.tkt")):
        shutil.copy(path, artifacts / f"golden-{path.name}")
    for name, net in seed_nets().items():  # the hash tells the checkpoint target which artifact is meant
        content = artifact(replace(net, ticket_hash=hashlib.sha256(name.encode()).digest()))
        (artifacts / f"{name}.tkt").write_bytes(content)
        if name in PACKED:
            (artifacts / f"packed-{name}.tkt").write_bytes(packed(name, net))
            (artifacts / f"drawn-{name}.tkt").write_bytes(drawn(name, net))
        if name == "plain":
            (artifacts / "optional.tkt").write_bytes(with_optional_section(content))
    random = np.random.default_rng(0)
    for number in range(PROGRAMS):
        (calls / f"program-{number:02}").write_bytes(random.bytes(PROGRAM_BYTES))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.fuzz.make_seeds FOLDER")
    write_seeds(Path(sys.argv[1]))
