"""Exporter and runtime, which share no code, agree on any ticket: its live weights bit for bit, its outputs, its card."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import Trainer
from export.layout import stored_values
from export.ticket import Floats, Ticket
from export.to_native import to_native_bytes
from tests.export.reference import forward, softmax
from tests.export.tickets import MILD_FLOATS, tickets


def live(ticket: Ticket, kind: str) -> bytes:
    """The stored values in the artifact's order, as they lie in memory."""
    return stored_values(ticket.network, ticket.masks, getattr(ticket, kind)).tobytes()


@given(tickets())
def test_the_runtime_starts_from_the_live_weights_bit_for_bit(ticket: Ticket) -> None:
    artifact = to_native_bytes(ticket)
    for start in ("init", "trained") if ticket.trained is not None else ("init",):
        with Trainer.open(artifact, start=start) as trainer:
            assert trainer.values.tobytes() == live(ticket, start)
            assert trainer.info.ticket_hash == ticket.hash
            assert trainer.info.density == ticket.density
            assert dict(trainer.info.card) == dict(ticket.card)
            assert trainer.info.input_shape == ticket.network.input_shape
            assert trainer.info.operators == tuple(node.op for node in ticket.network.nodes)


@settings(deadline=None)
@given(tickets(MILD_FLOATS), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_runtime_predicts_what_the_network_says(ticket: Ticket, count: int, seed: int) -> None:
    samples: Floats = np.random.default_rng(seed).normal(size=(count, *ticket.network.input_shape)).astype(np.float32)
    logits = forward(ticket, ticket.init, samples)
    with Trainer.open(to_native_bytes(ticket)) as trainer:
        tolerance = 1e-5 * max(1.0, float(np.abs(logits).max()))
        np.testing.assert_allclose(trainer.predict(samples), softmax(logits), atol=tolerance)
