"""What a search does with its options: kernels and running statistics, the ladder of rounds, where it stops, presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.ticket import Ticket
from server_side import summary
from server_side.training import Recipe, evaluation_steps
from tests.server_side.searches import Tiny, blobs, search


def convolutional() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 4))


def signals() -> dict[str, Any]:
    """The four classes of blobs(), as 10 samples of 2 channels."""
    data = blobs()
    return data | {name: data[name].reshape(-1, 2, 10) for name in ("x", "x_test")}


def test_kernels_are_pruned_like_any_weight(tmp_path: Path) -> None:
    """A search over convolutions ends in a ticket with masks in the shape of kernels."""
    model, data = f"{__name__}:convolutional", f"{__name__}:signals"
    halves: dict[str, Any] = {"prune_fraction": 0.5, "output_prune_fraction": 0.5}
    small = search(tmp_path, model=model, data=data, steps="200it", learning_rate=0.01, **halves)
    rounds = small.run()
    ticket = small.ticket(rounds[-1], {})
    assert {name: (mask.shape, int(mask.sum())) for name, mask in ticket.masks.items()} == {
        "0.weight": ((4, 2, 3), 6),
        "4.weight": ((4, 20), 20),
    }
    assert rounds[-1].measured["ticket"].accuracy.mean() > 0.5  # of 4 classes


def test_fresh_weights_hold_the_running_statistics(tmp_path: Path) -> None:
    """A ticket holds every parameter of its network, and an artifact of it can be made."""
    small = search(tmp_path, model="tests.server_side.searches:normed", engine="device")
    fresh = small.theta(0)
    assert set(fresh) == set(small.model.network.parameter_shapes)
    assert fresh["1.running_mean"].tolist() == [0.0] * 8
    assert fresh["1.running_var"].tolist() == [1.0] * 8
    assert [p.name for p in small.model.network.parameters if p.state] == ["1.running_mean", "1.running_var"]
    assert Ticket(small.model.network, fresh, {}).density == 1.0


def test_running_statistics_travel_with_the_weights(tmp_path: Path) -> None:
    """The device engine moves them, and a ticket has those of its rewind step and those after training."""
    small = search(tmp_path, model="tests.server_side.searches:normed", engine="device", rounds=1, rewind_step="10it")
    rounds = small.run()
    ticket = small.ticket(rounds[-1], {})
    assert ticket.trained is not None
    fresh = small.theta(small.best_seed(rounds[-1]))["1.running_var"]
    rewound, trained = ticket.init["1.running_var"], ticket.trained["1.running_var"]
    assert (rewound != fresh).all()
    assert (trained != rewound).all()


def test_options_of_the_ladder(tmp_path: Path) -> None:
    assert search(tmp_path / "a", rounds=None, target_density=0.3).ladder.live[-1] <= 0.3 * 480
    ladder = search(tmp_path / "b", rounds=4, target_density=0.1).ladder.live
    assert len(ladder) == 5
    assert ladder[-1] / 480 == pytest.approx(0.1, abs=0.01)
    ladder = search(tmp_path / "c", rounds=3, scope="global").ladder.live
    assert ladder == [480, 384, 307, 246]


def test_until_accuracy_falls_stops(tmp_path: Path) -> None:
    rounds = search(tmp_path, rounds=20, prune_fraction=0.5, until_accuracy_falls=True, accuracy_tolerance=0.02).run()
    assert len(rounds) < 9
    gap = [
        r.measured["dense"].validation_accuracy.mean() - r.measured["ticket"].validation_accuracy.mean()
        for r in rounds[1:]
    ]
    assert gap[-1] > 0.02
    assert all(g <= 0.02 for g in gap[:-1])


def test_oneshot_takes_every_mask_from_the_dense_weights(tmp_path: Path) -> None:
    small = search(tmp_path, method="oneshot", rounds=2)
    rounds = small.run()
    dense = rounds[0].trainings["seed0-dense"].final["fc1.weight"]
    mask = rounds[2].masks[0]["fc1.weight"]
    assert np.abs(dense[~mask]).max() <= np.abs(dense[mask]).min()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rounds": 12, "scope": "global", "prune_fraction": 0.7}, "round 7 would have"),
        (
            {"rounds": 3, "until_accuracy_falls": True, "prune_fraction": 0.9, "accuracy_tolerance": 0.0},
            "the accuracy fell",
        ),
        ({"rounds": 2}, None),
    ],
)
def test_a_search_that_ends_early_says_why(tmp_path: Path, changes: dict[str, Any], told: str | None) -> None:
    there = search(tmp_path, reinits=0, shuffles=0, **changes)
    rounds = there.run()
    result = summary.conclude(there, rounds, seconds=1.0)
    assert (result["ended"] is None) == (told is None)
    if told is None:
        return
    assert len(rounds) <= changes["rounds"]
    assert result["ended"] in summary.as_text(result)
    assert result["ended"] in Path(result["report"]).read_text()
    iterative = result["cost"]["steps_per_iterative"]
    assert iterative == pytest.approx(1.0), "against the rounds that were made"


class Dropping(Tiny):
    """Drops by a function, where no module tells of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.fc2(torch.nn.functional.dropout(torch.relu(self.fc1(x)), 0.3, self.training)))
        scores: torch.Tensor = self.out(y)
        return scores


def test_dropout_by_a_function_is_drawn_anew_and_the_same_again(tmp_path: Path) -> None:
    first, again = (
        search(tmp_path / name, model=f"{__name__}:Dropping", rounds=1, reinits=0, shuffles=0).run() for name in "ab"
    )
    plain = search(tmp_path / "plain", rounds=1, reinits=0, shuffles=0).run()
    name = "seed0-dense"
    assert all(np.array_equal(v, again[0].trainings[name].final[n]) for n, v in first[0].trainings[name].final.items())
    assert not np.array_equal(
        first[0].trainings[name].final["fc1.weight"], plain[0].trainings[name].final["fc1.weight"]
    )


def test_evaluations_of_all_trainings_are_at_the_same_steps() -> None:
    recipe = Recipe("adam", 1e-3, 0.0, 0.0, batch=1, steps=100, evaluate_every=30)
    assert evaluation_steps(recipe, 0) == [0, 30, 60, 90, 100]
    assert evaluation_steps(recipe, 7) == [7, 30, 60, 90, 100]
    assert evaluation_steps(recipe, 30) == [30, 60, 90, 100]
