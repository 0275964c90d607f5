"""What a search costs: trainings, steps and multiply-adds by kind, seconds, and an estimate of energy and CO2.

Steps and multiply-adds are counted, seconds are those of the clock. Energy is neither: no power is measured, it is seconds
times assumptions that stand beside the figure. Multiply-adds are those of linear and convolution, padding included; all
else of a network is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from export.network import Network, Node
from server_side.prune import Masks

TRAINED = ("dense", "tickets", "masks", "controls", "stability")
JOULES_PER_KWH = 3.6e6
WATTS = {"cpu": 100.0, "cuda": 400.0}  # of the whole machine while it trains; nothing measured


@dataclass(frozen=True)
class Assumptions:
    """What an estimate of energy rests on. `watts`: drawn by the machine; `pue`: energy of the site over energy of its
    machines; `kg_per_kwh`: CO2 of the grid."""

    watts: float
    pue: float = 1.5
    kg_per_kwh: float = 0.4


@dataclass(frozen=True)
class Work:
    """Trainings of one kind. `dense_macs`: multiply-adds as if no weight were pruned, which a program with masks makes;
    `live_macs`: those of live weights, which a sparse runtime makes. Both with all evaluations."""

    trainings: int = 0
    steps: int = 0
    dense_macs: int = 0
    live_macs: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class Cost:
    """`dense`, `tickets`, `masks` (to find them, beyond the dense networks and tickets), `controls` and `stability` (to tell
    it, and to find the rewind step) are what was trained, `seconds` what all starts of the search took together.

    `iterative_steps`: what iterative magnitude pruning of the same rounds with the same controls takes, stability aside;
    `dense_steps`: what one dense training takes.
    """

    dense: Work
    tickets: Work
    masks: Work
    controls: Work
    stability: Work
    seconds: float
    iterative_steps: int
    dense_steps: int
    assumptions: Assumptions

    @property
    def total(self) -> Work:
        return sum((getattr(self, name) for name in TRAINED), Work())

    @property
    def energy_kwh(self) -> float:
        return self.seconds * self.assumptions.watts * self.assumptions.pue / JOULES_PER_KWH

    @property
    def co2_kg(self) -> float:
        return self.energy_kwh * self.assumptions.kg_per_kwh

    def to_json(self) -> dict[str, Any]:
        kinds = {name: asdict(getattr(self, name)) for name in (*TRAINED, "total")}
        return {
            **kinds,
            "seconds": self.seconds,
            "steps_per_iterative": (self.total.steps - self.stability.steps) / self.iterative_steps,
            "steps_per_dense": self.total.steps / self.dense_steps,
            "energy_kwh": self.energy_kwh,
            "co2_kg": self.co2_kg,
            "assumptions": asdict(self.assumptions),
        }


def iterative_steps(seeds: int, rounds: int, steps: int, rewind_step: int, control_steps: int) -> int:
    """Training steps of iterative magnitude pruning: the dense network and `rounds` tickets a seed, each ticket from
    `rewind_step` on, and controls of `control_steps` a round over all seeds."""
    return seeds * steps + rounds * (seeds * (steps - rewind_step) + control_steps)


def work(network: Network, masks: Masks, batch: int, steps: int, evaluated: int) -> Work:
    """One training of `steps` of `batch` samples with `masks` that also predicted `evaluated` samples."""
    dense, live = (
        steps * batch * training_macs(network, pattern) + evaluated * forward_macs(network, pattern)
        for pattern in (None, masks)
    )
    return Work(1, steps, dense, live)


def forward_macs(network: Network, masks: Masks | None = None) -> int:
    """Multiply-adds of one sample's prediction; with `masks`, of the live weights alone."""
    return sum(macs for _, macs in _layers(network, masks))


def training_macs(network: Network, masks: Masks | None = None) -> int:
    """Multiply-adds of one sample in a training step: as many as the prediction for the outputs, for the gradients of the
    weights, and for those of the inputs where something before the layer is trained."""
    trained = [False]  # by buffer: whether a parameter stands before it
    for node in network.nodes:
        trained.append(bool(node.params) or any(trained[buffer] for buffer in node.inputs))
    return sum((3 if trained[node.inputs[0]] else 2) * macs for node, macs in _layers(network, masks))


def _layers(network: Network, masks: Masks | None) -> list[tuple[Node, int]]:
    """Each linear and convolution with the multiply-adds of its outputs: a weight is used once for each place of a channel."""
    shapes = network.parameter_shapes
    found = []
    for node, output in zip(network.nodes, network.shapes[1:], strict=True):
        if node.op in ("linear", "conv"):
            name = node.params["weight"]
            mask = None if masks is None else masks.get(name)
            weights = math.prod(shapes[name]) if mask is None else int(mask.sum())
            found.append((node, weights * math.prod(output[1:])))
    return found


def explain(cost: Mapping[str, Any]) -> str:
    """`Cost.to_json` as a paragraph."""
    total, assumed = cost["total"], cost["assumptions"]
    counts = ", ".join(f"{cost[kind]['trainings']:,} {kind}" for kind in TRAINED if cost[kind]["trainings"])
    return (
        f"{total['trainings']:,} trainings ({counts}), {total['steps']:,} steps, {_large(total['dense_macs'])} multiply-adds, "
        f"{_large(total['live_macs'])} of them of live weights. As many steps as {cost['steps_per_dense']:.4g} dense trainings, "
        f"and {cost['steps_per_iterative']:.3g} times those of iterative magnitude pruning of the same rounds with the same "
        f"controls{', stability aside' if cost['stability']['trainings'] else ''}. {cost['seconds']:.0f} s in all starts; estimated for them, not measured: {cost['energy_kwh']:.2g} kWh and "
        f"{cost['co2_kg']:.2g} kg of CO2, if the machine draws {assumed['watts']:g} W, the site {assumed['pue']:g} times what "
        f"its machines draw (PUE), and a kWh is {assumed['kg_per_kwh']:g} kg of CO2."
    )


def _large(count: int) -> str:
    """Three digits and a power of ten that is a multiple of 3, as in `24.6e9`."""
    power = 3 * ((len(str(count)) - 1) // 3)
    return f"{count / 10**power:.3g}" + (f"e{power}" if power else "")
