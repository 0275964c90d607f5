"""Exporter and runtime, which share no code, agree on any ticket: its live weights bit for bit, its outputs, its card."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime import Trainer
from export.compact import compact
from export.layout import stored_values
from export.ticket import Floats, Ticket
from export.to_native import to_native_bytes, to_packed_bytes
from tests.export.reference import forward, softmax
from tests.export.tickets import MILD_FLOATS, dead_unit_ticket, tickets


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
@given(tickets(MILD_FLOATS), st.integers(1, 9))
def test_a_packed_artifact_trains_to_the_bits_of_the_plain_one(ticket: Ticket, batch: int) -> None:
    plain, packed = to_native_bytes(ticket), to_packed_bytes(ticket, trained=ticket.trained is not None)
    random = np.random.default_rng(0)
    x: Floats = random.normal(size=(20, *ticket.network.input_shape)).astype(np.float32)
    y = random.integers(0, ticket.network.output_shape[0], 20)
    for start in ("init", "trained") if ticket.trained is not None else ("init",):
        with (
            Trainer.open(plain, start=start, batch=batch) as one,
            Trainer.open(packed, start=start, batch=batch) as two,
        ):
            assert one.values.tobytes() == two.values.tobytes()
            assert one.predict(x).tobytes() == two.predict(x).tobytes()
            assert one.fit(x, y, steps=20).losses.tobytes() == two.fit(x, y, steps=20).losses.tobytes()
            assert one.values.tobytes() == two.values.tobytes()


def test_a_compacted_ticket_is_packed_with_its_density() -> None:
    ticket = dead_unit_ticket()
    with (
        Trainer.open(to_packed_bytes(compact(ticket))) as trainer,
        Trainer.open(to_native_bytes(compact(ticket))) as plain,
    ):
        assert trainer.values.tobytes() == plain.values.tobytes()
        assert (trainer.info.density, trainer.info.ticket_hash) == (plain.info.density, ticket.hash)
        assert trainer.info.dense_count == sum(parameter.size for parameter in ticket.network.parameters)
        assert set(trainer.info.card) == {"task", "input", "recipe"}


@settings(deadline=None)
@given(tickets(MILD_FLOATS), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_runtime_predicts_what_the_network_says(ticket: Ticket, count: int, seed: int) -> None:
    samples: Floats = np.random.default_rng(seed).normal(size=(count, *ticket.network.input_shape)).astype(np.float32)
    logits = forward(ticket, ticket.init, samples)
    with Trainer.open(to_native_bytes(ticket)) as trainer:
        tolerance = 1e-5 * max(1.0, float(np.abs(logits).max()))
        np.testing.assert_allclose(trainer.predict(samples), softmax(logits), atol=tolerance)
