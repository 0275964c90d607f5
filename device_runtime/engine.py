"""What a Trainer drives: the compiled core, or a runtime that an app ships already (backends/)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Targets = NDArray[np.int32] | Floats


class Engine(Protocol):
    """One network, its optimizer and sample order. Samples are raw, (n, input_elements); targets int32 (n,), or float32
    (n, class_count) for mse and bce. At most a batch in a step, any number elsewhere. Raises what errors.py lists."""

    def next_batch(self, sample_count: int) -> NDArray[np.uint32]:
        """Numbers of the samples of the next step, by seed and epoch alone: the same in every engine."""

    def train_step(self, samples: Floats, targets: Targets) -> float:
        """One update; the mean loss before it. NonFiniteLoss leaves the values as they were."""

    def train_steps(
        self, samples: Floats, targets: Targets, rows: NDArray[np.uint32], learning_rates: Floats | None
    ) -> Floats:
        """One update a row of `rows` (steps, batch); the losses."""

    def compute_gradients(self, samples: Floats, targets: Targets) -> float:
        """The loss of a step without its update, for `gradients`."""

    def set_learning_rate(self, learning_rate: float) -> None: ...

    def evaluate(self, samples: Floats, targets: Targets) -> tuple[float, int]:
        """The sum of the losses, and how many samples' best class is the label."""

    def predict(self, samples: Floats) -> Floats:
        """(n, class_count): probabilities, or the outputs of a network with the loss mse."""

    def values(self) -> Floats: ...

    def gradients(self) -> Floats: ...

    def progress(self) -> tuple[int, int, int]:
        """Updates made, epochs completed, samples of the present one drawn."""

    def reset(self) -> None: ...

    def save(self) -> bytes: ...

    def restore(self, checkpoint: bytes) -> None: ...

    def export_artifact(self) -> bytes: ...

    def close(self) -> None: ...
