"""The ticket against dense, pruned after training, new weights on its mask, and small dense students, distilled and not.

All train as many steps on the same batches of the same data as the search did, and are evaluated as it does. `pruned` is the
dense network, trained, pruned once by magnitude to the ticket's density by the search's quotas, and trained as many steps again:
at the last learning rate (fine-tuning), or, as that of a cosine or a line is next to nothing, by the whole schedule once more
(learning-rate rewinding; both of Renda et al. 2020); `pruned_rate` tells which. Students are dense networks of at most the ticket's weights, in two forms (student.py), with fresh weights:
`scaled` and `even` learn from the labels, `scaled-distilled` and `even-distilled` also from the scores of the seed's trained dense
network (distillation.py). `before` is what must have been trained for one seed before the first step of a training. `artifact_bytes` is
null where the device's format cannot hold the network. `only` leaves out what one does not want to wait for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from export.network import Network
from export.ticket import Ticket, TicketError
from server_side import methods
from server_side.comparison import HEAD, chosen_copies, difference, figure, gap, line, told
from server_side.controls import Values, apply_masks
from server_side.distillation import Distillation
from server_side.errors import UsageError
from server_side.fit import Limits, footprint
from server_side.prune import Masks
from server_side.rounds import copies_by_kind, measure
from server_side.student import FORMS, student_masks, student_start
from server_side.training import Job

if TYPE_CHECKING:
    from server_side.lab import Lab

FALLING = ("cosine", "linear")  # schedules that end next to 0
STAGES = ("pruned", "students", "distilled", "reinit")


@dataclass(frozen=True)
class Options:
    """How students are taught."""

    temperature: float = 4.0
    """that the teacher's and the student's scores are divided by"""
    share: float = 0.9
    """of the teacher's scores in the loss; the labels have the rest"""

    only: list[str] = field(default_factory=list)
    """stages to train: pruned, students, distilled, reinit (where the search has none); by default all of them"""

    def __post_init__(self) -> None:
        if unknown := sorted({*self.only} - {*STAGES}):
            raise UsageError(f"only '{unknown[0]}': no such stage; there are {', '.join(STAGES)}")
        if not self.temperature > 0:
            raise UsageError(f"temperature {self.temperature}: must be above 0")
        if not 0 < self.share <= 1:
            raise UsageError(f"share {self.share}: must be above 0 and at most 1")


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    seeds, steps = len(lab.seeds), lab.search.recipe.steps
    kinds = {"pruned": 1, "students": len(FORMS), "distilled": len(FORMS), "reinit": 1}
    return [(stage, kinds[stage] * seeds, kinds[stage] * seeds * steps) for stage in stages(lab)]


def stages(lab: Lab) -> list[str]:
    """Those that are asked for; what the search has trained is taken from there."""
    there = ("reinit",) if lab.search.options.reinits else ()
    return [stage for stage in lab.options.only or STAGES if stage not in there]


def run(lab: Lab) -> dict[str, Any]:
    known = {"dense": chosen_copies(lab.rounds[0].trainings, "dense", lab.seeds)}
    known |= {kind: chosen_copies(lab.chosen.trainings, kind, lab.seeds) for kind in ("ticket", "reinit")}
    if not all(known["reinit"]):
        del known["reinit"]
    make = {"pruned": pruned_jobs, "students": student_jobs, "distilled": distilled_jobs, "reinit": reinit_jobs}
    jobs = {stage: list(make[stage](lab)) for stage in stages(lab)}
    for stage, of_stage in jobs.items():
        known |= copies_by_kind(of_stage, lab.train(stage, of_stage), lab.seeds)
    goals = measure(known["dense"]).validation_accuracy
    sizes = {kind: size for kind, size in _sizes(lab, jobs).items() if kind in known}
    return {
        "density": lab.chosen.density,
        "temperature": lab.options.temperature,
        "share": lab.options.share,
        "pruned_rate": "last" if holds_rate(lab) else "schedule",
        "kinds": {kind: {**sizes[kind], **told(known[kind], goals)} for kind in sizes},
        "ticket - others": {kind: difference(known["ticket"], known[kind]) for kind in sizes if kind != "ticket"},
    }


def pruned_jobs(lab: Lab) -> Iterator[Job]:
    """The trained dense networks, pruned by the search's own quotas."""
    keeper = lab.search.keeper
    for seed in lab.seeds:
        trained = lab.rounds[0].trainings[f"seed{seed}-dense"].final
        masks = methods.by_magnitude(keeper, trained, keeper.all_live(), lab.chosen.number)
        yield Job(seed, "pruned", 0, apply_masks(trained, masks), masks, holds_rate=holds_rate(lab))


