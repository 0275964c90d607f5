"""The report shows every kind of control, draws the weights that it says, and stays legible for deep networks."""

from __future__ import annotations

import html
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from server_side import figures, summary
from server_side.rounds import Round
from server_side.search import Search
from server_side.verdict import choose
from tests.server_side.searches import search


class Deep(nn.Module):
    """Eight layers, the third and the fifth of them the widest."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [20, 6, 6, 14, 6, 15, 6, 6, 4]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        y: torch.Tensor = self.layers[-1](x)
        return y


def conclude(small: Search, rounds: list[Round]) -> tuple[dict[str, Any], str]:
    result = summary.conclude(small, rounds, seconds=1.0)
    return result, (small.directory.path / "report.html").read_text(encoding="utf-8")


def with_another_control(r: Round) -> Round:
    """The shuffles again, as if they were a kind of control that this program does not know yet."""
    again = {
        name.replace("shuffle", "same_sign"): training for name, training in r.trainings.items() if "shuffle" in name
    }
    measured = dict(r.measured, same_sign=r.measured["shuffle"]) if again else r.measured
    return replace(r, trainings={**r.trainings, **again}, measured=measured)


def test_any_kind_of_control_is_in_the_results_the_text_and_the_report(tmp_path: Path) -> None:
    small = search(tmp_path)
    result, html = conclude(small, [with_another_control(r) for r in small.run()])
    assert list(result["verdict"]["controls"]) == ["reinit", "shuffle", "same_sign"]
    assert result["same_sign"] == result["shuffle"]
    assert result["cost"]["controls"]["trainings"] == 3 * 4
    text = summary.as_text(result)
    assert text.splitlines()[1].split() == ["round", "weights", "ticket", "reinit", "shuffle", "same_sign"]
    assert "better than same_sign" in text
    assert html.count(">same_sign<") == 2 + 3  # two tables, three figures
    assert "better than same_sign" in html


def test_a_control_that_one_round_lacks_leaves_a_gap(tmp_path: Path) -> None:
    small = search(tmp_path)
    rounds = small.run()
    chosen = 1 + choose([r.measured for r in rounds[1:]], [r.density for r in rounds[1:]], small.tolerance)
    other = rounds[3 - chosen]
    del other.measured["shuffle"]
    result, html = conclude(small, rounds)
    lines = summary.as_text(result).splitlines()[3:6]
    assert len(lines[other.number].split()) < len(lines[chosen].split())
    assert '<td class="group"></td><td></td><td></td>' in html


@pytest.mark.parametrize(("rewind_step", "retrain"), [("0it", "weights"), ("10it", "weights"), ("10it", "fine-tune")])
def test_the_weights_that_are_drawn_are_those_that_survive_before_and_after_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rewind_step: str, retrain: str
) -> None:
    panels: list[tuple[Any, ...]] = []
    histograms = figures._histograms

    def recorded(panel: Any, *given: Any) -> None:
        panels.append(given)
        histograms(panel, *given)

    monkeypatch.setattr(figures, "_histograms", recorded)
    small = search(tmp_path, rewind_step=rewind_step, retrain=retrain)
    rounds = small.run()
    result, html = conclude(small, rounds)
    seed = result["seed"]
    dense = rounds[0].trainings[f"seed{seed}-dense"]
    rewound = (rewind_step, retrain) == ("10it", "weights")
    start = dense.snapshots[10] if rewound else small.theta(seed)
    assert ("at step 10" in html) == rewound
    expected = [(name, r) for name in small.model.network.prunable for r in rounds[1:]]
    assert len(panels) == len(expected) == 6
    for (name, r), (bins, everything, live, trained) in zip(expected, panels, strict=True):
        mask, final = r.masks[seed][name], r.trainings[f"seed{seed}-ticket"].final[name]
        assert everything.tolist() == start[name].ravel().tolist()
        assert live.tolist() == start[name][mask].tolist()
        assert trained.tolist() == final[mask].tolist()
        assert len(live) == len(trained) < len(everything)
        inside = np.mean(np.abs(np.concatenate([everything, live, trained])) <= bins[-1])
        assert inside > 0.98


def test_few_layers_are_drawn_of_a_deep_network(tmp_path: Path) -> None:
    sizes = {"in": 1, "a": 2, "b": 9, "c": 3, "d": 8, "e": 7, "f": 6, "out": 1}
    assert figures.shown_layers(sizes) == ["in", "b", "d", "e", "f", "out"]
    assert figures.shown_layers(dict(list(sizes.items())[:6])) == ["in", "a", "b", "c", "d", "e"]
    small = search(tmp_path, model=f"{__name__}:Deep", rounds=1)
    _, html = conclude(small, small.run())
    assert "6 of the 8 layers (the first, the last, the largest)" in html


def test_one_seed_has_a_report_without_intervals(tmp_path: Path) -> None:
    small = search(tmp_path, seeds=1)
    result, html = conclude(small, small.run())
    assert "Undecided with one seed" in html
    assert result["verdict"]["simultaneous"]["low"] is None
    assert "nan" not in html


def test_the_same_rounds_give_the_same_bytes(tmp_path: Path) -> None:
    small = search(tmp_path)
    rounds = small.run()
    assert conclude(small, rounds)[1] == conclude(small, rounds)[1]


def test_the_callers_backend_of_matplotlib_stays(tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    small = search(tmp_path / "a b", rounds=1)
    page = Path(summary.conclude(small, small.run(), seconds=1.0)["report"]).read_text()
    assert mpl.get_backend() == "agg"
    where = html.escape(f"'{tmp_path / 'a b'}'").replace("&#x27;", "&#39;")  # as Jinja writes it
    assert f"--output-dir {where}" in page
