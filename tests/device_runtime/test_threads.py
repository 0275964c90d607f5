"""One trainer with threads of its own: the bits of one thread, for every kind of node and of update."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from device_runtime import InvalidInput, Trainer
from tests.device_runtime import nets
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.nets import Builder
from tests.device_runtime.tkt_writer import ADAM, Net, Recipe, artifact


def image_net(recipe: Recipe) -> Net:
    """Large enough that every node is shared out."""
    b = Builder(np.random.default_rng(3), (3, 20, 20))
    b.conv(24, 3, 0.5, pad=1, bias=False)
    b.batch_norm()
    source = b.relu()
    b.conv(24, 3, 0.4, pad=1, block=4)
    b.add(source)
    b.conv(32, 3, None, pad=1, stride=2)
    b.unary(ops.GELU, 0)
    b.pool(ops.MAX_POOL, 2, 2)
    b.unary(ops.DROPOUT, 0.2)
    b.pool(ops.AVG_POOL, 2, 1, 0, 1)
    b.flatten()
    b.layer_norm(1)
    b.linear(96, 0.2, block=8)
    b.relu()
    b.linear(10, None)
    return b.net(recipe=recipe)


RECIPES = {
    "plain SGD": Recipe(batch=40, momentum=0.0, learning_rate=0.05),
    "momentum": Recipe(batch=40, learning_rate=0.05, weight_decay=1e-3),
    "Adam with clipping": Recipe(optimizer=ADAM, batch=40, learning_rate=1e-3, clip_norm=1.0),
}


def trained(net: Net, threads: int, micro_batch: int = 0) -> tuple[bytes, bytes, bytes]:
    x, y = nets.task(net, 100)
    with Trainer.open(artifact(net), threads=threads, micro_batch=micro_batch) as trainer:
        losses = trainer.fit(x, y, steps=4).losses
        return losses.tobytes(), trainer.values.tobytes(), trainer.predict(x).tobytes()


@pytest.mark.parametrize("micro_batch", [0, 17])
@pytest.mark.parametrize("recipe", RECIPES)
def test_results_do_not_depend_on_the_threads(recipe: str, micro_batch: int) -> None:
    for net in (image_net(RECIPES[recipe]), nets.lenet(0.2, recipe=RECIPES[recipe])):
        wanted = trained(net, 1, micro_batch)
        for threads in (2, 3, 7):
            assert trained(net, threads, micro_batch) == wanted


def thread_names() -> list[str]:
    return os.listdir("/proc/self/task")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell a process's threads")
def test_the_threads_end_with_the_trainer() -> None:
    net = nets.small()
    before = len(thread_names())
    trainer = Trainer.open(artifact(net), threads=4)
    assert len(thread_names()) == before + 3
    trainer.close()
    assert len(thread_names()) == before
    dropped = Trainer.open(artifact(net), threads=3)
    del dropped
    assert len(thread_names()) == before


def test_trainers_with_threads_run_side_by_side() -> None:
    net = nets.lenet(0.2, recipe=RECIPES["momentum"])
    wanted, found = trained(net, 1), {}
    runs = [threading.Thread(target=lambda n=n: found.update({n: trained(net, 2 + n)})) for n in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [found[n] == wanted for n in range(3)] == [True] * 3


@pytest.mark.parametrize("threads", [0, 65, -1])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: int) -> None:
    with pytest.raises(InvalidInput, match=rf"threads (is )?{threads}"):
        Trainer.open(artifact(nets.small()), threads=threads)


MEDDLING = """
import sys, threading, time
import numpy as np
from device_runtime import InvalidInput, Trainer
which, artifact = sys.argv[1:]
rows, labels = np.zeros((3_000_000, 4), np.uint32), np.zeros(4000, np.int32)
trainer = Trainer.open(artifact, batch=4000)
samples = np.zeros((4000, trainer.info.input_elements), np.float32)
target, bad = {"rows": (rows[1000:], 2**32 - 16), "labels": (labels, 2**31 - 16), "samples": (samples, 3e9)}[which]
done = False

def meddle():
    time.sleep(0.05)
    while not done:
        target[...] = bad
        target[...] = 0

meddler = threading.Thread(target=meddle)
meddler.start()
refused = 0
for _ in range(1 if which == "rows" else 300):
    try:
        trainer.train_steps(samples, labels, rows) if which == "rows" else trainer._engine.evaluate(samples, labels)
    except InvalidInput:
        refused += 1
done = True
meddler.join()
print("refused", refused)
"""


@pytest.mark.parametrize("which", ["rows", "labels", "samples"])
def test_what_another_thread_writes_meanwhile_does_no_harm(tmp_path: Path, which: str) -> None:
    """Places in memory are used as they were checked; in a process of its own, which would die else."""
    builder = Builder(np.random.default_rng(0), (2,))
    if which == "samples":
        builder.embedding(5, 2)
        builder.flatten()
    builder.linear(3, None)
    (tmp_path / "net.tkt").write_bytes(artifact(builder.net()))
    command = [sys.executable, "-c", MEDDLING, which, str(tmp_path / "net.tkt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
    assert which != "rows" or done.stdout.split() == ["refused", "1"]
