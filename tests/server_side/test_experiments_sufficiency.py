"""Tickets planted in fresh networks, exactly, and the same ticket in other places of a fully connected one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from server_side.controls import apply_masks
from server_side.errors import UsageError
from server_side.experiments.sufficiency import Options, counts, explain, figures, planting_jobs, soil, tickets_of
from server_side.lab import Lab
from server_side.permutation import chain_of, copies, disjoint_orders, permuted
from server_side.transplant import planted, scattered, transplanted
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import Tiny, blobs

DEEP = {"rounds": 1, "prune_fraction": 0.8}


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(40, 4))


def signals() -> dict[str, Any]:
    data = blobs()
    return data | {name: data[name].reshape(-1, 2, 10) for name in ("x", "x_test")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("sufficiency") / "run", **DEEP)


@pytest.fixture(scope="module")
def conv_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"model": f"{__name__}:convolutional", "data": f"{__name__}:signals"}
    return finished(tmp_path_factory.mktemp("sufficiency") / "conv", **settings, **DEEP)


def opened(run: Path, **options: int) -> Lab:
    return lab(run, "sufficiency", Options(**options))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_planting_changes_exactly_the_planted_weights(run: Path, number: int) -> None:
    there = opened(run, draws=2)
    for job in planting_jobs(there, number):
        assert job.first_step == 0
        bare = soil(there, job.seed, job.index)
        tickets = tickets_of(there, job.seed, number)
        _, places = planted(bare, tickets)
        assert list(job.masks) == list(places)
        for name, value in job.start.items():
            assert job.masks.get(name, np.ones(1)).all()
            changed = value != bare[name]
            if name not in places:
                assert not changed.any()
            elif job.kind == "planted":
                assert np.array_equal(changed, places[name])
                for values, masks in reversed(tickets):  # the first ticket is whole, bit for bit
                    mine = masks[name] if masks is tickets[0][1] else masks[name] & ~tickets[0][1][name]
                    known = np.isin(value[mine], np.concatenate([v[name][m[name]] for v, m in tickets]))
                    assert known.all()
                    if masks is tickets[0][1]:
                        assert np.array_equal(value[mine], values[name][mine])
            else:
                assert changed.sum() == places[name].sum()  # as many, and the same numbers
                moved = np.sort(value[changed])
                assert np.array_equal(moved, np.sort(planted(bare, tickets)[0][name][places[name]]))
                assert not np.array_equal(changed, places[name])


def test_of_two_claims_the_earlier_has_the_place() -> None:
    bare = {"a": np.zeros(4, np.float32), "bias": np.full(2, 9, np.float32)}
    one = ({"a": np.full(4, 1, np.float32)}, {"a": np.array([True, True, False, False])})
    two = ({"a": np.full(4, 2, np.float32)}, {"a": np.array([False, True, True, False])})
    start, places = planted(bare, [one, two])
    assert start["a"].tolist() == [1, 1, 2, 0]
    assert start["bias"] is bare["bias"]
    assert places["a"].tolist() == [True, True, True, False]
    assert bare["a"].tolist() == [0, 0, 0, 0]


def test_scattered_weights_go_with_their_places() -> None:
    random = np.random.default_rng(3)
    values = {"a": random.normal(size=(8, 9)).astype(np.float32), "b": np.ones(2, np.float32)}
    places = {"a": random.random((8, 9)) < 0.3}
    moved, there = scattered(values, places, np.random.default_rng(0))
    assert np.array_equal(np.sort(moved["a"][there["a"]]), np.sort(values["a"][places["a"]]))
    assert not np.array_equal(there["a"], places["a"])
    assert moved["b"] is values["b"]
    assert np.array_equal(transplanted(values, moved, there)["a"] != values["a"], there["a"])


def test_a_permuted_ticket_computes_the_same_function(run: Path) -> None:
    """To the last bit but for the order of sums; other permutations than of hidden units would change it."""
    there = opened(run)
    chain = chain_of(there.search.model.network)
    assert chain is not None
    assert [layer["weight"] for layer in chain] == ["fc1.weight", "fc2.weight", "out.weight"]
    values, masks = there.rewound(0), there.chosen.masks[0]
    found = copies(values, masks, chain, 3)
    assert found[0] == (values, masks)
    x = torch.from_numpy(blobs()["x"])
    module = Tiny()

    def outputs(ticket: dict[str, Any], live: dict[str, Any]) -> torch.Tensor:
        state = {name: torch.from_numpy(value) for name, value in apply_masks(ticket, live).items()}
        result: torch.Tensor = torch.func.functional_call(module, state, (x,))
        return result

    for copy, live in found[1:]:
        assert not np.array_equal(live["fc1.weight"], masks["fc1.weight"])
        torch.testing.assert_close(outputs(copy, live), outputs(values, masks), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("excluded", ["fc1.weight", "fc2.weight", "out.weight"])
def test_a_layer_that_is_not_pruned_goes_with_its_units_and_claims_no_place(run: Path, excluded: str) -> None:
    there = opened(run)
    chain = chain_of(there.search.model.network)
    assert chain is not None
    values = there.rewound(0)
    masks = {name: mask for name, mask in there.chosen.masks[0].items() if name != excluded}
    found = copies(values, masks, chain, 3)
    x = torch.from_numpy(blobs()["x"])
    outputs = []
    for copy, live in found:
        assert set(live) == set(masks)
        assert any(not np.array_equal(live[name], masks[name]) for name in masks) == (copy is not values)
        state = {name: torch.from_numpy(value) for name, value in apply_masks(copy, live).items()}
        outputs.append(torch.func.functional_call(Tiny(), state, (x,)))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-5, atol=1e-6)


def test_a_search_that_leaves_a_layer_out_can_be_asked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, **DEEP, exclude=["out"], seeds=1)
    result = told(capsys, "sufficiency", str(run), "--tickets", "2")["result"]
    assert [row["tickets"] for row in result["planted"]] == [1, 2]
    for job in planting_jobs(opened(run), 2):
        assert np.array_equal(job.start["out.weight"], soil(opened(run), job.seed, job.index)["out.weight"])


def test_copies_are_put_where_the_fewest_places_are_taken(run: Path) -> None:
    """No random order of a hidden layer, the others being as they are, shares fewer places with the ticket."""
    there = opened(run)
    chain = chain_of(there.search.model.network)
    assert chain is not None
    masks = there.chosen.masks[0]

    def overlaps(orders: list[Any]) -> list[int]:
        moved = permuted(masks, chain, orders)
        first = int((moved["fc1.weight"] & masks["fc1.weight"]).sum())
        return [first, sum(int((moved[name] & masks[name]).sum()) for name in ("fc2.weight", "out.weight"))]

    best = disjoint_orders(masks, chain, masks)
    assert all(np.array_equal(np.sort(order), np.arange(len(order))) for order in best)
    random = np.random.default_rng(0)
    for _ in range(200):
        assert overlaps([random.permutation(16), best[1]])[0] >= overlaps(best)[0]
        assert overlaps([best[0], random.permutation(8)])[1] >= overlaps(best)[1]
    assert overlaps(best)[0] < 0.5 * masks["fc1.weight"].sum() * masks["fc1.weight"].mean()  # half of chance


def test_chains_alone_have_permutations(run: Path, conv_run: Path) -> None:
    assert chain_of(opened(run).search.model.network) is not None
    assert chain_of(opened(conv_run).search.model.network) is None


def test_other_networks_get_the_tickets_of_the_seeds(conv_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = opened(conv_run)
    assert counts(there) == [1, 2]  # seeds
    tickets = tickets_of(there, 1, 2)
    for seed, (values, masks) in zip([1, 0], tickets, strict=True):
        assert masks is there.chosen.masks[seed]
        assert np.array_equal(values["0.weight"], there.rewound(seed)["0.weight"])
    result = told(capsys, "sufficiency", str(conv_run))["result"]
    assert not result["permuted"]


def test_the_command_tells_every_number_of_tickets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sufficiency", str(run), "--tickets", "3", "--draws", "2"]
    told_first = told(capsys, *arguments)
    assert told(capsys, *arguments) == told_first
    result = told_first["result"]
    assert [row["tickets"] for row in result["planted"]] == [1, 2]
    assert told_first["trainings"] == 2 * 2 * 5
    shares = [row["share"] for row in result["planted"]]
    assert shares[0] == pytest.approx(result["density"])
    assert shares[0] < shares[1] <= 2 * shares[0]
    planted_, fresh = (np.array(r["accuracy_by_seed"]) for r in (result["planted"][0]["planted"], result["fresh"]))
    assert result["planted"][0]["planted - fresh"]["accuracy"]["by_seed"] == (planted_ - fresh).tolist()
    assert "2 tickets scattered" in "\n".join(explain(result))
    assert figures(result)


def test_less_than_one_ticket_is_refused() -> None:
    with pytest.raises(UsageError, match="tickets 0"):
        Options(tickets=0)
