"""From a plan or finished rounds to what is handed out: results.json, the ticket with its card, the text on stdout.

Every figure of a table is computed here once; the report and the text only show it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.atomic import write_file
from export.ticket import Ticket, TicketError, load_ticket
from server_side import cost, stability, verdict
from server_side.errors import UsageError
from server_side.fit import Footprint, footprint
from server_side.methods import MOVING
from server_side.prune import Masks
from server_side.training import evaluation_steps

if TYPE_CHECKING:
    from server_side.rounds import Round
    from server_side.search import Search

JOB = re.compile(r"seed(\d+)-(\D+)\d*")  # the name of a training: its seed, its kind, the number of its copy


def conclude(
    search: Search,
    rounds: list[Round],
    seconds: float,
    instability: NDArray[np.float64] | None = None,
    rewinds: Mapping[int, NDArray[np.float64]] | None = None,
) -> dict[str, Any]:
    """Judges the chosen ticket, writes it with results.json and report.html; returns what --json prints. `instability`: of
    the chosen tickets, a value a seed; `rewinds`: the same of each step that was looked at to find the rewind step."""
    from server_side import report

    best = chosen(search, rounds)
    judged = _judged(search, rounds, best, instability)
    taken = _footprint(search, best) if search.limits else None
    card = _card(search, best, taken.batch if taken else search.recipe.batch)
    ticket = search.ticket(best, card)
    path = _save(ticket, search.directory.path / "ticket")
    result: dict[str, Any] = {
        "complete": True,
        "ticket": str(path),
        "ticket_hash": ticket.hash,
        "density": best.density,
        "round": best.number,
        "seed": search.best_seed(best),
        "dense": best.measured["dense"].to_json(),
        "ticket_at_density": best.measured["ticket"].to_json(),
        **{kind: best.measured[kind].to_json() for kind in verdict.controls_of(best.measured)},
        **({"fits": {**taken.to_json(), "holds": taken.fits(search.limits)}} if taken else {}),
        "verdict": judged[best.number],
        **({"rewinds": {str(step): values.tolist() for step, values in rewinds.items()}} if rewinds else {}),
        "rounds": [_round(search, r, judged.get(r.number)) for r in rounds],
        "ended": search.ended(rounds),
        "report": str(search.directory.path / "report.html"),
        "seconds": seconds,
        "cost": _cost(
            search,
            rounds,
            max(seconds, search.directory.spent()),
            None if instability is None else best,
            rewinds or (),
        ).to_json(),
        "run": _circumstances(search),
        "card": dict(ticket.card),
    }
    write_file(search.directory.path / "report.html", report.render(search, rounds, best, ticket, result).encode())
    _write_results(search, result)
    return result


def record(search: Search, rounds: list[Round]) -> bool:
    """results.json after a round, marked as incomplete, for who wants to know how far it is. One that tells of as many
    rounds or more stays: a run that goes on finds its rounds again one by one. True where they are enough: a search that
    goes on until a ticket fits a device has found one."""
    try:
        known = len(json.loads((search.directory.path / "results.json").read_text())["rounds"])
    except (OSError, ValueError, TypeError, KeyError):
        known = 0
    if known < len(rounds):
        judged = _judged(search, rounds)
        rows = [_round(search, r, judged.get(r.number)) for r in rounds]
        planned = len(search.ladder.rungs) - 1
        _write_results(
            search, {"complete": False, "rounds_planned": planned, "rounds": rows, "run": _circumstances(search)}
        )
    return len(rounds) > 1 and search.stops_at_first_fit and _footprint(search, rounds[-1]).fits(search.limits)


def plan(search: Search) -> dict[str, Any]:
    """What a search will do and write: what --dry-run --json prints."""
    ladder, path, further = search.ladder.live, search.directory.path, search.extra_training_count()
    rows = [
        {
            "round": number,
            "live": live,
            "density": live / ladder[0],
            "trainings": search.training_count(number),
            "steps": search.step_count(number),
        }
        for number, live in enumerate(ladder)
    ]
    files = ["config.json", "run.json", *(f"rounds/{number:02d}" for number in range(len(ladder)))]
    files += ["results.json", "report.html", "ticket/ticket.json", "ticket/weights.safetensors"]
    return {
        "rounds": rows,
        "further_trainings": further,
        "trainings": sum(row["trainings"] for row in rows) + further,
        "steps": sum(row["steps"] for row in rows) + further * search.recipe.steps,
        "steps_of_a_training": search.recipe.steps,
        "engine": search.options.engine,
        "accelerator": search.options.accelerator,
        "threads": search.options.threads,
        "memory_bytes": search.stack_memory.total_bytes if search.stack_memory else None,
        "files": [str(path / name) for name in files],
        "warnings": search.warnings(),
    }


def _judged(
    search: Search, rounds: list[Round], best: Round | None = None, instability: NDArray[np.float64] | None = None
) -> dict[int, dict[str, Any]]:
    """The verdict on every round; `instability` is that of the tickets of `best`."""
    planned = len(search.ladder.rungs) - 1
    return {
        r.number: verdict.judge(
            r.measured,
            r.density,
            search.tolerance,
            planned,
            instability if r is best else None,
            rewound=search.rewinds_weights,
        )
        for r in rounds
        if r.number > 0
    }


def _cost(
    search: Search, rounds: list[Round], seconds: float, stable_of: Round | None, rewinds: Iterable[int]
) -> cost.Cost:
    """Of everything that was trained, in this start or an earlier one. A control has as many live weights in each layer as
    its ticket; a training in which the mask moves counts as dense; scores of weights are not counted. `seconds` are those of
    all starts; `stable_of`: the round whose stability was measured; `rewinds`: the steps that were looked at."""
    options, recipe = search.options, search.recipe
    work = {"dense": cost.Work(), "ticket": cost.Work(), "control": cost.Work()}
    control_steps = 0
    for r in rounds:
        before = work["control"].steps
        for name, training in r.trainings.items():
            seed, kind = seed_and_kind(name)
            work[kind if kind in work else "control"] += _work(search, training.steps, r.masks[seed])
        control_steps = max(control_steps, work["control"].steps - before)
    return cost.Cost(
        work["dense"],
        work["ticket"],
        _mask_work(search, len(rounds) - 1),
        work["control"],
        _stability_work(search, rounds[0], stable_of, rewinds),
        seconds,
        cost.iterative_steps(options.seeds, len(rounds) - 1, recipe.steps, search.rewind_step, control_steps),
        recipe.steps,
        cost.Assumptions(cost.WATTS[options.accelerator]),
    )


def _mask_work(search: Search, rounds: int) -> cost.Work:
    """Of the methods that find the mask of a round in a training of its own."""
    if search.options.method not in MOVING:
        return cost.Work()
    whole = _work(search, evaluation_steps(search.recipe, 0), {})
    return sum([whole] * (rounds * search.options.seeds), cost.Work())


def _stability_work(search: Search, first: Round, stable_of: Round | None, rewinds: Iterable[int]) -> cost.Work:
    found = cost.Work()
    if stable_of is not None:
        again = evaluation_steps(search.recipe, search.rewind_step)
        found += sum((_work(search, again, stable_of.masks[seed]) for seed in search.seeds), cost.Work())
    for step in rewinds:
        masks, twice = stability.rewind_masks(search, first), 2 * [evaluation_steps(search.recipe, step)]
        found += sum((_work(search, one, masks[seed]) for seed in search.seeds for one in twice), cost.Work())
    return found


def _work(search: Search, evaluations: Sequence[int] | NDArray[np.int64], masks: Masks) -> cost.Work:
    """Of one training that was evaluated after these steps, its first and its last among them."""
    evaluated = len(evaluations) * len(search.split.x_validation) + 2 * len(search.split.x_test)
    steps = int(evaluations[-1] - evaluations[0])
    return cost.work(search.model.network, masks, search.recipe.batch, steps, evaluated)


def seed_and_kind(name: str) -> tuple[int, str]:
    """Seed and kind of a training by its name."""
    match = JOB.fullmatch(name)
    assert match is not None, name
    return int(match[1]), match[2]


def _circumstances(search: Search) -> dict[str, Any]:
    """Where and how this start was made; no part of the card, so that the ticket's hash does not depend on it."""
    return {"threads": search.options.threads, "data": search.options.data, "python": platform.python_version()}


