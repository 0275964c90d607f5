"""The verdict says yes only where the tests do, no otherwise, and never from one seed; choosing sees no test data.

Its error rates are simulated: thousands of searches whose truth is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from server_side.significance import holm, interval, p_above, p_below, p_equivalent
from server_side.verdict import ALPHA, Measured, choose, explain, judge


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


def test_weights_that_were_trained_further_win_nothing() -> None:
    """Learning-rate rewinding and fine-tuning stop early because their weights had more steps before."""
    nets = {"dense": DENSE, "ticket": BETTER, "reinit": WORSE}
    assert judge(nets, 0.2, 0.002)["winning"]
    verdict = judge(nets, 0.2, 0.002, rewound=False)
    assert verdict["matching"]
    assert not verdict["winning"]
    assert "no  from rewound weights" in "\n".join(explain(verdict))


def test_without_controls_nothing_is_won() -> None:
    verdict = judge({"dense": DENSE, "ticket": BETTER}, 0.2, 0.002)
    assert verdict["matching"]
    assert not verdict["winning"]
    assert "better than controls: none was run" in "".join(explain(verdict))


def test_a_control_of_any_kind_must_be_beaten() -> None:
    """Whatever is measured beside dense and ticket is a control, in the verdict and in its family of tests."""
    measured_with = {"dense": DENSE, "ticket": BETTER, "reinit": WORSE, "same_sign": BETTER}
    verdict = judge(measured_with, 0.2, 0.002)
    assert verdict["family"] == ["non_inferiority", "reinit", "same_sign"]
    assert verdict["controls"]["reinit"]["holds"]
    assert not verdict["controls"]["same_sign"]["holds"]
    assert not verdict["winning"]
    assert judge({**measured_with, "same_sign": WORSE}, 0.2, 0.002)["winning"]
    assert "no  better than same_sign" in "\n".join(explain(verdict))


def test_a_control_that_diverged_with_all_its_copies_counts_in_the_family() -> None:
    lost = measured([np.nan] * 5)
    verdict = judge({"dense": DENSE, "ticket": BETTER, "reinit": WORSE, "shuffle": lost}, 0.2, 0.002)
    inferior = verdict["non_inferiority"]
    assert inferior["p_adjusted"] == pytest.approx(
        max(2 * inferior["p_value"], 3 * verdict["controls"]["reinit"]["p_value"])
    )
    assert verdict["controls"]["shuffle"]["p_adjusted"] is None
    assert not verdict["winning"]


def test_equality_within_rounding_is_at_least_as_accurate() -> None:
    """As many hits of 364 over all seeds: the differences add up to -2e-16."""
    dense, ticket = ([hits / 364 for hits in row] for row in ([363, 347, 359, 344, 348], [356, 353, 344, 355, 353]))
    verdict = judge({"dense": measured(dense), "ticket": measured(ticket)}, 0.2, 0.01)
    assert verdict["accuracy"]["difference"] < 0
    assert verdict["accuracy"]["holds"]


@pytest.mark.parametrize(
    ("shift", "matching", "equivalent"), [(0.0, True, True), (0.01, True, False), (-0.01, False, False)]
)
def test_matching_is_not_worse_and_equivalent_neither_worse_nor_better(
    shift: float, matching: bool, equivalent: bool
) -> None:
    ticket = measured([0.9801 + shift, 0.9810 + shift, 0.9791 + shift, 0.9799 + shift, 0.9821 + shift])
    verdict = judge({"dense": DENSE, "ticket": ticket}, 0.2, 0.002)
    assert (verdict["matching"], verdict["equivalent"]) == (matching, equivalent)


def test_stable_is_an_instability_surely_below_two_points() -> None:
    nets = {"dense": DENSE, "ticket": BETTER, "reinit": WORSE}
    assert judge(nets, 0.2, 0.002)["stable"] is None
    low, high = (np.array([0.001, 0.002, 0.0, 0.003, 0.001]) + rise for rise in (0.0, 0.0185))
    stable = judge(nets, 0.2, 0.002, instability=low)
    assert stable["stable"]
    assert "also stable: instability 0.14 points, below 2" in "\n".join(explain(stable))
    unsure = judge(nets, 0.2, 0.002, instability=high)  # a mean below 2 points, but not surely
    assert unsure["instability"]["difference"] < 0.02
    assert not unsure["stable"]
    assert stable["winning"] == unsure["winning"] is True  # it decides nothing else


@pytest.mark.parametrize(("seeds", "warned"), [(2, True), (4, True), (5, False)])
def test_few_seeds_are_warned_of(seeds: int, warned: bool) -> None:
    nets = {"dense": measured(DENSE.accuracy.tolist()[:seeds]), "ticket": measured(BETTER.accuracy.tolist()[:seeds])}
    text = explain(judge(nets, 0.2, 0.002))
    assert any(line.startswith(f"warning: {seeds} seeds: too few") for line in text) == warned


def test_what_weakens_a_comparison_is_told() -> None:
    holed = measured([np.nan, *WORSE.accuracy.tolist()[1:]])
    verdict = judge({"dense": DENSE, "ticket": measured((DENSE.accuracy + 0.01).tolist()), "reinit": holed}, 0.2, 0.002)
    assert any("reinit: compared over 4 of 5 seeds" in told for told in verdict["warnings"])
    assert any("the test part is too small to show their spread" in told for told in verdict["warnings"])


def test_over_all_rounds_at_once_the_interval_is_wider() -> None:
    one, many = (judge({"dense": DENSE, "ticket": BETTER}, 0.2, 0.002, rounds) for rounds in (1, 20))
    assert one["simultaneous"]["low"] == one["accuracy"]["low"] > many["simultaneous"]["low"]
    gain = BETTER.accuracy - DENSE.accuracy
    expected = stats.t.interval(1 - 2 * ALPHA / 20, 4, gain.mean(), stats.sem(gain))
    assert (many["simultaneous"]["low"], many["simultaneous"]["high"]) == pytest.approx(expected)
    assert "over all 20 rounds at once" in "\n".join(explain(many))


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


def test_p_values_are_scipys() -> None:
    random = np.random.default_rng(0)
    for count in (2, 5, 9):
        dense, ticket = random.normal(0.98, 0.002, (2, count))
        assert p_above(ticket - dense, 0.0) == pytest.approx(
            stats.ttest_rel(ticket, dense, alternative="greater").pvalue
        )
        shifted = stats.ttest_rel(ticket + 0.002, dense, alternative="greater").pvalue
        assert p_above(ticket - dense, -0.002) == pytest.approx(shifted)
        assert p_below(ticket - dense, 0.001) == pytest.approx(
            stats.ttest_rel(ticket, dense + 0.001, alternative="less").pvalue
        )
        upper = stats.ttest_rel(ticket, dense + 0.002, alternative="less").pvalue
        assert p_equivalent(ticket - dense, 0.002) == pytest.approx(max(shifted, upper))
    assert p_above([0.1], 0.0) is None


def test_a_matching_p_value_and_the_interval_agree() -> None:
    """The lower end of the interval is above -tolerance exactly where the unadjusted test says so."""
    random = np.random.default_rng(1)
    said = []
    for _ in range(300):
        dense, ticket = random.normal([[0.98], [0.979]], 0.001, (2, 5))
        verdict = judge({"dense": measured(dense.tolist()), "ticket": measured(ticket.tolist())}, 0.2, 0.002)
        said.append(verdict["matching"])
        assert verdict["matching"] == (verdict["accuracy"]["low"] >= -0.002)
    assert 0.1 < np.mean(said) < 0.9


def test_without_spread_the_limit_is_taken() -> None:
    same = np.full(5, 0.1) + 0.2 - 0.3  # 5e-17 each
    assert (p_above(same, -0.01), p_above(same, 0.0), p_above(same, 0.01)) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 3 * .01, then max(2 * .03, 1 * .04), and 4 * .005
        ([0.04], [0.04]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.01, None, 0.02], [0.03, None, 0.04]),  # None is one of three, as if it were 1
        ([], []),
    ],
)
def test_holm_is_as_by_hand(given: list[float | None], adjusted: list[float | None]) -> None:
    assert holm(given) == [None if p is None else pytest.approx(p) for p in adjusted]


def test_holm_rejects_what_its_steps_do() -> None:
    """The step-down rule itself: the i-th smallest of m against alpha / (m - i), until the first that fails."""
    random = np.random.default_rng(2)
    for _ in range(500):
        p_values = (random.random(4) ** 3).tolist()
        rejected = set()
        for rank, i in enumerate(np.argsort(p_values)):
            if p_values[i] > ALPHA / (4 - rank):
                break
            rejected.add(int(i))
        assert {i for i, p in enumerate(holm(p_values)) if p is not None and p <= ALPHA} == rejected


EXPERIMENTS = 2000
ERROR = 3 * np.sqrt(ALPHA * (1 - ALPHA) / EXPERIMENTS)  # of a simulated rate of ALPHA


def experiments(
    gains: dict[str, float], seeds: int, random_seed: int, count: int = EXPERIMENTS
) -> list[dict[str, Any]]:
    """Verdicts on simulated searches. `gains`: the true mean accuracy over dense by kind; each seed's luck is shared by the
    kinds in part, and accuracies are those of 10,000 samples, so in steps of 0.0001."""
    random = np.random.default_rng(random_seed)
    verdicts = []
    for _ in range(count):
        shared = random.normal(0.98, 0.002, seeds)
        nets = {
            kind: np.round(shared + gain + random.normal(0, 0.0015, seeds), 4)
            for kind, gain in {"dense": 0.0, **gains}.items()
        }
        verdicts.append(judge({kind: measured(values.tolist()) for kind, values in nets.items()}, 0.2, 0.002))
    return verdicts


@pytest.mark.parametrize("seeds", [2, 5])
def test_a_ticket_that_is_worse_than_the_tolerance_matches_in_at_most_5_of_100_searches(seeds: int) -> None:
    at_the_edge = np.mean([v["matching"] for v in experiments({"ticket": -0.002}, seeds, random_seed=seeds)])
    assert abs(at_the_edge - ALPHA) < ERROR  # neither more, nor wastefully less
    below = np.mean([v["matching"] for v in experiments({"ticket": -0.0022}, seeds, random_seed=seeds)])
    assert below < at_the_edge


def test_equivalence_is_wrongly_claimed_in_at_most_5_of_100_searches() -> None:
    for edge in (-0.002, 0.002):
        assert np.mean([v["equivalent"] for v in experiments({"ticket": edge}, 5, random_seed=1)]) < ALPHA + ERROR


def test_power_grows_with_seeds() -> None:
    power = [
        np.mean([v["matching"] for v in experiments({"ticket": 0.0}, seeds, 7, count=500)]) for seeds in (2, 5, 10, 20)
    ]
    assert power == sorted(power)
    assert power[0] < 0.2
    assert power[1] > 0.4
    assert power[-1] > 0.9


@pytest.mark.parametrize(
    "gains",
    [
        {"ticket": -0.002, "reinit": -0.002, "shuffle": -0.002, "same_sign": -0.002},  # all four are untrue
        {"ticket": 0.01, "reinit": 0.01, "shuffle": 0.01, "same_sign": -0.05},  # two are
    ],
)
def test_any_untrue_claim_is_made_in_at_most_5_of_100_searches(gains: dict[str, float]) -> None:
    untrue = [kind for kind, gain in gains.items() if kind != "ticket" and gain >= gains["ticket"]]
    wrong, uncorrected = 0, 0
    for verdict in experiments(gains, 5, random_seed=3):
        tests = [verdict["controls"][kind] for kind in untrue]
        tests += [verdict["non_inferiority"]] if gains["ticket"] <= -0.002 else []
        wrong += any(test["holds"] for test in tests)
        uncorrected += any(test["p_value"] <= ALPHA for test in tests)
    assert wrong / EXPERIMENTS < ALPHA + ERROR
    assert uncorrected / EXPERIMENTS > ALPHA + ERROR  # what Holm is there for


@pytest.mark.parametrize(("shared_luck", "chosen_stays_below"), [(0.0, True), (0.5, False), (1.0, False)])
def test_choosing_on_validation_costs_nothing_but_what_luck_in_training_shares(
    shared_luck: float, chosen_stays_below: bool
) -> None:
    """Ten rounds, each truly at the edge. Where validation and test share no luck, the chosen round's verdict keeps its
    level; where a seed's luck in a round shows in both parts (a share of its variance), it does not, but the one over all rounds
    does."""
    random = np.random.default_rng(5)
    chosen_wrong, simultaneous_wrong, count = 0, 0, 300
    for _ in range(count):
        rounds = []
        for luck in random.normal(0, 0.0015, (10, 5)):
            own = random.normal(0, 0.0015, 5)
            ticket = 0.978 + np.sqrt(shared_luck) * luck + np.sqrt(1 - shared_luck) * own
            rounds.append(
                {"dense": measured([0.98] * 5), "ticket": measured(ticket.tolist(), None, (0.978 + luck).tolist())}
            )
        densities = [0.5 * 0.8**i for i in range(10)]
        verdict = judge(rounds[choose(rounds, densities, 0.002)], 0.2, 0.002, rounds=10)
        chosen_wrong += verdict["matching"]
        simultaneous_wrong += verdict["simultaneous"]["matching"]
    error = 3 * np.sqrt(ALPHA * (1 - ALPHA) / count)
    assert (chosen_wrong / count < ALPHA + error) == chosen_stays_below
    assert simultaneous_wrong / count < ALPHA + error
