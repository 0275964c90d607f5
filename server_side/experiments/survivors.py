"""Which initial weights survive, by layer and round: their share in each tenth of |w|, and how many change their sign.

Were survivors random, every tenth of a layer's initial magnitudes would have as many. A sign change is that of a live weight
between the start and the end of its ticket's training. Nothing is trained; the report draws the distributions themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from server_side.figures import density_axis, drawn, plot_estimates, shown_layers
from server_side.ladder import layer_of
from server_side.significance import estimate

if TYPE_CHECKING:
    from server_side.lab import Lab
    from server_side.rounds import Round

TENTHS = 10


def plan(lab: Lab) -> list[tuple[str, int, int]]:
    return []


def run(lab: Lab) -> dict[str, Any]:
    rewound = lab.search.options.retrain == "weights" and lab.search.rewind_step > 0
    names = list(lab.chosen.masks[lab.seeds[0]])
    sizes = {name: lab.chosen.masks[lab.seeds[0]][name].size for name in names}
    return {
        "at_step": lab.search.rewind_step if rewound else 0,
        "chosen_round": lab.chosen.number,
        "layers_drawn": [layer_of(name) for name in shown_layers(sizes)],
        "rounds": [
            {
                "round": r.number,
                "density": r.density,
                "layers": {layer_of(name): _layer(lab, r, name, rewound) for name in names},
            }
            for r in lab.rounds[1:]
        ],
    }


def _layer(lab: Lab, r: Round, name: str, rewound: bool) -> dict[str, Any]:
    """Of one layer in one round; `surviving` has a figure for each tenth of |w|, the smallest first."""
    shares, changes = [], []
    for seed in lab.seeds:
        start = (r if rewound else lab.rounds[0]).start[seed][name]
        mask, final = r.masks[seed][name], r.trainings[f"seed{seed}-ticket"].final[name]
        shares.append(surviving_by_tenth(start, mask))
        changes.append(float(np.mean(np.sign(r.start[seed][name][mask]) != np.sign(final[mask]))))
    return {
        "density": estimate(np.array([r.masks[seed][name].mean() for seed in lab.seeds])),
        "surviving": [estimate(column) for column in np.array(shares).T],
        "sign_changes": estimate(np.array(changes)),
    }


def surviving_by_tenth(weights: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(TENTHS,) the share of live weights in each tenth of the magnitudes, the smallest first; NaN where a layer of fewer
    weights leaves one empty. Equal magnitudes are ranked by their places."""
    live = mask.ravel()[np.argsort(np.abs(weights).ravel(), kind="stable")]
    return np.array([part.mean() if part.size else np.nan for part in np.array_split(live, TENTHS)])


def explain(result: dict[str, Any]) -> list[str]:
    row = next(row for row in result["rounds"] if row["round"] == result["chosen_round"])
    lines = [
        f"of the weights at step {result['at_step']}, the share that survives to round {row['round']} ({row['density']:.2%} of the weights), in %,",
        "by tenths of |w| in a layer, and the survivors whose sign differs after training",
        f"{'layer':<20}{'density':>9}  {'smallest':>8}"
        + "".join(f"{n:>6}" for n in range(2, TENTHS))
        + f"{'largest':>8}{'sign':>8}",
    ]
    for name, layer in row["layers"].items():
        shares = ["" if e["mean"] is None else f"{100 * e['mean']:.1f}" for e in layer["surviving"]]
        inner = "".join(f"{share:>6}" for share in shares[1:-1])
        lines.append(
            f"{name:<20}{layer['density']['mean']:>9.2%}  {shares[0]:>8}{inner}{shares[-1]:>8}{100 * layer['sign_changes']['mean']:>8.1f}"
        )
    return lines


def figures(result: dict[str, Any]) -> dict[str, Markup]:
    row = next(row for row in result["rounds"] if row["round"] == result["chosen_round"])
    densities = [100 * there["density"] for there in result["rounds"]]
    names = result["layers_drawn"]

    def shares(axes: Any) -> None:
        panel = axes[0, 0]
        tenths = [(place + 0.5) * 100 / TENTHS for place in range(TENTHS)]
        plot_estimates(panel, tenths, {name: row["layers"][name]["surviving"] for name in names})
        panel.set_xlabel("|w| before training, percentile in its layer")
        panel.set_ylabel(f"surviving to round {row['round']}, %")

    def signs(axes: Any) -> None:
        density_axis(axes[0, 0])
        by_layer = {name: [there["layers"][name]["sign_changes"] for there in result["rounds"]] for name in names}
        plot_estimates(axes[0, 0], densities, by_layer)
        axes[0, 0].set_ylabel("live weights that change sign, %")

    return {"Survivors by initial magnitude": drawn(shares), "Sign changes": drawn(signs)}
