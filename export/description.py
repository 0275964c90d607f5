"""What devices must know of a ticket beside its graph and values, as JSON, for artifacts of other runtimes.

The native artifact has all of it in its own sections. Read by device_runtime/backends/description.py; the two share no code.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from export.card import normalisation, recipe
from export.compact import Compaction
from export.ticket import Ticket

VERSION = 1


def describe(source: Ticket | Compaction) -> dict[str, Any]:
    """Plain JSON values. `live` of a parameter: its weights that are left, None where none was ever pruned.

    Of a compacted ticket `dense_count` and `density` are relative to the original. Raises TicketError if the card lacks the recipe or the normalisation.
    """
    ticket, original = (source.ticket, source.original) if isinstance(source, Compaction) else (source, source)
    network, input_, trained_by = ticket.network, normalisation(ticket), asdict(recipe(ticket))
    if trained_by["class_weights"] is not None:
        trained_by["class_weights"] = trained_by["class_weights"].tolist()
    prunable = sum(mask.size for mask in original.masks.values())
    return {
        "version": VERSION,
        "ticket_hash": original.hash,
        "input_shape": list(network.input_shape),
        "class_count": network.output_shape[0],
        "loss": network.loss,
        "operators": sorted({node.op for node in network.nodes}),
        "parameters": [
            {
                "name": parameter.name,
                "shape": list(parameter.shape),
                "live": int(ticket.masks[parameter.name].sum()) if parameter.name in ticket.masks else None,
                "state": parameter.state,
            }
            for parameter in network.parameters
        ],
        "dense_count": sum(parameter.size for parameter in original.network.parameters),
        "density": ticket.live / prunable if prunable else 1.0,
        "mean": input_.mean.tolist(),
        "inverse_std": input_.inverse_std.tolist(),
        "recipe": trained_by,
        "has_trained": ticket.trained is not None,
        "card": dict(ticket.card),
    }
