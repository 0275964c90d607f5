"""From finished rounds to what is handed out: results.json, the ticket with its card, the report, the text on stdout.

Every figure is computed here once; the report and the text only show it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.atomic import write_file
from export.ticket import Ticket, load_ticket
from server_side import verdict

if TYPE_CHECKING:
    from server_side.search import Round, Search

KINDS = ("dense", "ticket", "reinit", "shuffle")


def conclude(search: Search, rounds: list[Round], seconds: float) -> dict[str, Any]:
    """Chooses the ticket, judges it, writes it with results.json and report.html; returns what --json prints."""
    from server_side import report

    chosen = _choose(search, rounds)
    judged = {r.number: verdict.judge(r.measured, r.density, search.tolerance) for r in rounds[1:]}
    card = _card(search, chosen, judged[chosen.number])
    ticket = search.ticket(chosen, rounds[0], card)
    path = _save(ticket, search.directory.path / "ticket")
    result: dict[str, Any] = {
        "ticket": str(path),
        "ticket_hash": ticket.hash,
        "density": chosen.density,
        "round": chosen.number,
        "seed": search.best_seed(chosen),
        "dense": chosen.measured["dense"].to_json(),
        "ticket_at_density": chosen.measured["ticket"].to_json(),
        **{kind: chosen.measured[kind].to_json() for kind in ("reinit", "shuffle") if kind in chosen.measured},
        "verdict": judged[chosen.number],
        "rounds": [_round(search, r, judged.get(r.number)) for r in rounds],
        "report": str(search.directory.path / "report.html"),
        "seconds": seconds,
        "card": dict(ticket.card),
    }
    write_file(search.directory.path / "results.json", json.dumps(result, indent=1, allow_nan=False).encode())
    write_file(search.directory.path / "report.html", report.render(search, rounds, chosen, ticket, result).encode())
    return result


def as_text(result: dict[str, Any]) -> str:
    """The table of all rounds, the verdict, where everything is and what to do next."""
    kinds = [kind for kind in KINDS if kind in result or kind == "ticket"]
    lines = ["", f"{'round':>5} {'weights':>9}  " + "  ".join(f"{kind:<31}" for kind in kinds[1:])]
    lines.append(" " * 17 + "  ".join(f"{'accuracy':<15}{'at end':<8}{'stop':<8}" for _ in kinds[1:]))
    for row in result["rounds"]:
        cells = [_cells(row[kind]) for kind in ("dense", *kinds[1:]) if kind in row]
        lines.append(
            f"{row['round']:>5} {row['density']:>9.2%}  " + "  ".join(cells) + ("  dense" if row["round"] == 0 else "")
        )
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
    lines += [
        "",
        f"ticket  {result['ticket']}  (sha256 {result['ticket_hash'][:16]})",
        f"report  {result['report']}",
        f"next    python -m export {result['ticket']}",
    ]
    return "\n".join(lines)


def _cells(figures: dict[str, Any]) -> str:
    std = figures["accuracy_std"]
    accuracy = f"{figures['accuracy']:.2%}" + (f" ±{100 * std:.2f}" if std is not None else "")
    return f"{accuracy:<15}{figures['accuracy_end']:<8.2%}{figures['early_stop_step']:<8.0f}"


def _choose(search: Search, rounds: list[Round]) -> Round:
    pruned = rounds[1:]
    index = verdict.choose([r.measured for r in pruned], [r.density for r in pruned], search.tolerance)
    return pruned[index]


def _round(search: Search, r: Round, judged: dict[str, Any] | None) -> dict[str, Any]:
    seed = search.options.seed
    live = sum(int(mask.sum()) for mask in r.masks[seed].values())
    kinds = ("dense",) if r.number == 0 else KINDS[1:]
    return {
        "round": r.number,
        "density": r.density,
        "live": live,
        "layer_densities": r.layer_densities(seed),
        **{kind: r.measured[kind].to_json() for kind in kinds if kind in r.measured},
        **({"verdict": judged} if judged else {}),
    }


def _card(search: Search, chosen: Round, judged: dict[str, Any]) -> dict[str, Any]:
    """What devices and people need to know of the ticket; nothing in it depends on when or where the search ran."""
    recipe, options = search.recipe, search.options
    seed = search.best_seed(chosen)
    return {
        "task": search.data.name,
        "labels": list(search.data.labels),
        "input": {"mean": search.split.mean.tolist(), "inverse_std": search.split.inverse_std.tolist()},
        "recipe": recipe.to_card(epochs=max(1, round(recipe.steps * recipe.batch / len(search.split.x_train)))),
        "density": chosen.density,
        "densities": chosen.layer_densities(seed),
        "rewind_step": search.rewind_step,
        "verdict": judged,
        "provenance": {
            "seed": seed,
            "round": chosen.number,
            "options": options.identity(),
            "data_sha256": search.data.fingerprint,
            "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
            "device": search.device().type,
        },
    }


def _save(ticket: Ticket, path: Path) -> Path:
    """A ticket of an older version of this program is set aside, not overwritten."""
    if path.exists() and load_ticket(path).hash != ticket.hash:
        shutil.move(path, path.with_name(f"{path.name}-before-{os.getpid()}"))
    return ticket.save(path)
