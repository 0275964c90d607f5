"""One self-contained report.html: the verdict, the paper's figures as inline SVG, the table of every round, how to rerun.

No script, no network, no file beside it. Its tables show what summary.py computed; figures.py draws.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from export.ticket import Ticket
from server_side import cost, experiments, figures, verdict
from server_side.data import ARRAYS
from server_side.presets import PRESETS
from server_side.progress import many
from server_side.summary import diverged_controls, explain_rewinds

if TYPE_CHECKING:
    from server_side.rounds import Round
    from server_side.search import Search


def render(search: Search, rounds: list[Round], chosen: Round, ticket: Ticket, result: dict[str, Any]) -> str:
    """The whole page, with the experiments that the run directory holds. `result` is what summary.conclude returns."""
    template = Environment(
        loader=PackageLoader("server_side", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html")
    kinds, where = ["ticket", *verdict.controls_of(chosen.measured)], str(search.directory.path)
    return template.render(
        result=result,
        kinds=kinds,
        figures=figures.draw_all(search, rounds, chosen, kinds, result),
        layers_shown=figures.LAYERS_SHOWN,
        explanation=verdict.explain(result["verdict"]),
        rewound=explain_rewinds(result),
        many=many,
        cost=cost.explain(result["cost"]),
        options=search.options.identity(),
        diverged=[(row["round"], told) for row in result["rounds"] for told in diverged_controls(row)],
        provenance=result["card"]["provenance"],
        layers={name: (int(mask.sum()), mask.size) for name, mask in ticket.masks.items()},
        command=shlex.join(
            ["python", "-m", "server_side.find", "--config", f"{where}/config.json", "--output-dir", where]
        )
        if command_goes_on(search)
        else f"find_ticket(model_fn, data, output_dir={where!r}, ...)",
        seeds=list(search.seeds),
        experiments=experiments.finished(search.directory.path),
    )


def command_goes_on(search: Search) -> bool:
    """Whether the command finds data and model by their names; what was made in a Python call has none."""
    named = search.model.name in PRESETS or ":" in search.model.name
    return named and search.options.data != ARRAYS