def holds_rate(lab: Lab) -> bool:
    """Whether pruned networks train on at the rate that training ended with, or by the schedule from its beginning."""
    return lab.search.recipe.schedule not in FALLING


def student_jobs(lab: Lab, teach: bool = False) -> Iterator[Job]:
    """The small dense networks, of the same fresh weights whether they are taught or not."""
    network = lab.search.model.network
    fewest = min(weights_of(network, masks) for masks in lab.chosen.masks.values())
    for form in FORMS:
        masks = student_masks(network, fewest, form)
        for seed in lab.seeds:
            start = student_start(lab.fresh(seed, "alternatives", form), masks)
            teacher = lab.rounds[0].trainings[f"seed{seed}-dense"].early
            lesson = Distillation(teacher, lab.options.temperature, lab.options.share) if teach else None
            yield Job(seed, f"{form}-distilled" if teach else form, 0, start, masks, distillation=lesson)


def distilled_jobs(lab: Lab) -> Iterator[Job]:
    """The same, taught."""
    return student_jobs(lab, teach=True)


def reinit_jobs(lab: Lab) -> Iterator[Job]:
    """The control of a search that was run without it."""
    for seed in lab.seeds:
        masks = lab.chosen.masks[seed]
        yield Job(seed, "reinit", 0, apply_masks(lab.fresh(seed, "alternatives", "reinit"), masks), masks)


def weights_of(network: Network, masks: Masks) -> int:
    """Live weights of all layers that could be pruned; one without a mask is whole."""
    shapes = network.parameter_shapes
    return sum(int(masks[name].sum()) if name in masks else math.prod(shapes[name]) for name in network.prunable)


def _sizes(lab: Lab, jobs: Mapping[str, list[Job]]) -> dict[str, dict[str, int | None]]:
    """Of each kind, for the search's first seed: weights, bytes of the artifact and steps before its training."""
    network, seed, steps = lab.search.model.network, lab.search.options.seed, lab.search.recipe.steps
    live = lab.chosen.masks[seed]
    kinds: dict[str, tuple[Values, Masks, int]] = {
        "dense": (lab.rounds[0].start[seed], {}, 0),
        "ticket": (lab.ticket_start(seed), live, steps_to_ticket(lab)),
        "reinit": (lab.ticket_start(seed), live, steps_to_ticket(lab)),
    }
    for job in (job for of_stage in jobs.values() for job in of_stage if job.seed == seed and job.kind != "reinit"):
        needs_dense = job.kind == "pruned" or job.distillation is not None
        kinds[job.kind] = (job.start, job.masks, steps if needs_dense else 0)
    return {
        kind: {
            "weights": weights_of(network, masks),
            "artifact_bytes": _artifact_bytes(Ticket(network, start, masks, card=lab.found["card"])),
            "before": before,
        }
        for kind, (start, masks, before) in kinds.items()
    }


def _artifact_bytes(ticket: Ticket) -> int | None:
    """None where the format has no room for it, of which the search warned."""
    try:
        return footprint(ticket, Limits()).artifact_bytes
    except TicketError:
        return None


def steps_to_ticket(lab: Lab) -> int:
    """Steps of one seed that the search made before it could train the chosen ticket; scores of weights are not counted."""
    steps, rewound, method = lab.search.recipe.steps, lab.search.rewind_step, lab.search.options.method
    if method in methods.SCORED:
        return rewound
    if method in methods.MOVING:
        return rewound + steps
    tickets = lab.chosen.number - 1 if method == "iterative" else 0
    return steps + tickets * (steps - rewound)


def explain(result: dict[str, Any]) -> list[str]:
    kinds = result["kinds"]
    lines = [f"{HEAD:<80}{'weights':>12}{'bytes':>12}{'steps before':>14}"]
    for kind, row in kinds.items():
        size = "-" if row["artifact_bytes"] is None else f"{row['artifact_bytes']:,}"
        lines.append(f"{line(kind, row):<80}{row['weights']:>12,}{size:>12}{row['before']:>14,}")
    if any(row["artifact_bytes"] is None for row in kinds.values()):
        lines.append("- for bytes: beyond what the format of devices holds")
    rate = {"last": "at the last learning rate", "schedule": "by the whole schedule once more"}[result["pruned_rate"]]
    if "pruned" in kinds:
        lines += ["", f"pruned: trained, pruned once, and trained on {rate}"]
    if any(kind.endswith("-distilled") for kind in kinds):
        lines += [f"students distilled at temperature {result['temperature']:g}, {result['share']:.0%} of the loss"]
    return lines + [gap(f"ticket - {kind}", found) for kind, found in result["ticket - others"].items()]


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    kinds = dict(result["kinds"])
    return {"The ticket and its alternatives": figure(kinds, kinds["dense"])}
