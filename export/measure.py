"""`python -m export.measure ARTIFACT`: what training an artifact takes here, in a process of its own; one JSON object.

Time is the median of STEPS steps on one thread, after some to warm up. Memory is by how much the process grew from before the
artifact was opened to the highest it stood at, without the code of Python and the runtime; native artifacts tell theirs exactly.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS, WARM = 31, 5


def measure(artifact: Path) -> dict[str, Any]:
    from device_runtime import Trainer
    from device_runtime.backends import ENGINES, NATIVE, runtime_of

    runtime = runtime_of(artifact)
    native = runtime == NATIVE
    if not native:
        importlib.import_module(ENGINES[runtime][0])
    random, before = np.random.default_rng(0), _memory("VmRSS")
    with Trainer.open(artifact, threads=1) as trainer:
        shape, classes = trainer.info.input_shape, trainer.info.class_count
        whole = "embedding" in trainer.info.operators
        draw = (lambda size: random.integers(0, 2, size)) if whole else random.standard_normal
        x = draw((trainer.batch, *shape)).astype(np.float32)
        y: Any = random.integers(0, classes, trainer.batch).astype(np.int32)
        if trainer.info.loss != "cross_entropy":
            y = random.random((trainer.batch, classes)).astype(np.float32)
        times = []
        for _ in range(WARM + STEPS):
            begun = time.perf_counter()
            trainer.train_step(x, y)
            times.append(time.perf_counter() - begun)
        return {
            "batch": trainer.batch,
            "step_ms": 1000 * statistics.median(times[WARM:]),
            "memory_bytes": trainer.arena_bytes if native else _memory("VmHWM") - before,
            "memory_is_exact": native,
            "parts": dict(trainer.info.sections),
        }


def _memory(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its highest. What getrusage tells is that of the process that started it, if more."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/self/status does not tell {which}; measure on Linux")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
