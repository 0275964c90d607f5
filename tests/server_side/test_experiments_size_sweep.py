"""Tickets of one size out of networks of many: at width 1 the search again, everywhere exactly as many live weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server_side.errors import UsageError
from server_side.experiment import main
from server_side.experiments.size_sweep import Options, _searches, exactly, plan, run
from server_side.ladder import ALL, Ladder
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import Watcher


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("size-sweep") / "run", reinits=1, shuffles=0)


def test_width_one_is_the_search_and_others_have_as_many_live_weights(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = told(capsys, "size-sweep", str(path), "--widths", "[1, 1.5]", "--label", "sizes")["result"]
    there = lab(path)
    same, wider = result["widths"]
    assert same["dense"] == there.found["dense"]
    assert same["ticket"] == there.found["ticket_at_density"]
    assert wider["weights"] == 20 * 24 + 24 * 12 + 12 * 4
    assert wider["rounds"] > same["rounds"]
    for row in result["widths"]:
        assert row["live_by_seed"] == [there.search.ladder.live[there.chosen.number]] * 2
    assert result["widths"][0]["gain"]["mean"] == 0


@pytest.mark.parametrize(
    ("changes", "one_shot"),
    [
        ({}, True),
        ({"scope": "global", "exclude": ["out"]}, False),
        ({"rounds": 3, "target_density": 0.3, "rewind_step": "10it"}, False),
        ({"method": "snip"}, False),
    ],
)
def test_any_pruning_ends_with_exactly_as_many(tmp_path: Path, changes: dict[str, Any], one_shot: bool) -> None:
    ready = finished(tmp_path / "run", reinits=0, shuffles=0, seeds=1, **changes)
    there = lab(ready, options=Options([2.0], live=200, one_shot=one_shot))
    search = _searches(there)[0]
    assert search.ladder.live[-1] == 200
    assert (len(search.ladder.rungs) == 2) == (one_shot or changes.get("method") == "snip")
    row = run(there)["widths"][0]
    excluded = search.ladder.excluded
    assert row["live_by_seed"] == [200 - excluded]


def test_the_plan_is_what_is_trained(path: Path) -> None:
    watch = Watcher()
    there = lab(path, "planned", Options([1.0], one_shot=True), watch)
    run(there)
    assert sum(steps for _, _, steps in plan(there)) == watch.replica_steps
    assert sum(trainings for _, trainings, _ in plan(there)) == 2 * 2


def test_the_last_rung_is_filled_up_by_largest_remainders() -> None:
    def of(*rungs: dict[str, int]) -> Ladder:
        return Ladder({pool: (size,) for pool, size in rungs[0].items()}, rungs, excluded=3)

    found = exactly(of({"a": 100, "b": 50}, {"a": 80, "b": 40}, {"a": 64, "b": 32}), 3 + 110)
    assert found.rungs == ({"a": 100, "b": 50}, {"a": 80, "b": 40}, {"a": 73, "b": 37})
    assert found.live[-1] == 113
    assert exactly(of({ALL: 100}, {ALL: 80}), 83).rungs[-1] == {ALL: 80}
    for live in (3, 200):
        with pytest.raises(UsageError, match=f"live {live}: the network has 103 weights"):
            exactly(of({ALL: 100}, {ALL: 80}), live)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--live", "480"], "live 480: the network has 480 weights"),
        (["--widths", "[]"], "widths []: give factors that rise"),
    ],
)
def test_bad_options_are_named(path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size-sweep", str(path), "--label", "bad", "--widths", "[1]", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_one_shot_where_it_changes_nothing_is_refused(tmp_path: Path) -> None:
    ready = finished(tmp_path / "run", method="oneshot", reinits=0, shuffles=0, seeds=1, rounds=1)
    with pytest.raises(UsageError, match="one_shot with method oneshot: that prunes once anyway; leave it out"):
        _searches(lab(ready, options=Options(one_shot=True)))
