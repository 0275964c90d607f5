"""The hypothesis of Frankle & Carbin 2019 as a test: t' <= t, a' >= a, p' << p, against dense and against every control.

A test is one-sided, paired over seeds, at ALPHA. Holm's correction is over what can make the chosen round's ticket a
matching or winning one: non-inferiority to dense, and superiority over each control. Rounds are no part of that family, as
the round is chosen on the validation part; what a seed's luck gives to both parts remains, and `simultaneous`, over all
rounds at once, is free of it. It says no, or "one seed is not enough", as readily as yes. See docs/verdict.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.significance import ROUNDING, has_no_spread, holm, interval, known, p_above, p_below, p_equivalent

ALPHA = 0.05  # of every one-sided test; an end of a two-sided interval of 1 - 2 ALPHA is its dual
SMALL_DENSITY = 0.5  # p' << p: at least half of the weights are gone
STABLE_BELOW = 0.02  # instability of a stable network (Frankle et al. 2020), as a rise of error
ENOUGH_SEEDS = 5


@dataclass(frozen=True)
class Measured:
    """One kind of network at one round, a value a seed (controls: the mean over their copies that did not diverge, NaN if
    none is left; `diverged` counts the others). Accuracies at the early stop and at the end are of the test part,
    `validation_accuracy` of the validation part at the early stop."""

    accuracy: NDArray[np.float64]
    accuracy_end: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]
    early_stop_step: NDArray[np.float64]
    diverged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Mean, standard deviation and interval over seeds of each figure, and the figure of each seed; None for NaN."""
        result: dict[str, Any] = {"diverged": self.diverged}
        for name in ("accuracy", "accuracy_end", "validation_accuracy", "early_stop_step"):
            values = getattr(self, name)
            mean, low, high = interval(values)
            there = values[~np.isnan(values)]
            result |= {
                name: known(mean),
                f"{name}_std": float(there.std(ddof=1)) if len(there) > 1 else None,
                f"{name}_interval": [low, high],
                f"{name}_by_seed": [known(float(value)) for value in values],
            }
        return result


def controls_of(kinds: Iterable[str]) -> list[str]:
    """The controls among `kinds`: all that are neither dense nor the ticket."""
    return [kind for kind in kinds if kind not in ("dense", "ticket")]


def judge(
    measured: Mapping[str, Measured],
    density: float,
    tolerance: float,
    rounds: int = 1,
    instability: NDArray[np.float64] | None = None,
    *,
    rewound: bool = True,
) -> dict[str, Any]:
    """The verdict on one round as JSON; `measured` has dense, ticket and the controls that were run.

    matching: the ticket's accuracy is not `tolerance` or more below dense (non-inferiority). winning: matching, on average
    at least as accurate and stopped no later than dense, at most SMALL_DENSITY dense, more accurate than every control, of
    which there is one at least, and `rewound`, to weights of the dense network's training that it then trained from to the
    end: with weights trained further its steps are no measure of how fast it learns. equivalent and stable decide nothing. `rounds` is the number of rounds that `simultaneous`
    holds over at once. `instability`: a value a seed, as connectivity.py measures it; stable: its mean is below STABLE_BELOW.
    """
    dense, ticket = measured["dense"], measured["ticket"]
    gain = ticket.accuracy - dense.accuracy
    leads = {kind: ticket.accuracy - measured[kind].accuracy for kind in controls_of(measured)}
    family = {"non_inferiority": p_above(gain, -tolerance)} | {kind: p_above(d, 0.0) for kind, d in leads.items()}
    tests = {
        name: {"p_value": p, "p_adjusted": adjusted, "holds": adjusted is not None and adjusted <= ALPHA}
        for (name, p), adjusted in zip(family.items(), holm(list(family.values())), strict=True)
    }
    controls = {kind: {**_estimated(lead), **tests[kind]} for kind, lead in leads.items()}
    matching = tests["non_inferiority"]["holds"]
    equivalence = _decided(p_equivalent(gain, tolerance))
    accuracy = {**_estimated(gain), "p_value": p_above(gain, 0.0), "holds": bool(gain.mean() >= -ROUNDING)}
    delay = ticket.early_stop_step - dense.early_stop_step
    early_stop = {**_estimated(delay), "p_value": p_below(delay, 0.0), "holds": bool(delay.mean() <= ROUNDING)}
    stability = None if instability is None else _estimated(instability) | _decided(p_below(instability, STABLE_BELOW))
    fulfilled = accuracy["holds"] and early_stop["holds"] and density <= SMALL_DENSITY
    beaten = bool(controls) and all(control["holds"] for control in controls.values())
    return {
        "winning": bool(matching and fulfilled and beaten and rewound),
        "matching": matching,
        "rewound": rewound,
        "equivalent": equivalence["holds"],
        "stable": None if stability is None else stability["holds"],
        "accuracy": accuracy,
        "early_stop": early_stop,
        "density": {"value": density, "holds": density <= SMALL_DENSITY},
        "non_inferiority": tests["non_inferiority"],
        "equivalence": equivalence,
        "controls": controls,
        "instability": stability,
        "simultaneous": _simultaneous(gain, tolerance, rounds),
        "family": list(family),
        "correction": "Holm",
        "alpha": ALPHA,
        "confidence": 1 - 2 * ALPHA,
        "tolerance": tolerance,
        "seeds": len(gain),
        "warnings": _warnings(gain, leads),
    }