def _write_results(search: Search, result: dict[str, Any]) -> None:
    write_file(search.directory.path / "results.json", json.dumps(result, indent=1, allow_nan=False).encode())


def as_text(result: dict[str, Any]) -> str:
    """The table of all rounds, the verdict, where everything is and what to do next."""
    kinds = ["ticket", *result["verdict"]["controls"]]
    lines = ["", f"{'round':>5} {'weights':>9}  " + "  ".join(f"{kind:<31}" for kind in kinds)]
    lines.append(" " * 17 + "  ".join(f"{'accuracy':<15}{'at end':<8}{'stop':<8}" for _ in kinds))
    for row in result["rounds"]:
        cells = [_cells(row.get(kind)) for kind in (kinds if row["round"] else ["dense"])]
        lines.append(
            f"{row['round']:>5} {row['density']:>9.2%}  " + "  ".join(cells) + ("  dense" if row["round"] == 0 else "")
        )
        lines += [f"{'':>17}{told}" for told in diverged_controls(row)]
    if result["ended"]:
        lines.append(f"      no further rounds: {result['ended']}")
    sure = result["verdict"]
    head = (
        "undecided with one seed; the ticket"
        if sure["seeds"] < 2
        else "a winning ticket"
        if sure["winning"]
        else "a matching ticket"
        if sure["matching"]
        else "no matching ticket; the closest is"
    )
    lines += ["", f"{head}: {result['density']:.2%} of the weights (round {result['round']}, seed {result['seed']})"]
    lines += [f"  {line}" for line in verdict.explain(sure)]
    lines += [f"rewound: {line}" for line in explain_rewinds(result)]
    if "fits" in result:
        taken = result["fits"]
        time = "" if taken["step_ms"] is None else f", {taken['step_ms']:.3g} ms a step here"
        lines.append(
            f"{'fits' if taken['holds'] else 'does NOT fit'}: {taken['artifact_bytes']:,} bytes, {taken['arena_bytes']:,} of "
            f"memory with batches of {taken['batch']}{time}"
        )
    lines += [
        "",
        textwrap.fill(cost.explain(result["cost"]), 110, initial_indent="cost    ", subsequent_indent=" " * 8),
    ]
    lines += [
        "",
        f"ticket  {result['ticket']}  (sha256 {result['ticket_hash'][:16]})",
        f"report  {result['report']}",
        f"next    python -m export {result['ticket']}",
    ]
    return "\n".join(lines)


