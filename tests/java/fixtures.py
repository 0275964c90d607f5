"""What the Java tests read: tickets, samples, and what the Python trainer made of them, as raw little-endian files.

Written anew for each run of the tests; the Java side compares bits, never digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from device_runtime import Trainer
from export.sign import keygen, sign
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import ADAM, BCE, CROSS_ENTROPY, MSE, Net, Node, Recipe, artifact

GOLDEN = Path(__file__).parents[1] / "golden"
SAMPLES, SEED, HALF_WAY = 50, 7, 5
LOSSES = {"labels": CROSS_ENTROPY, "mse": MSE, "bce": BCE}
RECIPE = Recipe(ADAM, batch=8, learning_rate=1e-2, epochs=3)


def write(folder: Path) -> None:
    """One folder a loss, each with a whole run and its middle; and at the top keys and artifacts that are refused."""
    for name, loss in LOSSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        run(folder / name, loss)
    refused(folder, artifact(nets.small()))
    (folder / "tiny.tkt").write_bytes((GOLDEN / "tiny.tkt").read_bytes())
    signed(folder)


def run(folder: Path, loss: int) -> None:
    net = nets.small(recipe=RECIPE, loss=loss)
    x, y = nets.task(net, SAMPLES)
    rows = np.eye(net.class_count, dtype=np.float32)[y]
    targets = y if loss == CROSS_ENTROPY else rows
    (folder / "net.tkt").write_bytes(artifact(net))
    with Trainer.open(folder / "net.tkt", seed=SEED) as trainer:
        half = trainer.fit(x, targets, steps=HALF_WAY)
        trainer.save(folder / "half.tkc")
        report = trainer.fit(x, targets)
        evaluation = trainer.evaluate(x, targets)
        floats = {
            "x": x,
            "losses": np.concatenate([half.losses, report.losses]),
            "values": trainer.values,
            "outputs": trainer.predict(x),
        }
        for name, array in floats.items():
            (folder / f"{name}.f32").write_bytes(array.astype("<f4").tobytes())
        (folder / "y.bin").write_bytes(targets.astype("<i4" if loss == CROSS_ENTROPY else "<f4").tobytes())
        (folder / "end.tkc").write_bytes(trainer.save())
        (folder / "trained.tkt").write_bytes(trainer.export())
        tell(folder / "facts.properties", trainer, {"loss": evaluation.loss, "correct": evaluation.correct})


def tell(path: Path, trainer: Trainer, facts: Mapping[str, float]) -> None:
    info = trainer.info
    numbers = {
        **facts,
        "value_count": info.value_count,
        "dense_count": info.dense_count,
        "nnz": info.nnz,
        "density": info.density,
        "epochs": info.epochs,
        "parameter_count": info.parameter_count,
        "arena_bytes": trainer.arena_bytes,
        "ticket_hash": info.ticket_hash,
        "operators": ",".join(info.operators),
        "labels": ",".join(info.labels),
    }
    lines = [f"{name}={value.hex() if isinstance(value, float) else value}" for name, value in numbers.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def refused(folder: Path, good: bytes) -> None:
    net = nets.small()
    version = bytearray(good)
    version[8] = 9
    (folder / "version.tkt").write_bytes(version)
    unknown = artifact(Net(net.shapes, (*net.nodes[:-1], Node(77, (5,))), net.params))
    (folder / "operator.tkt").write_bytes(unknown)
    (folder / "card.tkt").write_bytes(artifact(net, card=b'{"labels": [1, 2}'))
    (folder / "utf8.tkt").write_bytes(artifact(net, card=b'{"task": "caf\xe9"}'))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    (folder / "flipped.tkt").write_bytes(flipped)
    (folder / "cut.tkt").write_bytes(good[:-1])
    (folder / "empty.tkt").write_bytes(b"")


def signed(folder: Path) -> None:
    for owner in ("ours", "theirs"):
        keygen([str(folder / owner)])
    sign([str(folder / "tiny.tkt"), "--key", str(folder / "ours/private.pem")])