def _estimated(values: NDArray[np.float64]) -> dict[str, Any]:
    mean, low, high = interval(values, 1 - 2 * ALPHA)
    return {"difference": known(mean), "low": low, "high": high}


def _decided(p_value: float | None) -> dict[str, Any]:
    return {"p_value": p_value, "holds": p_value is not None and p_value <= ALPHA}


def _simultaneous(gain: NDArray[np.float64], tolerance: float, rounds: int) -> dict[str, Any]:
    """An interval of ticket against dense that holds in all rounds at once (Bonferroni), and whether it matches by that."""
    _, low, high = interval(gain, 1 - 2 * ALPHA / rounds)
    p = p_above(gain, -tolerance)
    matching = p is not None and p <= ALPHA / rounds
    return {"rounds": rounds, "correction": "Bonferroni", "low": low, "high": high, "matching": matching}


def _warnings(gain: NDArray[np.float64], leads: Mapping[str, NDArray[np.float64]]) -> list[str]:
    seeds = len(gain)
    told = []
    if seeds < ENOUGH_SEEDS:
        told.append(f"{seeds} seeds: too few for a verdict to lean on; take at least {ENOUGH_SEEDS}")
    for kind, lead in leads.items():
        if (left := int((~np.isnan(lead)).sum())) < seeds:
            told.append(f"{kind}: compared over {left} of {seeds} seeds, as the others diverged")
    if any(has_no_spread(differences) for differences in (gain, *leads.values())):
        told.append("all seeds differ by the same accuracy: the test part is too small to show their spread")
    return told


def choose(rounds: Sequence[Mapping[str, Measured]], densities: Sequence[float], tolerance: float) -> int:
    """The round whose ticket is exported, counted from 0 in `rounds`, by the VALIDATION part alone, so that the test part
    decides nothing but the verdict: the sparsest that fulfils the hypothesis against dense (a' >= a, t' <= t, p' << p);
    else the sparsest that matches; else the one that comes closest. Of one seed, by its differences themselves."""
    judged = [
        judge({kind: _on_validation(measured[kind]) for kind in ("dense", "ticket")}, density, tolerance)
        for measured, density in zip(rounds, densities, strict=True)
    ]
    matching = [i for i, verdict in enumerate(judged) if _matches(verdict)]
    fulfilling = [
        i for i in matching if all(judged[i][name]["holds"] for name in ("accuracy", "early_stop", "density"))
    ]
    if matching:
        return min(fulfilling or matching, key=lambda i: densities[i])
    return max(range(len(judged)), key=lambda i: _low(judged[i]["accuracy"]))


def _on_validation(measured: Measured) -> Measured:
    return replace(measured, accuracy=measured.validation_accuracy)


def _matches(verdict: Mapping[str, Any]) -> bool:
    one_seed = verdict["seeds"] < 2
    return bool(verdict["accuracy"]["difference"] >= -verdict["tolerance"] if one_seed else verdict["matching"])


