"""Stability of the chosen tickets, the search for a rewind step by it, and the control that keeps signs alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side import stability, summary
from server_side.find import main
from server_side.search import Search
from server_side.training import Interrupted
from tests.server_side.searches import Watcher, search


def test_the_second_training_differs_by_its_order_alone(tmp_path: Path) -> None:
    small = search(tmp_path, rounds=1)
    rounds = small.run()
    instability = stability.of_tickets(small, rounds[1])
    assert instability.shape == (2,)
    assert (instability >= 0).all()
    ticket, again = rounds[1].trainings["seed1-ticket"], small.directory.round_folder(1).load(again_job(small, rounds))
    assert again is not None
    assert again.validation_loss[0] == ticket.validation_loss[0]  # the same weights
    assert again.validation_loss[-1] != ticket.validation_loss[-1]
    assert stability.of_tickets(small, rounds[1]).tolist() == instability.tolist()  # from the disk


def again_job(small: Search, rounds: Any) -> Any:
    from server_side.training import Job

    return Job(1, "again", 0, rounds[1].start[1], rounds[1].masks[1])


def test_the_verdict_tells_of_stability(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--data", "tests.server_side.searches:blobs", "--model", "tests.server_side.searches:Tiny", "--seeds", "2"]
    run += ["--rounds", "1", "--steps", "40it", "--evaluate-every", "10it", "--batch", "16", "--validation", "0.2"]
    main([*run, "--json", "--quiet", "--threads", "1", "--output-dir", str(tmp_path / "with")])
    told = json.loads(capsys.readouterr().out)["verdict"]
    assert told["stable"] in (True, False)
    assert told["instability"]["difference"] >= 0
    main(
        [*run, "--json", "--quiet", "--threads", "1", "--stability", "false", "--output-dir", str(tmp_path / "without")]
    )
    assert json.loads(capsys.readouterr().out)["verdict"]["stable"] is None


def test_the_first_stable_step_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a late step have little left to disagree on."""
    settings: dict[str, Any] = {"rewind_step": "auto", "rounds": 4, "steps": "256it", "learning_rate": 0.02}
    small = search(tmp_path, **settings)
    assert small.rewind_candidates == (0, 1, 4, 16, 32, 64)
    settled, looked = stability.with_rewind_step(small)
    assert settled.rewind_step == list(looked)[-1]
    assert all(values.mean() >= 0.02 for values in list(looked.values())[:-1])
    rounds = settled.run()
    dense = rounds[0].trainings["seed0-dense"]
    for name, value in rounds[1].start[0].items():
        wanted = dense.snapshots[settled.rewind_step][name]
        assert value.tobytes() == wanted.tobytes()
    if settled.rewind_step:
        assert rounds[1].trainings["seed0-ticket"].steps[0] == settled.rewind_step
    result = summary.conclude(settled, rounds, 1.0, rewinds=looked)
    assert result["card"]["rewind_step"] == settled.rewind_step
    assert set(result["rewinds"]) == {str(step) for step in looked}
    (told,) = summary.explain_rewinds(result)
    assert told.startswith(
        f"to step {settled.rewind_step}, the first with an instability below 2 points (mean over seeds"
    )
    assert told.endswith(f"{100 * looked[settled.rewind_step].mean():.2f} at {settled.rewind_step}")
    assert f"\nrewound: {told}\n" in summary.as_text(result)
    assert f"<p>Rewound {told}.</p>" in (settled.directory.path / "report.html").read_text()
    counted = result["cost"]["stability"]
    assert counted["trainings"] == 2 * 2 * len(looked)
    assert counted["steps"] == 2 * 2 * sum(256 - step for step in looked)
    assert 0 < counted["live_macs"] < 0.5 * counted["dense_macs"]  # 41 % of the weights are left
    assert result["cost"]["steps_per_iterative"] == 1.0
    monkeypatch.setattr(stability, "_instability", lambda search, ends, part: np.array([0.3]))
    never, _ = stability.with_rewind_step(search(tmp_path, **settings))
    assert never.rewind_step == 64


def test_a_rewind_step_without_stability_is_told() -> None:
    (told,) = summary.explain_rewinds({"rewinds": {"16": [0.05, 0.03], "0": [0.3, 0.1]}})
    assert told.startswith("to step 16, the last looked at; none has an instability below 2 points (mean over seeds")
    assert told.endswith(": 20.00 at 0, 4.00 at 16")
    assert summary.explain_rewinds({}) == []


def test_a_stopped_search_for_the_rewind_step_goes_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rewind_step": "auto", "rounds": 1, "steps": "64it"}
    with pytest.raises(Interrupted):
        stability.with_rewind_step(search(tmp_path / "stopped", Watcher(100), **settings))
    (one, looked), (other, again) = (
        stability.with_rewind_step(search(tmp_path / run, **settings)) for run in ("whole", "stopped")
    )
    assert one.rewind_step == other.rewind_step
    assert {step: values.tolist() for step, values in looked.items()} == {s: v.tolist() for s, v in again.items()}


def test_same_sign_controls_have_the_tickets_signs_and_other_sizes(tmp_path: Path) -> None:
    small = search(tmp_path, same_signs=2, reinits=0, shuffles=0, rounds=1)
    rounds = small.run()
    jobs = [job for job in small._jobs(rounds[1].start, rounds[1].masks, 1) if job.kind == "same_sign"]
    assert len(jobs) == 4
    for job in jobs:
        for name, mask in job.masks.items():
            ticket = rounds[1].start[job.seed][name]
            assert (np.sign(job.start[name][mask]) == np.sign(ticket[mask])).all()
            assert (np.abs(job.start[name][mask]) != np.abs(ticket[mask])).all()
            assert (job.start[name][~mask] == 0).all()
    assert list(summary.conclude(small, rounds, 1.0)["verdict"]["controls"]) == ["same_sign"]
