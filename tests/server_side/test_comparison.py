"""How kinds of networks are told side by side: steps to an accuracy, differences by seed, what is said in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from server_side.comparison import chosen_copies, difference, figure, gap, line, steps_to, told
from server_side.rounds import copies_by_kind
from server_side.training import Job, Training

NAN = float("nan")


def training(validation: list[float], test: float = 0.5, first_step: int = 0) -> Training:
    """Evaluated every 10 steps; its early stop is the evaluation with the highest accuracy."""
    accuracy = np.array(validation)
    steps = first_step + 10 * np.arange(len(validation))
    return Training(steps, 1 - accuracy, 1 - accuracy, accuracy, test, test, {}, {})


def diverged() -> Training:
    return replace(training([0.1, NAN, NAN], test=NAN), diverged_step=10)


@pytest.mark.parametrize(
    ("validation", "first_step", "steps"),
    [
        ([0.1, 0.5, 0.8, 0.7], 0, 20),
        ([0.1, 0.5, 0.75, 0.9], 0, 20),  # reached exactly
        ([0.9, 0.5], 0, 0),
        ([0.1, 0.8], 40, 50),  # counted from initialisation
        ([0.1, 0.74], 0, float("inf")),
    ],
)
def test_steps_are_those_of_the_first_evaluation_that_reaches_the_goal(
    validation: list[float], first_step: int, steps: float
) -> None:
    assert steps_to(training(validation, first_step=first_step), 0.75) == steps


def test_the_median_counts_those_that_never_arrive() -> None:
    fast, slow, never = training([0.1, 0.9]), training([0.1, 0.2, 0.9]), training([0.1, 0.2])
    goals = np.array([0.8, 0.8])
    assert told([[fast], [slow]], goals)["to_dense"] == {"steps": 15.0, "reached": 2, "of": 2}
    assert told([[fast, slow], [never]], goals)["to_dense"] == {"steps": 20.0, "reached": 2, "of": 3}
    assert told([[fast], [never, diverged()]], goals)["to_dense"] == {"steps": None, "reached": 1, "of": 3}
    assert told([[fast], [slow]], np.array([0.8, 0.95]))["to_dense"]["reached"] == 1  # the goal of each seed


def test_differences_are_paired_by_seed_over_the_means_of_copies() -> None:
    one = [[training([0.1, 0.9], 0.6), training([0.9], 0.8)], [training([0.1, 0.9], 0.5)], [diverged()]]
    other = [[training([0.9], 0.4)], [training([0.9], 0.9)], [training([0.9], 0.9)]]
    found = difference(one, other)
    assert found["accuracy"]["by_seed"] == [pytest.approx(0.3), pytest.approx(-0.4), None]
    assert found["early_stop_step"]["by_seed"] == [5.0, 10.0, None]
    assert found["accuracy"]["mean"] == pytest.approx(-0.05)


def test_copies_are_told_apart_by_kind_and_seed() -> None:
    jobs = [Job(seed, kind, index, {}, {}) for kind in ("a", "b") for seed in (1, 12) for index in (0, 1)]
    trainings = {job.name: training([job.seed / 100, job.index / 100]) for job in jobs}
    found = copies_by_kind(jobs, trainings, [1, 12])
    assert list(found) == ["a", "b"]
    assert found["b"] == [
        [trainings["seed1-b0"], trainings["seed1-b1"]],
        [trainings["seed12-b0"], trainings["seed12-b1"]],
    ]
    round_trainings = {
        "seed1-ticket": training([0.1]),
        "seed1-reinit0": training([0.2]),
        "seed12-ticket": training([0.3]),
    }
    assert chosen_copies(round_trainings, "ticket", [1, 12]) == [
        [round_trainings["seed1-ticket"]],
        [round_trainings["seed12-ticket"]],
    ]
    assert chosen_copies(round_trainings, "reinit", [1, 12]) == [[round_trainings["seed1-reinit0"]], []]


def test_words_say_what_is_unknown() -> None:
    failed = told([[diverged()]], np.array([0.5]))
    sound = told([[training([0.1, 0.9], 0.75)]], np.array([0.95]))
    assert line("x", failed).split() == ["x", "diverged"]
    assert line("x", sound).split() == ["x", "75.00%", "75.00%", "10", "-", "(0", "of", "1", "reach", "it)"]
    assert "unknown points" in gap("a - b", difference([[diverged()]], [[training([0.5])]]))
    alone = gap("a - b", difference([[training([0.5], 0.7)]], [[training([0.5], 0.5)]]))
    assert alone == "a - b: accuracy +20.00 points, early stop +0 steps"
    both = difference([[training([0.5], 0.7)]] * 2, [[training([0.5], 0.5)]] * 2)
    assert gap("a - b", both).startswith("a - b: accuracy +20.00 [+20.00, +20.00] points")
    assert "sound" in figure({"sound": sound, "failed": failed}, sound)
    assert "failed" not in figure({"sound": sound, "failed": failed}, sound)
