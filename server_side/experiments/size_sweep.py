"""Tickets of the same number of live weights out of wider and wider networks: do they get better?

Each width is a search of its own, without controls, by the options of the run, down to exactly as many live weights as the
run's ticket has. At width 1 an iterative search finds that very ticket again. Models as for the experiment trainability.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from server_side.errors import UsageError
from server_side.figures import drawn, plot_estimates
from server_side.ladder import Ladder, ladder
from server_side.rounds import Round
from server_side.search import Search
from server_side.significance import estimate
from server_side.training import Job, Training

if TYPE_CHECKING:
    from server_side.lab import Lab


@dataclass(frozen=True)
class Options:
    """Options of this experiment."""

    widths: list[float] = field(default_factory=lambda: [1.0, 2.0, 5.0, 10.0])
    """factors of the hidden widths"""
    live: int | None = None
    """live weights of every ticket (default: those of the run's ticket)"""
    one_shot: bool = False
    """prune once, by the trained dense network, where the run was iterative"""


@dataclass(frozen=True)
class Sized(Search):
    """A search in a network of one width, whose trainings are a lab's."""

    lab: Lab | None = None
    width: float = 1.0
    live: int = 0

    @functools.cached_property
    def ladder(self) -> Ladder:
        """The options' own, its last rung with exactly `live`; but for iterative pruning that one alone."""
        size = ladder(self.model.network, replace(self.options, rounds=1, target_density=None)).live[0]
        options = replace(self.options, rounds=None, target_density=self.live / size)
        whole = exactly(ladder(self.model.network, options), self.live)
        return whole if self.options.method == "iterative" else replace(whole, rungs=(whole.rungs[0], whole.rungs[-1]))

    def train_round(self, number: int, jobs: list[Job]) -> dict[str, Training]:
        assert self.lab is not None
        return self.lab.train(f"width-{self.width:g}-round-{number:02d}", jobs, model=self.model)


def exactly(found: Ladder, live: int) -> Ladder:
    """The ladder with the first rung that has no more than `live` as its last, and that filled up to `live`: each pool by
    its part of what the round removes, the largest remainders first."""
    over = next((n for n, there in enumerate(found.live) if there <= live), None)
    if over is None or over == 0:
        raise UsageError(
            f"live {live}: the network has {found.live[0]:,} weights that could be pruned, {found.excluded:,} of them excluded; "
            "take larger widths, or another number"
        )
    before, after = found.rungs[over - 1], found.rungs[over]
    missing = live - found.live[over]
    removed = {pool: before[pool] - after[pool] for pool in after}
    exact = {pool: missing * gone / sum(removed.values()) for pool, gone in removed.items()}
    filled = {pool: after[pool] + int(more) for pool, more in exact.items()}
    left = missing - sum(int(more) for more in exact.values())
    for pool in sorted(exact, key=lambda pool: int(exact[pool]) - exact[pool])[:left]:
        filled[pool] += 1
    return replace(found, rungs=(*found.rungs[:over], filled))


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    return [(f"width {s.width:g}, {len(s.ladder.rungs) - 1} rounds", *_cost(s)) for s in _searches(lab)]


def _cost(search: Sized) -> tuple[int, int]:
    rounds = range(len(search.ladder.rungs))
    return sum(map(search.training_count, rounds)), sum(map(search.step_count, rounds))


def _searches(lab: Lab) -> list[Sized]:
    ours, found, options = lab.options, lab.search, lab.search.options
    if not ours.widths or sorted(set(ours.widths)) != ours.widths:
        raise UsageError(f"widths {ours.widths}: give factors that rise, e.g. '[1, 2]'")
    if options.structure != "none":
        raise UsageError(
            f"structure {options.structure}: groups of weights allow no exact number of live ones; use a run without"
        )
    if ours.one_shot and options.method != "iterative":
        raise UsageError(f"one_shot with method {options.method}: that prunes once anyway; leave it out")
    plain = replace(
        options,
        method="oneshot" if ours.one_shot else options.method,
        rewind_step=f"{found.rewind_step}it",
        reinits=0,
        shuffles=0,
        same_signs=0,
        stability=False,
        until_accuracy_falls=False,
        fit_bytes=None,
        fit_arena=None,
        fit_step_ms=None,
    )
    kept = {f.name: getattr(found, f.name) for f in fields(Search)} | {"options": plain}
    live = found.ladder.live[lab.chosen.number] if ours.live is None else ours.live
    return [Sized(**{**kept, "model": lab.model(width)}, lab=lab, width=width, live=live) for width in ours.widths]


def run(lab: Lab) -> dict[str, Any]:
    searches = _searches(lab)
    found = [(search, search.run()) for search in searches]
    first = found[0][1][-1].measured["ticket"].accuracy
    return {
        "live": searches[0].live,
        "widths": [
            {**_row(search, rounds), "gain": estimate(rounds[-1].measured["ticket"].accuracy - first)}
            for search, rounds in found
        ],
    }


def _row(search: Sized, rounds: list[Round]) -> dict[str, Any]:
    """Raises UsageError where a layer lost its last weight on the way."""
    if len(rounds) < len(search.ladder.rungs):
        raise UsageError(
            f"width {search.width:g}: a layer lost its last live weight in round {len(rounds)}; take a larger live"
        )
    last = rounds[-1]
    return {
        "width": search.width,
        "weights": search.ladder.live[0],
        "rounds": last.number,
        "density": search.ladder.densities[-1],
        "live_by_seed": [sum(int(mask.sum()) for mask in last.masks[seed].values()) for seed in search.seeds],
        "dense": last.measured["dense"].to_json(),
        "ticket": last.measured["ticket"].to_json(),
        "dense_accuracy": estimate(last.measured["dense"].accuracy),
        "ticket_accuracy": estimate(last.measured["ticket"].accuracy),
    }


def explain(result: dict[str, Any]) -> list[str]:
    lines = [
        f"tickets of {result['live']:,} live weights; test accuracy in % at the early stop",
        f"{'width':>8} {'weights':>12} {'left':>8} {'dense':>8} {'ticket':>8} {'early stop':>11}  less that of the first width",
    ]
    for row in result["widths"]:
        gain = row["gain"]
        told = "" if gain["low"] is None else f" [{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"
        lines.append(
            f"{row['width']:>8g} {row['weights']:>12,} {row['density']:>8.2%} {100 * row['dense']['accuracy']:>8.2f} "
            f"{100 * row['ticket']['accuracy']:>8.2f} {row['ticket']['early_stop_step']:>11,.0f}  {100 * gain['mean']:+.2f}{told}"
        )
    return lines


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    rows = result["widths"]

    def draw(axes: Any) -> None:
        axes[0, 0].set_xscale("log")
        lines = {kind: [row[f"{kind}_accuracy"] for row in rows] for kind in ("dense", "ticket")}
        plot_estimates(axes[0, 0], [row["weights"] for row in rows], lines)
        axes[0, 0].set_xlabel("weights of the dense network")
        axes[0, 0].set_ylabel("test accuracy, %")

    return {f"Tickets of {result['live']:,} weights by the size of their network": drawn(draw)}
