"""A network's outputs by the definition of each operator, in float64: what every runtime must come close to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from export import reference as interpret
from export.ticket import Floats, Ticket


def forward(ticket: Ticket, values: Mapping[str, Floats], samples: Floats) -> NDArray[np.float64]:
    """Logits `(n, classes)` of raw samples `(n, *input_shape)`, at inference."""
    mean = np.array(ticket.card["input"]["mean"], np.float64)
    inverse_std = np.array(ticket.card["input"]["inverse_std"], np.float64)
    channels = (len(mean),) + (1,) * (samples.ndim - 2)
    normalised = (samples - mean.reshape(channels)) * inverse_std.reshape(channels)
    exact = {name: torch.from_numpy(value.astype(np.float64)) for name, value in values.items()}
    return interpret.run(ticket.network.to_json(), exact, torch.from_numpy(normalised)).numpy()


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
