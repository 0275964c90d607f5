"""ReLUs whose elements can be put on the other side of their kink, to tell rounding from error.

An element that is 0 but for rounding is live in one runtime and not in another, and its gradient with it. Looks at
torch.nn.functional.relu alone; other kinks and equal maxima are left to what the gate allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

KINK = 1e-6  # an element lies on a kink but for rounding if it is nearer than this share of the largest of its ReLU
NEAREST = 32  # such elements that are told


class Sides(TorchFunctionMode):
    """While entered, takes elements of ReLUs for live that are not, and the other way round: those that are `turned`, each the number of
    the ReLU in the order of calls and its place in the flattened batch."""

    def __init__(self, turned: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.turned, self.inputs = frozenset(turned), list[torch.Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.relu:
            return func(*args, **(kwargs or {}))
        (x,) = args
        live, number = x > 0, len(self.inputs)
        for relu, place in self.turned:
            if relu == number:
                live.view(-1)[place].logical_not_()
        self.inputs.append(x.detach())
        return torch.where(live, x, torch.zeros_like(x))

    def nearest(self) -> list[tuple[int, int]]:
        """Elements on a kink but for rounding, the nearest first; none that is 0 to the last bit, as behind dead channels."""
        found = []
        for number, x in enumerate(self.inputs):
            distances = torch.where(x == 0, math.inf, x.abs()).flatten()
            near, places = distances.topk(min(NEAREST, len(distances)), largest=False)
            found += [
                (float(d), number, int(place))
                for d, place in zip(near, places, strict=True)
                if d <= KINK * float(x.abs().max())
            ]
        return [(number, place) for _, number, place in sorted(found)[:NEAREST]]
