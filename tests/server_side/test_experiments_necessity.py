"""The ticket's weights drawn anew in the dense network, and tickets that share no weight with those before."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from server_side.controls import apply_masks
from server_side.errors import UsageError
from server_side.experiment import main
from server_side.experiments.necessity import Options, explain, figures, plan, redrawn_jobs
from server_side.generations import Exhausted, later_generations, one_shot_jobs
from server_side.lab import Lab
from server_side.training import Job
from server_side.transplant import other_places
from tests.server_side.experiments import finished, lab, told

DEEP = {"rounds": 1, "prune_fraction": 0.75, "accuracy_tolerance": 0.9}  # a quarter of the weights, which matches


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("necessity") / "run", **DEEP)


@pytest.fixture(scope="module")
def rewound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("necessity") / "rewound", **DEEP, rewind_step="10it")


def opened(run: Path, **options: object) -> Lab:
    return lab(run, "necessity", Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0, 10])
def test_exactly_the_weights_of_the_ticket_are_drawn_anew(run: Path, rewound_run: Path, step: int) -> None:
    there = opened(rewound_run if step else run, draws=2)
    jobs = list(redrawn_jobs(there))
    assert len(jobs) == 2 * 2 * 2
    for job in jobs:
        assert job.first_step == step
        assert all(mask.all() for mask in job.masks.values())
        dense, masks = there.rewound(job.seed), there.chosen.masks[job.seed]
        if step:
            assert not np.array_equal(dense["fc1.weight"], there.rounds[0].start[job.seed]["fc1.weight"])
        for name, value in dense.items():
            changed = job.start[name] != value
            live = masks.get(name, np.zeros(value.shape, np.bool_))
            assert np.array_equal(changed, live) if job.kind == "redrawn" else not (changed & live).any()
            assert changed.sum() == live.sum()  # as many others


def test_every_draw_is_another_and_others_come_from_the_same(run: Path) -> None:
    by_kind: dict[str, list[Job]] = {"redrawn": [], "others": []}
    for job in redrawn_jobs(opened(run, draws=2)):
        by_kind[job.kind].append(job)
    first, second = by_kind["redrawn"][:2]
    changed = first.start["fc1.weight"] != opened(run).rewound(first.seed)["fc1.weight"]
    assert (first.start["fc1.weight"] != second.start["fc1.weight"])[changed].all()
    others = [job.start["fc1.weight"] for job in by_kind["others"][:2]]
    assert not np.array_equal(others[0], others[1])
    merged = np.where(changed, first.start["fc1.weight"], others[0])  # all values of one fresh draw that were used
    fresh = opened(run).fresh(first.seed, "necessity", "redraw", 0)["fc1.weight"]
    moved = changed | (others[0] != opened(run).rewound(first.seed)["fc1.weight"])
    assert np.array_equal(merged[moved], fresh[moved])


def test_where_fewer_others_are_left_all_of_them_are_taken() -> None:
    masks = {"a": np.arange(10).reshape(2, 5) < 7, "b": np.arange(10) < 3}
    others = other_places(masks, np.random.default_rng(0))
    assert np.array_equal(others["a"], ~masks["a"])
    assert others["b"].sum() == 3
    assert not (others["b"] & masks["b"]).any()


@pytest.mark.parametrize("step", [0, 10])
def test_no_two_generations_share_a_weight(run: Path, rewound_run: Path, step: int) -> None:
    there = opened(rewound_run if step else run)
    first = there.chosen.masks
    found = list(islice(later_generations(there), 2))
    assert [generation.number for generation in found] == [2, 3]
    for seed in there.seeds:
        together = [first[seed], *(generation.masks[seed] for generation in found)]
        for name in first[seed]:
            layers = np.stack([masks[name] for masks in together])
            assert layers.sum(0).max() == 1
            assert len(set(layers.reshape(3, -1).sum(1))) == 1  # as many weights each
            assert not (found[1].large[seed][name] & (layers[0] | layers[1])).any()


def test_a_later_ticket_starts_from_weights_of_its_own_large_network(run: Path, rewound_run: Path) -> None:
    """Without rewinding these are the initial ones; the large network trains without the weights that are taken."""
    there = opened(run)
    (second,) = islice(later_generations(there), 1)
    for seed in there.seeds:
        (large,) = second.copies["large"][there.seeds.index(seed)]
        for name, live in second.large[seed].items():
            assert (large.final[name][~live] == 0).all()
            assert np.array_equal(live, ~there.chosen.masks[seed][name])
        (ticket,) = second.copies["ticket"][there.seeds.index(seed)]
        masks, start = second.masks[seed], there.rounds[0].start[seed]
        again = there.train(f"again-{seed}", [Job(seed, "ticket", 0, apply_masks(start, masks), masks)])
        assert again[f"seed{seed}-ticket"].validation_loss.tolist() == ticket.validation_loss.tolist()
    (second,) = islice(later_generations(opened(rewound_run)), 1)
    for (large,), (ticket,) in zip(second.copies["large"], second.copies["ticket"], strict=True):
        assert large.steps[0] == 0
        assert ticket.steps[0] == 10
        assert sorted(large.snapshots) == [10]


def test_tickets_end_where_a_layer_has_too_few_weights_left_unless_it_is_shared(tmp_path: Path) -> None:
    dense_output = {"output_prune_fraction": 0.2, **DEEP}
    run = finished(tmp_path / "run", **dense_output)
    with pytest.raises(Exhausted, match=r"layer 'out' has 6 weights left of seed 0, a ticket takes 26"):
        next(later_generations(opened(run)))
    (second,) = islice(later_generations(opened(run), ["o*"]), 1)
    assert second.large[0]["out.weight"].all()
    assert not second.large[0]["fc1.weight"].all()
    assert main(["necessity", str(run), "--quiet", "--shared", '["nothing"]']) == 2


def test_the_one_shot_ticket_has_the_largest_weights_of_the_dense_network(run: Path) -> None:
    there = opened(run)
    for job in one_shot_jobs(there):
        final = there.rounds[0].trainings[f"seed{job.seed}-dense"].final
        for name, mask in job.masks.items():
            assert mask.sum() == there.chosen.masks[job.seed][name].sum()
            assert np.abs(final[name][mask]).min() >= np.abs(final[name][~mask]).max()


def test_the_command_tells_every_kind_and_goes_on_without_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["necessity", str(run), "--draws", "1", "--generations", "3"]
    first = told(capsys, *arguments)
    assert told(capsys, *arguments) == first
    result = first["result"]
    assert list(result["kinds"]) == ["dense", "redrawn", "others"]
    assert [row["generation"] for row in result["generations"]] == [1, 1, 2, 3]
    assert list(result["generations"][2]["kinds"]) == ["large", "ticket", "reinit"]
    assert result["ended"] == "no more were looked for"
    assert result["weights"] == result["others"]
    assert (
        first["trainings"]
        == 2 * (2 + 1 + 2 * 3)
        == sum(count for _, count, _ in plan(opened(run, draws=1, generations=3)))
    )
    redrawn, dense = (np.array(result["kinds"][kind]["accuracy_by_seed"]) for kind in ("redrawn", "dense"))
    assert result["against"]["redrawn - dense"]["accuracy"]["by_seed"] == (redrawn - dense).tolist()
    text = "\n".join(explain(result))
    assert "dense without tickets 1-2" in text
    assert "3 disjoint tickets tried; no more were looked for" in text
    assert len(figures(result)) == 2


def test_it_ends_at_the_first_ticket_that_does_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run", **(DEEP | {"accuracy_tolerance": 1e-6}))
    result = told(capsys, "necessity", str(run), "--draws", "0")["result"]
    dense = np.mean(result["kinds"]["dense"]["validation_accuracy_by_seed"])
    later = [row for row in result["generations"] if row["generation"] > 1]
    falls = [dense - np.mean(row["kinds"]["ticket"]["validation_accuracy_by_seed"]) > 1e-6 for row in later]
    assert not any(falls[:-1])
    assert falls[-1]
    assert result["ended"].startswith(f"ticket {len(later) + 1} does not match")


def test_counts_below_the_least_are_refused() -> None:
    with pytest.raises(UsageError, match="draws -1"):
        Options(draws=-1)
    with pytest.raises(UsageError, match="generations 0"):
        Options(generations=0)
