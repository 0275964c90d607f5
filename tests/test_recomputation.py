"""Memory saved by computing twice is nothing but memory: losses, gradients, values and checkpoints are the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device_runtime import BudgetExceeded, Trainer, inspect
from device_runtime.artifact import KERNELS
from export.to_native import to_native_bytes
from tests.architectures import ARCHITECTURES
from tests.device_runtime import nets
from tests.device_runtime import tkt_writer as ops
from tests.device_runtime.test_operators import CASES, available_kernels, batch_of
from tests.device_runtime.tkt_writer import Net, artifact
from tests.export.architecture_tickets import architecture_ticket

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd in place": {"optimizer": "sgd", "momentum": 0.0},
    "momentum": {"optimizer": "sgd", "momentum": 0.9},
    "adam": {"optimizer": "adam"},
    "sgd in parts": {"optimizer": "sgd", "momentum": 0.0, "micro_batch": 5},
}


def trained(content: bytes, x: Any, y: Any, steps: int = 3, **settings: Any) -> tuple[bytes, bytes, bytes]:
    """All bits of a short training: its losses, the gradients after it if they are kept, and its checkpoint."""
    with Trainer.open(content, batch=len(x), learning_rate=0.01, seed=3, **settings) as trainer:
        losses = [trainer.train_step(x[: len(x) - step], y[: len(x) - step]) for step in range(steps)]
        trainer.evaluate(x, y)  # which runs forward alone, in between
        losses += [trainer.train_step(x, y)]
        gradients = b""
        if settings.get("optimizer") != "sgd" or settings.get("momentum") or settings.get("store_gradients"):
            losses += [trainer.compute_gradients(x, y)]
            gradients = trainer.gradients.tobytes()
        return np.array(losses).tobytes(), gradients, trainer.save()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_train_to_the_same_bits(name: str) -> None:
    content = to_native_bytes(architecture_ticket(name))
    for batch in (1, 6, 17):
        x, y = ARCHITECTURES[name].samples(batch).numpy(), np.arange(batch, dtype=np.int32) % 2
        for optimizer in OPTIMIZERS.values():
            steps = min(batch - 1, 2)
            whole = trained(content, x, y, steps, **optimizer)
            assert trained(content, x, y, steps, recompute=True, **optimizer) == whole
