"""Small artifacts with huge announcements: sizes are told exactly and at once, and nothing is allocated before a refusal."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from device_runtime import BudgetExceeded, CorruptArtifact, Trainer, _core, inspect
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import HARDSWISH, LINEAR, RELU, Net, Node, Param, artifact

SECONDS = 0.5  # of the processor, for a call that only reads


def broad(elements: int, nodes: int) -> bytes:
    """Two live weights on a huge input, behind `nodes` relus."""
    weight, mask = np.zeros((2, elements), np.float32), np.zeros((2, elements), bool)
    mask[:, -1] = True
    chain = tuple(Node(RELU, (index,)) for index in range(nodes))
    shapes = ((elements,),) * (nodes + 1) + ((2,),)
    return artifact(Net(shapes, (*chain, Node(LINEAR, (nodes,), (0,))), (Param(weight, mask, wide=True),)))


@pytest.mark.parametrize(("nodes", "file_bytes"), [(0, 1000), (400, 20000)])
def test_a_huge_arena_is_told_exactly_and_refused_at_once(nodes: int, file_bytes: int) -> None:
    elements, batch = 2**24, 65536
    content = broad(elements, nodes)
    assert len(content) < file_bytes
    started = time.process_time()
    facts = inspect(content, batch=batch)
    assert facts["memory"]["activations"] >= 4 * batch * elements
    assert facts["arena_bytes"] == sum(size for name, size in facts["memory"].items() if name != "total")
    with pytest.raises(BudgetExceeded, match=r"needs \d+ bytes, but the budget is 1000000"):
        Trainer.open(content, batch=batch, budget_bytes=10**6)
    options = _core.default_options(content)
    options.batch = batch
    with pytest.raises(BudgetExceeded):  # the arena given is too small, whatever it is for
        _core.CoreTrainer(content, options, 4096)
    assert time.process_time() - started < SECONDS


def test_a_deep_graph_takes_no_stack_and_no_time() -> None:
    content = artifact(_deep(1000))
    started = time.process_time()
    with Trainer.open(content) as trainer:
        x, y = nets.task(_deep(1000), 8)
        trainer.fit(x, y, steps=3)
        assert np.isfinite(trainer.values).all()
    assert time.process_time() - started < 4 * SECONDS


def test_the_search_for_a_plan_takes_no_time() -> None:
    """Nothing of it may lie over another, and every recomputation is tried."""
    builder = nets.Builder(np.random.default_rng(0), (4,))
    builder.linear(5, None)
    for _ in range(1000):
        builder.unary(HARDSWISH)
    builder.linear(3, None)
    content = artifact(builder.net())
    started = time.process_time()
    facts = inspect(content, recompute=True)
    assert facts["recomputed_nodes"] > 900
    assert facts["arena_bytes"] < inspect(content)["arena_bytes"]
    with pytest.raises(BudgetExceeded, match="needs"):
        Trainer.open(content, batch=65536, budget_bytes=1000)
    assert time.process_time() - started < 8 * SECONDS


CARDS = {
    "deep list": b"[" * 2**20,
    "deep object": b'{"a":' * 2**17,
    "half a pair": b'{"labels": ["\\ud800"]}',
    "NaN": b'{"a": NaN}',
    "too large": b'{"a": 1e999}',
    "no text": b"\xff",
    "a list": b"[]",
    "empty": b"",
}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_a_card_that_is_no_json_object_is_refused(card: bytes) -> None:
    with pytest.raises(CorruptArtifact, match="card"):
        inspect(artifact(nets.small(), card=card))


def _deep(nodes: int) -> Net:
    builder = nets.Builder(np.random.default_rng(0), (4,))
    builder.linear(5, None)
    for _ in range(nodes - 2):
        builder.relu()
    builder.linear(3, None)
    return builder.net()


@pytest.mark.parametrize("steps", [0, 2])
def test_no_samples_are_refused_by_the_module_itself(steps: int) -> None:
    """Below Trainer, which refuses them too; in a process of its own, since what is tested for is a death."""
    script = f"""
import sys
import numpy as np
from device_runtime import InvalidInput, Trainer
with Trainer.open(sys.argv[1]) as trainer:
    core, x, y = trainer._engine, np.zeros((0, 12), np.float32), np.zeros(0, np.int32)
    rows = np.zeros(({steps}, 3), np.uint32)
    for call in (lambda: core.train_steps(x, y, rows, None), lambda: core.train_step(x, y), lambda: core.predict(x),
                 lambda: core.evaluate(x, y), lambda: core.compute_gradients(x, y), lambda: core.next_batch(0)):
        try:
            call()
        except InvalidInput as error:
            print("refused", error)
"""
    with tempfile.NamedTemporaryFile(suffix=".tkt") as file:
        file.write(artifact(nets.small()))
        file.flush()
        done = subprocess.run([sys.executable, "-c", script, file.name], capture_output=True, text=True, check=True)
    assert done.stdout.count("refused") == 6
