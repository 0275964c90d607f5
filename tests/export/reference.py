"""A network's outputs by the definition of each operator, in float64: what every runtime must come close to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.ticket import Floats, Ticket


def forward(ticket: Ticket, values: Mapping[str, Floats], samples: Floats) -> NDArray[np.float64]:
    """Logits `(n, classes)` of raw samples `(n, *input_shape)`."""
    mean = np.array(ticket.card["input"]["mean"], np.float64)
    inverse_std = np.array(ticket.card["input"]["inverse_std"], np.float64)
    channels = (len(mean),) + (1,) * (samples.ndim - 2)
    buffers = [(samples - mean.reshape(channels)) * inverse_std.reshape(channels)]
    for node in ticket.network.nodes:
        x = [buffers[b] for b in node.inputs]
        if node.op == "linear":
            bias = values[node.params["bias"]] if "bias" in node.params else 0.0
            buffers.append(x[0] @ values[node.params["weight"]].T.astype(np.float64) + bias)
        elif node.op == "relu":
            buffers.append(np.maximum(x[0], 0))
        elif node.op == "flatten":
            buffers.append(x[0].reshape(len(samples), -1))
        elif node.op == "add":
            buffers.append(x[0] + x[1])
        else:
            raise AssertionError(node.op)
    return buffers[-1]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
