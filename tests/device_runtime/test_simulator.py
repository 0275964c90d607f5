"""Simulated devices: their own user's samples only, a memory cap, and deaths that change nothing but the time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import BudgetExceeded, Data, InvalidInput, Trainer
from device_runtime import checkpoint as files
from device_runtime.simulator import Device, Settings, _summary, _told, simulate, split
from device_runtime.terminal import print_devices
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import artifact

NET = nets.small()
ARTIFACT = artifact(NET)


def people(counts: dict[Any, int]) -> Data:
    """Each user's classes are permuted in a way of their own, so only a device that learns from its user is right."""
    x, y = nets.task(NET, sum(counts.values()))
    user = np.repeat(list(counts), list(counts.values()))
    for index, name in enumerate(counts):
        y[user == name] = (y[user == name] + index) % 4
    order = np.random.default_rng(0).permutation(len(x))
    return Data(x[order], y[order], user[order])


PEOPLE = people({"ann": 60, "bob": 40, "cleo": 5, "dan": 50})
SETTINGS = Settings(epochs=30, seed=2)


def test_each_user_is_a_device_that_learns_from_its_own_samples() -> None:
    report = simulate(ARTIFACT, PEOPLE, SETTINGS, {})
    assert [device["user"] for device in report["users"]] == ["ann", "bob", "dan"]
    assert [device["samples"] + device["held_out"] for device in report["users"]] == [60, 40, 50]
    for device in report["users"]:
        assert 0.2 <= device["held_out"] / (device["samples"] + device["held_out"]) <= 0.4
        assert device["after"] >= device["before"] + 0.3
        assert device["steps"] == 30 * -(-device["samples"] // 8)
    summary = report["summary"]
    assert summary["after_mean"] > 0.7
    assert (summary["devices"], summary["users_with_too_few"], summary["improved"]) == (3, 1, 3)
    assert summary["after_mean"] == pytest.approx(np.mean([device["after"] for device in report["users"]]))
    assert summary["after_sd"] == pytest.approx(np.std([device["after"] for device in report["users"]], ddof=1))
    json.dumps(report, allow_nan=False)


def test_a_device_whose_memory_is_not_known_is_told_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """As of the runtimes of apps."""
    device = Device(7, 0.1, 0.25, 3, 4, 5, 0, 0, None, 100, 1.0)
    print_devices({"users": [_told(device)], "summary": _summary([device]) | {"users_with_too_few": 0}})
    titles, row, *_ = capsys.readouterr().out.splitlines()
    assert dict(zip(titles.split(), row.split(), strict=True))["arena"] == "-"
    assert "updated" not in titles


def test_deaths_cost_steps_and_nothing_else(tmp_path: Path) -> None:
    calm = simulate(ARTIFACT, PEOPLE, SETTINGS, {}, output_dir=tmp_path / "calm")
    settings = replace(SETTINGS, interruptions=5)
    wild = simulate(ARTIFACT, PEOPLE, settings, {}, output_dir=tmp_path / "wild")
    assert calm["summary"]["steps_redone"] == 0
    assert wild["summary"]["interruptions"] == 15
    assert wild["summary"]["steps_redone"] > 0
    for index, (one, other) in enumerate(zip(calm["users"], wild["users"], strict=True)):
        kept = ("user", "before", "after", "samples", "held_out", "steps", "arena_bytes")
        assert {key: one[key] for key in kept} == {key: other[key] for key in kept}
        trained = [tmp_path / name / f"device-{index:04d}" / "trained.tkt" for name in ("calm", "wild")]
        assert trained[0].read_bytes() == trained[1].read_bytes()


def test_some_deaths_leave_a_torn_file_and_it_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn: list[int] = []
    restore = Trainer.restore

    def watched(self: Trainer, source: Any, *, missing_ok: bool = False) -> bool:
        partial = files.partial_path(source)
        torn.extend([partial.stat().st_size] if partial.exists() else [])
        return restore(self, source, missing_ok=missing_ok)

    monkeypatch.setattr(Trainer, "restore", watched)
    report = simulate(ARTIFACT, PEOPLE, replace(SETTINGS, users=1, interruptions=6), {}, output_dir=tmp_path)
    size = report["users"][0]["checkpoint_bytes"]
    assert torn
    assert set(torn) == {size // 2}


def test_the_same_seed_gives_the_same_report_and_another_a_different_one() -> None:
    def figures(seed: int) -> list[dict[str, Any]]:
        settings = replace(SETTINGS, seed=seed, interruptions=3)
        return [{**device, "seconds": 0} for device in simulate(ARTIFACT, PEOPLE, settings, {})["users"]]

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


def test_a_device_sees_no_other_users_samples() -> None:
    spoiled = replace(PEOPLE, x=PEOPLE.x.copy())
    assert PEOPLE.user is not None
    spoiled.x[PEOPLE.user != "ann"] = 0.0
    settings = replace(SETTINGS, users=1)
    one, other = (simulate(ARTIFACT, data, settings, {})["users"][0] for data in (PEOPLE, spoiled))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_without_users_there_is_one_device() -> None:
    report = simulate(ARTIFACT, replace(PEOPLE, user=None), SETTINGS, {})
    assert len(report["users"]) == 1
    assert report["summary"]["after_sd"] is None


def test_too_small_a_budget_is_told_with_both_figures() -> None:
    least = {"batch": 1}
    needed = simulate(ARTIFACT, PEOPLE, replace(SETTINGS, users=1), least)["users"][0]["arena_bytes"]
    simulate(ARTIFACT, PEOPLE, replace(SETTINGS, users=1), {**least, "budget_bytes": needed})
    with pytest.raises(BudgetExceeded, match=rf"(?s)(?=.*{needed})(?=.*{needed - 1})"):
        simulate(ARTIFACT, PEOPLE, SETTINGS, {**least, "budget_bytes": needed - 1})


@pytest.mark.parametrize(
    "bad",
    [
        {"held_out": 0.0},
        {"held_out": 1.0},
        {"interruptions": -1},
        {"users": 0},
        {"min_samples": 1},
        {"seed": -1},
        {"checkpoint_every": 0},
        {"min_samples": 61},
        {"epochs": 0},
    ],
)
def test_settings_that_make_no_sense_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        simulate(ARTIFACT, PEOPLE, replace(SETTINGS, **bad), {})


@pytest.mark.parametrize("counts", [[10, 10, 10], [1, 1, 1], [1, 20], [2, 2], [7]])
def test_split_is_stratified_where_it_can_be_and_never_empty(counts: list[int]) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    train, apart = split(y, 0.3, np.random.default_rng(0))
    assert len(train) > 0
    assert len(apart) > 0
    assert sorted([*train, *apart]) == list(range(len(y)))
    if min(counts) > 1:
        for label, count in enumerate(counts):
            assert (y[apart] == label).sum() == min(round(0.3 * count), count - 1)