def _low(comparison: Mapping[str, Any]) -> float:
    """The lower end of an interval, or of one seed the difference itself."""
    return float(comparison["difference"] if comparison["low"] is None else comparison["low"])


def explain(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict in sentences: the conditions with yes or no, then what decides nothing, then warnings."""
    if verdict["seeds"] < 2:
        return [f"undecided: one seed gives no interval; run with seeds of at least {ENOUGH_SEEDS}"]
    accuracy, early, tolerance = verdict["accuracy"], verdict["early_stop"], f"{100 * verdict['tolerance']:.2g} points"
    inferior = verdict["non_inferiority"]
    conditions = [
        f"{_mark(inferior['holds'])} matching: accuracy {_points(accuracy)} against dense, above -{tolerance}: {_p(inferior)}",
        f"{_mark(accuracy['holds'])} a' >= a: on average (strictly above dense: {_p(accuracy)})",
        (
            f"{_mark(early['holds'])} t' <= t: on average, early stop {early['difference']:+.0f} steps "
            f"[{early['low']:+.0f}, {early['high']:+.0f}] against dense (strictly earlier: {_p(early)})"
        ),
        f"{_mark(verdict['density']['holds'])} p' << p: {verdict['density']['value']:.2%} of the weights are left",
        *(
            f"{_mark(control['holds'])} better than {kind}: accuracy {_points(control)}{_tested(control)}"
            for kind, control in verdict["controls"].items()
        ),
    ]
    if not verdict["rewound"]:
        conditions.append("no  from rewound weights: its own were trained before, so its stop is no measure of speed")
    if not verdict["controls"]:
        conditions.append("no  better than controls: none was run")
    return [*conditions, *_beside(verdict, tolerance), *(f"warning: {told}" for told in verdict["warnings"])]


def _beside(verdict: Mapping[str, Any], tolerance: str) -> list[str]:
    """What decides nothing, and how everything was tested."""
    together, stability = verdict["simultaneous"], verdict["instability"]
    equivalent = "" if verdict["equivalent"] else "not "
    lines = [
        f"also {equivalent}equivalent to dense within {tolerance}: two one-sided tests, {_p(verdict['equivalence'])}"
    ]
    if together["rounds"] > 1:
        lines.append(
            f"also {'' if together['matching'] else 'not '}matching over all {together['rounds']} rounds at once: accuracy "
            f"[{100 * together['low']:+.2f}, {100 * together['high']:+.2f}] points (Bonferroni)"
        )
    if stability is not None:
        share = 100 * (stability["difference"] if stability["difference"] is not None else float("nan"))
        lines.append(
            f"also {'' if verdict['stable'] else 'not '}stable: instability {share:.2f} points, below "
            f"{100 * STABLE_BELOW:.0f}: {_p(stability)}"
        )
    count = len(verdict["family"])
    lines.append(
        f"{verdict['confidence']:.0%} intervals, paired over {verdict['seeds']} seeds; one-sided t tests at "
        f"{verdict['alpha']:.0%}" + (f", Holm over the {count} with an adjusted p" if count > 1 else "")
    )
    return lines


def _mark(holds: bool) -> str:
    return "yes" if holds else "no "


def _tested(test: Mapping[str, Any]) -> str:
    return "" if test["p_value"] is None else f", {_p(test)}"


def _p(test: Mapping[str, Any]) -> str:
    """A p-value, and the adjusted one where there is one."""
    if test["p_value"] is None:
        return "no p-value"
    adjusted = test.get("p_adjusted")
    return f"p {_small(test['p_value'])}" + ("" if adjusted is None else f" (adjusted {_small(adjusted)})")


def _small(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _points(comparison: Mapping[str, Any]) -> str:
    if comparison["difference"] is None:
        return "unknown, as all its trainings diverged"
    if comparison["low"] is None:
        return f"{100 * comparison['difference']:+.2f} points, of one seed alone, as the others diverged"
    return f"{100 * comparison['difference']:+.2f} points [{100 * comparison['low']:+.2f}, {100 * comparison['high']:+.2f}]"
