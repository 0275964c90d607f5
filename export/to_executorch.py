"""Writes a ticket as one ExecuTorch program (.pte) that trains and predicts, for apps that ship that runtime already.

Method `train` is a forward and backward pass in one, with the live weights as its parameters and their gradients beside the
loss; `predict` takes all values after the samples and holds none; `statistics` returns the running ones to begin with, and
`description` the JSON of description.py. A SHA-256 follows, where ExecuTorch does not look: it trains on with flipped bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import torch

from device_runtime.backends.silence import silent
from export.compact import Compaction
from export.description import describe
from export.ticket import Floats, Ticket, TicketError
from export.torch_modules import Prediction, Training, dropouts, live_values, moving_statistics

MAGIC = b"TKTPTE\x00\x01"  # then the SHA-256 of all before the magic; both end the file

Values = Literal["init", "trained"]


def to_executorch_bytes(source: Ticket | Compaction, values: Values = "init") -> bytes:
    """A program for batches of the recipe's size, and a trailer. Equal tickets give equal bytes on one version of ExecuTorch.

    `train` takes (samples (batch, *input_shape) raw, targets, present (batch,), *running statistics, *dropout factors) and
    gives (loss, *moved statistics) before the gradients; modules and names as in torch_modules.py. Raises TicketError if
    `values` is "trained" and the ticket has none, or if the card lacks the recipe or the normalisation.
    """
    ticket = source.ticket if isinstance(source, Compaction) else source
    chosen = {"init": ticket.init, "trained": ticket.trained}[values]
    if chosen is None:
        raise TicketError("the ticket holds no trained values; export the initial ones (values = init)")
    description = describe(source)
    batch = int(description["recipe"]["batch"])
    told = json.dumps(description | {"program": program_facts(ticket, batch)}, sort_keys=True)
    program = _program(ticket, chosen, batch, told)
    return program + MAGIC + hashlib.sha256(program).digest()


def program_facts(ticket: Ticket, batch: int) -> dict[str, Any]:
    """What one must know to call the methods; `entries`: below what whole samples must be, 0 for any real numbers."""
    network = ticket.network
    tables = [network.parameter_shapes[n.params["weight"]][0] for n in network.nodes if n.op == "embedding"]
    dropped = dropouts(ticket).items()
    return {
        "batch": batch,
        "moving": list(moving_statistics(ticket)),
        "dropouts": [{"buffer": at, "probability": p, "shape": list(shape)} for at, (p, shape) in dropped],
        "entries": min(tables, default=0),
    }


def _program(ticket: Ticket, values: Mapping[str, Floats], batch: int, description: str) -> bytes:
    with silent():
        from executorch.exir import to_edge
        from torch.export import export
        from torch.export.experimental import _export_forward_backward

        training, network = Training(ticket, values), ticket.network
        samples = torch.zeros((batch, *network.input_shape))
        labels = torch.zeros(batch, dtype=torch.int64)
        targets = labels if network.loss == "cross_entropy" else torch.zeros((batch, *network.output_shape))
        live = {name: torch.tensor(array) for name, array in live_values(ticket, values).items()}
        state = [live[p.name] for p in network.parameters if p.state]
        factors = [torch.ones((batch, *shape)) for _, shape in dropouts(ticket).values()]
        train = export(training, (samples, targets, torch.ones(batch), *state, *factors), strict=False)
        predict = export(Prediction(ticket), (samples, *(live[p.name] for p in network.parameters)), strict=False)
        methods = {"train": _export_forward_backward(train), "predict": predict}
        constants: dict[str, Any] = {"description": description}
        if state:
            constants["statistics"] = state
        edge = to_edge(methods, constant_methods=constants)
        content: bytes = edge.to_executorch().buffer
    return content
