"""The hypothesis of Frankle & Carbin 2019 as a test: t' <= t, a' >= a, p' << p, against dense and against the controls.

Every comparison is paired over seeds, with a two-sided Student t interval of CONFIDENCE on the mean difference; no
correction for the number of rounds looked at. It says no, or "one seed is not enough", as readily as yes. Controls that
diverged are left out, as NaN; nothing is won against a control of which fewer than two seeds are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
SMALL_DENSITY = 0.5  # p' << p: at least half of the weights are gone


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
                name: _known(mean),
                f"{name}_std": float(there.std(ddof=1)) if len(there) > 1 else None,
                f"{name}_interval": [low, high],
                f"{name}_by_seed": [_known(float(value)) for value in values],
            }
        return result


def interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float | None, float | None]:
    """Mean and the ends of its CONFIDENCE interval over the values that are not NaN; without any the mean is NaN, with
    fewer than two the ends are None."""
    from scipy.stats import t as student  # a second to import: only here

    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    mean = float(array.mean()) if len(array) else float("nan")
    if len(array) < 2:
        return mean, None, None
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def judge(measured: Mapping[str, Measured], density: float, tolerance: float) -> dict[str, Any]:
    """The verdict on one round as JSON; `measured` has dense, ticket and the controls that were run.

    matching: the ticket's accuracy is surely less than `tolerance` below dense. winning: matching, on average at least as
    accurate and stopped no later than dense, at most SMALL_DENSITY dense, and surely more accurate than every control.
    """
    dense, ticket = measured["dense"], measured["ticket"]
    accuracy = _compared(ticket.accuracy - dense.accuracy)
    early_stop = _compared(ticket.early_stop_step - dense.early_stop_step)
    matching = accuracy["low"] is not None and accuracy["low"] >= -tolerance
    controls = {}
    for name in ("reinit", "shuffle"):
        if name in measured:
            controls[name] = _compared(ticket.accuracy - measured[name].accuracy)
            controls[name]["holds"] = controls[name]["low"] is not None and controls[name]["low"] > 0
    accuracy["holds"] = matching and accuracy["difference"] >= 0
    early_stop["holds"] = early_stop["difference"] <= 0
    small = density <= SMALL_DENSITY
    beaten = bool(controls) and all(control["holds"] for control in controls.values())
    return {
        "winning": bool(accuracy["holds"] and early_stop["holds"] and small and beaten),
        "matching": bool(matching),
        "accuracy": accuracy,
        "early_stop": early_stop,
        "density": {"value": density, "holds": small},
        **controls,
        "confidence": CONFIDENCE,
        "tolerance": tolerance,
        "seeds": len(ticket.accuracy),
    }


def _compared(differences: NDArray[np.float64]) -> dict[str, Any]:
    mean, low, high = interval(differences)
    return {"difference": _known(mean), "low": low, "high": high}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def choose(rounds: Sequence[Mapping[str, Measured]], densities: Sequence[float], tolerance: float) -> int:
    """The round whose ticket is exported, counted from 0 in `rounds`, by the VALIDATION part alone, so that the test part
    decides nothing but the verdict: the sparsest that fulfils the hypothesis against dense (a' >= a, t' <= t, p' << p);
    else the sparsest that matches; else the one that comes closest."""
    judged = [
        judge({kind: _on_validation(measured[kind]) for kind in ("dense", "ticket")}, density, tolerance)
        for measured, density in zip(rounds, densities, strict=True)
    ]
    matching = [i for i, verdict in enumerate(judged) if _low(verdict["accuracy"]) >= -tolerance]
    fulfilling = [i for i in matching if judged[i]["accuracy"]["difference"] >= 0 and _sooner_and_smaller(judged[i])]
    if matching:
        return min(fulfilling or matching, key=lambda i: densities[i])
    return max(range(len(judged)), key=lambda i: _low(judged[i]["accuracy"]))


def _on_validation(measured: Measured) -> Measured:
    return replace(measured, accuracy=measured.validation_accuracy)


def _sooner_and_smaller(verdict: Mapping[str, Any]) -> bool:
    return bool(verdict["early_stop"]["holds"] and verdict["density"]["holds"])


def _low(comparison: Mapping[str, Any]) -> float:
    """The lower end of an interval, or of one seed the difference itself."""
    return float(comparison["difference"] if comparison["low"] is None else comparison["low"])


def explain(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict in sentences, one a condition."""
    if verdict["seeds"] < 2:
        return ["undecided: one seed gives no interval; run with seeds of at least 5"]
    percent = f"{verdict['confidence']:.0%}"
    accuracy, early = verdict["accuracy"], verdict["early_stop"]
    lines = [
        (
            f"{_mark(accuracy['holds'])} a' >= a: accuracy {_points(accuracy)} against dense ({percent} interval; "
            f"{'surely' if verdict['matching'] else 'not surely'} within {100 * verdict['tolerance']:.2g} points)"
        ),
        (
            f"{_mark(early['holds'])} t' <= t: early stop {early['difference']:+.0f} steps "
            f"[{early['low']:+.0f}, {early['high']:+.0f}] against dense"
        ),
        f"{_mark(verdict['density']['holds'])} p' << p: {verdict['density']['value']:.2%} of the weights are left",
    ]
    controls = [name for name in ("reinit", "shuffle") if name in verdict]
    return lines + [f"{_mark(verdict[n]['holds'])} better than {n}: accuracy {_points(verdict[n])}" for n in controls]


def _mark(holds: bool) -> str:
    return "yes" if holds else "no "


def _points(comparison: Mapping[str, Any]) -> str:
    if comparison["difference"] is None:
        return "unknown, as all its trainings diverged"
    if comparison["low"] is None:
        return f"{100 * comparison['difference']:+.2f} points, of one seed alone, as the others diverged"
    return f"{100 * comparison['difference']:+.2f} points [{100 * comparison['low']:+.2f}, {100 * comparison['high']:+.2f}]"
