"""Tickets of whole networks, lowered from their modules; apart from tickets.py, which needs no torch."""

from __future__ import annotations

import numpy as np
import torch

from export.lower import lower
from export.ticket import Ticket
from tests.architectures import ARCHITECTURES
from tests.export.tickets import CARD


def architecture_ticket(name: str, density: float = 0.1) -> Ticket:
    """A ticket of a whole network, pruned at random, its biases, norms and statistics away from 0 and 1."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = architecture.build()
    network = lower(module, architecture.input_shape)
    generator = np.random.default_rng(0)
    masks = {n: generator.random(network.parameter_shapes[n]) < density for n in network.prunable}
    init = {}
    for parameter in network.parameters:
        init[parameter.name] = module.state_dict()[parameter.name].numpy()
        if parameter.name in masks:
            init[parameter.name] = init[parameter.name] * masks[parameter.name]
        elif len(parameter.shape) == 1:
            init[parameter.name] = generator.uniform(0.5, 1.5, parameter.shape).astype(np.float32)
    plain = {"mean": [0.0], "inverse_std": [1.0]}
    return Ticket(network, init, masks, card=CARD | {"input": plain if architecture.entries else CARD["input"]})
