"""The verdict says yes only where the intervals do, no otherwise, and never from one seed; choosing sees no test data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server_side.verdict import Measured, choose, explain, interval, judge


def measured(
    accuracy: list[float], steps: list[float] | None = None, validation: list[float] | None = None
) -> Measured:
    values = np.array(accuracy)
    return Measured(values, values, np.array(validation or accuracy), np.array(steps or [1000.0] * len(accuracy)))


DENSE = measured([0.980, 0.981, 0.979, 0.980, 0.982], [5000, 5200, 4900, 5100, 5000])
BETTER = measured([0.983, 0.984, 0.983, 0.983, 0.984], [3000, 3100, 2900, 3300, 3000])
WORSE = measured([0.969, 0.970, 0.968, 0.971, 0.969], [7000, 7100, 7200, 6900, 7000])


def test_a_ticket_that_is_better_sooner_and_smaller_than_all_wins() -> None:
    verdict = judge({"dense": DENSE, "ticket": BETTER, "reinit": WORSE, "shuffle": WORSE}, 0.2, 0.002)
    assert verdict["winning"]
    assert verdict["matching"]
    assert verdict["early_stop"]["difference"] == pytest.approx(-1980)


@pytest.mark.parametrize(
    "changed",
    [
        {"ticket": WORSE},  # less accurate
        {"ticket": measured(BETTER.accuracy.tolist(), [6000.0] * 5)},  # slower
        {"reinit": BETTER},  # no better than fresh weights
        {"shuffle": measured([0.984, 0.983, 0.984, 0.982, 0.983])},  # no better than shuffled masks
        {"density": 0.8},  # hardly smaller
    ],
)
def test_each_condition_alone_can_say_no(changed: dict[str, Any]) -> None:
    setting = {"dense": DENSE, "ticket": BETTER, "reinit": WORSE, "shuffle": WORSE, "density": 0.2, **changed}
    density = setting.pop("density")
    assert not judge(setting, density, 0.002)["winning"]


def test_without_controls_nothing_is_won() -> None:
    assert not judge({"dense": DENSE, "ticket": BETTER}, 0.2, 0.002)["winning"]


def test_a_higher_mean_with_a_wide_interval_does_not_match() -> None:
    wild = measured([0.999, 0.955, 0.999, 0.960, 0.999])
    verdict = judge({"dense": DENSE, "ticket": wild}, 0.2, 0.002)
    assert verdict["accuracy"]["difference"] > 0
    assert not verdict["matching"]


def test_one_seed_decides_nothing() -> None:
    one = judge({"dense": measured([0.9]), "ticket": measured([0.99]), "reinit": measured([0.5])}, 0.2, 0.002)
    assert not one["matching"]
    assert not one["winning"]
    assert "one seed" in explain(one)[0]


def test_interval_is_students() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.302653 / np.sqrt(3), 2 + 4.302653 / np.sqrt(3)))
    assert interval([5.0]) == (5.0, None, None)


def test_the_sparsest_matching_round_is_chosen_on_validation_alone() -> None:
    good, bad = [0.98] * 5, [0.90] * 5
    rounds = [
        {"dense": DENSE, "ticket": measured(bad, validation=DENSE.accuracy.tolist())},
        {"dense": DENSE, "ticket": measured(bad, validation=DENSE.accuracy.tolist())},
        {"dense": DENSE, "ticket": measured(good, validation=bad)},
    ]
    assert choose(rounds, [0.8, 0.6, 0.5], 0.002) == 1


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_round_that_fulfils_the_hypothesis_goes_before_a_sparser_one_that_only_matches(seeds: int) -> None:
    dense, level = [0.980] * seeds, [0.981] * seeds
    rounds = [
        {"dense": measured(dense, [1000.0] * seeds), "ticket": measured(accuracy, [steps] * seeds)}
        for accuracy, steps in ((level, 900.0), (level, 900.0), (level, 1100.0), ([0.979] * seeds, 900.0))
    ]
    assert choose(rounds, [0.6, 0.4, 0.3, 0.2], 0.002) == 1
    assert choose(rounds[2:], [0.3, 0.2], 0.002) == 1
    assert choose(rounds[:1], [0.6], 0.002) == 0


def test_where_none_matches_the_closest_is_chosen() -> None:
    rounds = [{"dense": DENSE, "ticket": measured([a] * 5)} for a in (0.90, 0.95, 0.93)]
    assert choose(rounds, [0.8, 0.6, 0.5], 0.002) == 1