def explain_rewinds(result: Mapping[str, Any]) -> list[str]:
    """From which step tickets start, and why, where that was looked for: one line, else none."""
    looked = {int(step): float(np.mean(values)) for step, values in result.get("rewinds", {}).items()}
    if not looked:
        return []
    step = max(looked)
    limit = f"an instability below {100 * verdict.STABLE_BELOW:.0f} points (mean over seeds, validation part)"
    why = f"the first with {limit}" if looked[step] < verdict.STABLE_BELOW else f"the last looked at; none has {limit}"
    return [f"to step {step}, {why}: " + ", ".join(f"{100 * looked[at]:.2f} at {at}" for at in sorted(looked))]


def diverged_controls(row: dict[str, Any]) -> list[str]:
    """In words, which controls of a round have failed."""
    controls = row.get("verdict", {}).get("controls", ())
    failed = {kind: row[kind]["diverged"] for kind in controls if row[kind]["diverged"]}
    return [f"{kind}: {count} diverged and left out of the means" for kind, count in failed.items()]


def _cells(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return " " * 31
    if figures["accuracy"] is None:
        return f"{'diverged':<31}"
    std = figures["accuracy_std"]
    accuracy = f"{figures['accuracy']:.2%}" + (f" ±{100 * std:.2f}" if std is not None else "")
    return f"{accuracy:<15}{figures['accuracy_end']:<8.2%}{figures['early_stop_step']:<8.0f}"


def chosen(search: Search, rounds: list[Round]) -> Round:
    """The round whose ticket is handed out. With a device's limits the most accurate on the validation part of those whose ticket fits; where none does, the
    sparsest."""
    pruned = rounds[1:]
    if search.limits:
        fitting = [r for r in pruned if _footprint(search, r).fits(search.limits)]
        return max(fitting or pruned[-1:], key=lambda r: float(r.measured["ticket"].validation_accuracy.mean()))
    index = verdict.choose([r.measured for r in pruned], [r.density for r in pruned], search.tolerance)
    return pruned[index]


def _round(search: Search, r: Round, judged: dict[str, Any] | None) -> dict[str, Any]:
    seed = search.options.seed
    live = sum(int(mask.sum()) for mask in r.masks[seed].values())
    kinds = [kind for kind in r.measured if r.number == 0 or kind != "dense"]
    return {
        "round": r.number,
        "density": r.density,
        "live": live,
        "layer_densities": r.layer_densities(seed),
        **{kind: r.measured[kind].to_json() for kind in kinds},
        **({"verdict": judged} if judged else {}),
    }


def _footprint(search: Search, r: Round) -> Footprint:
    """What the ticket of round `r` takes on a device: found once in a run, for no two measurements of a time agree."""
    path = search.directory.round_folder(r.number).path / "footprint.json"
    try:
        return Footprint(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        found = footprint(search.ticket(r, _card(search, r, search.recipe.batch)), search.limits)
        write_file(path, json.dumps(found.to_json()).encode())
        return found


def _card(search: Search, chosen: Round, batch: int) -> dict[str, Any]:
    """What devices and people need to know of the ticket. It is hashed, so nothing is in it that the same search on another
    machine would have otherwise: no path, no thread, no time. Its verdict is that by which the ticket was chosen: stability
    is measured of the chosen ticket alone, and stands in results.json."""
    recipe = replace(search.recipe, batch=batch)
    judged = _judged(search, [chosen], None)[chosen.number]
    seed = search.best_seed(chosen)
    options = {name: value for name, value in search.options.identity().items() if name not in ("data", "threads")}
    return {
        "task": search.data.name,
        "labels": list(search.data.labels),
        "input": {"mean": search.split.mean.tolist(), "inverse_std": search.split.inverse_std.tolist()},
        "recipe": recipe.to_card(epochs=max(1, round(recipe.steps * search.recipe.batch / len(search.split.x_train)))),
        "density": search.density(chosen.masks[seed]),
        "densities": chosen.layer_densities(seed),
        **({"rewind_step": search.rewind_step} if search.rewinds_weights else {}),
        "verdict": judged,
        "provenance": {
            "seed": seed,
            "round": chosen.number,
            "options": options,
            **{name: search.directory.facts[name] for name in ("data_sha256", "versions")},
        },
    }


def check_ticket_there(path: Path) -> Ticket | None:
    """The ticket that an earlier start has written, if any; raises UsageError if it is damaged."""
    try:
        return load_ticket(path) if path.exists() else None
    except TicketError as error:
        raise UsageError(f"{error}; or remove it, and the same command writes it again") from error


def _save(ticket: Ticket, path: Path) -> Path:
    """A ticket of an older version of this program is set aside, not overwritten."""
    there = check_ticket_there(path)
    if there is not None and there.hash != ticket.hash:
        shutil.move(path, path.with_name(f"{path.name}-before-{os.getpid()}"))
    return ticket.save(path)
