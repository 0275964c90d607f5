"""The command line: exit codes, one line an error, one object for --json, Ctrl-C that leaves a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import Trainer
from device_runtime.__main__ import main
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import Net, Node, Recipe, artifact

NET = nets.small()
X, Y = nets.task(NET, 60)


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in a folder with net.tkt, data.npz (two users, a test part) and damaged.tkt."""
    monkeypatch.chdir(tmp_path)
    Path("net.tkt").write_bytes(artifact(NET))
    Path("damaged.tkt").write_bytes(artifact(NET)[:-1])
    user = np.array(["ann", "bob"])[np.arange(60) % 2]
    np.savez("data.npz", allow_pickle=False, x=X, y=Y, user=user, x_test=X[:10], y_test=Y[:10])

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


DATA = ("--data", "npz:data.npz")


def test_inspect(command: Command) -> None:
    facts = command("inspect", "net.tkt", "--json", "--batch", 5, "--optimizer", "adam").json
    with Trainer.open("net.tkt", batch=5, optimizer="adam") as trainer:
        assert facts["arena_bytes"] == trainer.arena_bytes == facts["memory"]["total"]
    assert {"nnz", "density", "artifact_bytes", "operators", "ticket_hash", "batch", "optimizer"} <= set(facts)
    text = command("inspect", "net.tkt")
    assert text.code == 0
    assert text.err == ""
    assert NET.ticket_hash.hex() in text.out
    assert "total" in text.out


def test_memory_is_saved_where_it_is_asked_for(command: Command, tmp_path: Path) -> None:
    (tmp_path / "deep.tkt").write_bytes(artifact(nets.tangled(0)))
    facts = [command("inspect", "deep.tkt", "--json", "--batch", 16, *options).json for options in MEMORY_OPTIONS]
    kept, twice, halves = ((f["recomputed_nodes"], f["half_buffers"], f["arena_bytes"]) for f in facts)
    assert kept[:2] == (0, 0)
    assert twice[0] > 0 == twice[1]
    assert halves[1] > 0 == halves[0]
    assert max(twice[2], halves[2]) < kept[2]


MEMORY_OPTIONS: tuple[tuple[str, ...], ...] = ((), ("--recompute",), ("--half-activations",))


def test_train_evaluate_predict(command: Command) -> None:
    trained = command("train", "net.tkt", *DATA, "--epochs", 30, "--output", "trained.tkt", "--json")
    assert (trained.code, trained.err) == (0, "")
    assert trained.json["train"]["accuracy"] > 0.9
    assert trained.json["steps"] == 30 * 8
    evaluated = command("evaluate", "trained.tkt", "--start", "trained", *DATA, "--json").json
    assert (evaluated["split"], evaluated["count"]) == ("test", 10)
    assert evaluated["accuracy"] == trained.json["test"]["accuracy"]
    whole = command("evaluate", "trained.tkt", "--start", "trained", *DATA, "--split", "train", "--json").json
    assert whole["accuracy"] == trained.json["train"]["accuracy"]
    predicted = command("predict", "trained.tkt", "--start", "trained", *DATA, "--split", "train", "--json").json
    names = NET.card["labels"]
    hits = [row["label"] == names[label] for row, label in zip(predicted["predictions"], Y, strict=True)]
    assert np.mean(hits) == whole["accuracy"]
    assert "accuracy" in command("evaluate", "trained.tkt", "--start", "trained", *DATA).out


def test_predictions_go_to_files(command: Command) -> None:
    wanted = command("predict", "net.tkt", *DATA, "--json").json["predictions"]
    assert command("predict", "net.tkt", *DATA, "--output", "p.csv").code == 0
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row["label"] for row in wanted]
    assert command("predict", "net.tkt", *DATA, "--output", "p.npz").code == 0
    with np.load("p.npz") as arrays:
        assert arrays["probabilities"].shape == (10, 4)
        assert arrays["label"].tolist() == [row["label"] for row in wanted]
        assert [NET.card["labels"][index] for index in arrays["index"]] == arrays["label"].tolist()
    assert command("predict", "net.tkt", *DATA).out.startswith("index,label,probability\n0,")


def test_train_goes_on_from_its_checkpoint(command: Command) -> None:
    once = command("train", "net.tkt", *DATA, "--steps", 30, "--output", "once.tkt", "--json").json
    command("train", "net.tkt", *DATA, "--steps", 11, "--checkpoint", "run.tkc")
    again = command("train", "net.tkt", *DATA, "--steps", 30, "--checkpoint", "run.tkc", "--output", "b.tkt", "--json")
    assert again.json["resumed_at_step"] == 11
    assert again.json["steps"] == 19
    assert again.json["last_loss"] == once["last_loss"]
    assert "resumed from 'run.tkc' at step 11" in again.err
    assert Path("once.tkt").read_bytes() == Path("b.tkt").read_bytes()
    evaluated = command("evaluate", "net.tkt", "--checkpoint", "run.tkc", *DATA, "--json").json
    assert evaluated["accuracy"] == again.json["test"]["accuracy"]
    Path("run.tkc").write_bytes(b"damaged")
    fallen = command("evaluate", "net.tkt", "--checkpoint", "run.tkc", *DATA, "--json")
    assert fallen.json["step"] == 11
    assert fallen.err.startswith("warning: 'run.tkc'")
    assert fallen.err.count("\n") == 1


def test_simulate(command: Command) -> None:
    arguments = ("simulate", "net.tkt", *DATA, "--epochs", 5, "--interruptions", 2, "--checkpoint-every", 3)
    report = command(*arguments, "--json", "--output-dir", "out").json
    assert [device["user"] for device in report["users"]] == ["ann", "bob"]
    keys = {"user", "before", "after", "samples", "held_out", "steps", "interruptions", "arena_bytes"}
    assert keys <= set(report["users"][0])
    assert json.loads(Path("out/report.json").read_text()) == report
    table = command(*arguments)
    assert table.out.splitlines()[0].split()[:3] == ["user", "before", "after"]
    needed = report["users"][0]["arena_bytes"]
    refused = command(*arguments, "--budget-bytes", needed // 9)
    assert refused.code == 2
    assert re.search(rf"needs \d+ bytes, but the budget is {needed // 9};", refused.err)
    np.savez("one.npz", allow_pickle=False, x=X, y=Y)
    alone = command("simulate", "net.tkt", "--data", "npz:one.npz", "--epochs", 2, "--json")
    assert len(alone.json["users"]) == 1
    assert "no key 'user'" in alone.err


def bad_data(**arrays: Any) -> tuple[str, str]:
    np.savez("bad.npz", **({"x": X, "y": Y} | arrays))
    return "--data", "npz:bad.npz"


def unknown_operator() -> str:
    net = Net((*NET.shapes[:2], *NET.shapes[2:]), (Node(99, (0,)), *NET.nodes[1:]), NET.params)
    Path("unknown.tkt").write_bytes(artifact(net))
    return "unknown.tkt"


NAN = np.where(np.arange(12).reshape(3, 2, 2) == 5, np.nan, X).astype(np.float32)
BAD_INPUT: dict[str, tuple[Callable[[], tuple[object, ...]], str]] = {
    "no artifact": (lambda: ("train", "none.tkt", *DATA), "'none.tkt': No such file"),
    "artifact is a folder": (
        lambda: ("inspect", "."),
        r"'\.' is for onnxruntime; inspect takes a native artifact alone",
    ),
    "damaged artifact": (lambda: ("train", "damaged.tkt", *DATA), "CorruptArtifact: "),
    "unknown operator": (lambda: ("inspect", unknown_operator()), "UnsupportedOp: .*99"),
    "no data": (lambda: ("train", "net.tkt", "--data", "npz:none.npz"), "'none.npz': No such file"),
    "data of another kind": (lambda: ("train", "net.tkt", "--data", "digits"), "data 'digits' is not .* npz:FILE"),
    "wrong shape": (lambda: ("train", "net.tkt", *bad_data(x=X[:, :2])), r"x has shape \(60, 2, 2, 2\)"),
    "NaN": (lambda: ("train", "net.tkt", *bad_data(x=NAN)), r"x\[0\] holds NaN"),
    "label out of range": (lambda: ("train", "net.tkt", *bad_data(y=Y + 1)), r"y\[\d+\] is 4"),
    "empty": (lambda: ("train", "net.tkt", *bad_data(x=X[:0], y=Y[:0])), "x is empty"),
    "wrong shape to predict": (lambda: ("predict", "net.tkt", *bad_data(x=X[:, :2])), r"x has shape"),
    "wrong labels to evaluate": (lambda: ("evaluate", "net.tkt", *bad_data(y=Y + 1)), r"is 4"),
    "no checkpoint": (lambda: ("evaluate", "net.tkt", *DATA, "--checkpoint", "none.tkc"), "'none.tkc': no checkpoint"),
    "bad batch": (lambda: ("train", "net.tkt", *DATA, "--batch", 0), "batch"),
    "no test part": (lambda: ("evaluate", "net.tkt", *bad_data(), "--split", "test"), "no x_test"),
    "no trained values": (lambda: ("evaluate", "net.tkt", *DATA, "--start", "trained"), "trained"),
    "output elsewhere": (lambda: ("train", "net.tkt", *DATA, "--output", "no/such/folder.tkt"), "'no/such/folder.tkt'"),
    "output of another kind": (lambda: ("predict", "net.tkt", *DATA, "--output", "p.txt"), "must end in"),
    "no user with enough": (lambda: ("simulate", "net.tkt", *DATA, "--min-samples", 31), "no user has 31 samples"),
    "budget": (lambda: ("train", "net.tkt", *DATA, "--budget-bytes", 100), "BudgetExceeded: .*100"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(command: Command, name: str) -> None:
    arguments, message = BAD_INPUT[name]
    outcome = command(*arguments(), "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert re.search(message, outcome.err), outcome.err


def test_a_damaged_checkpoint_without_a_previous_one_stops_training(command: Command) -> None:
    Path("run.tkc").write_bytes(b"damaged")
    outcome = command("train", "net.tkt", *DATA, "--checkpoint", "run.tkc")
    assert outcome.code == 2
    assert outcome.err.startswith("device_runtime: CorruptCheckpoint: 'run.tkc'")
    assert Path("run.tkc").read_bytes() == b"damaged"


def test_a_loss_that_is_not_finite_is_a_failure(command: Command) -> None:
    outcome = command("train", "net.tkt", *bad_data(x=np.full_like(X, 3e38)))
    assert outcome.code == 1
    assert "NonFiniteLoss" in outcome.err


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["train"], ["train", "net.tkt"], ["inspect", "net.tkt", "--batch", "x"]]
)
def test_usage_errors_exit_with_2(command: Command, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in ("train", "predict", "simulate"))])
def test_help(command: Command, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "npz:" in text


def test_a_full_disk_is_one_line_and_the_checkpoint_stays_good(command: Command, tmp_path: Path) -> None:
    net = nets.lenet()
    Path("large.tkt").write_bytes(artifact(net))
    x, y = nets.task(net, 60)
    np.savez("large.npz", allow_pickle=False, x=x, y=y)
    arguments = ("train", "large.tkt", "--data", "npz:large.npz", "--checkpoint", "run.tkc", "--json")
    assert command(*arguments, "--steps", 1).code == 0
    good = Path("run.tkc").read_bytes()
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
    limited += "from device_runtime.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", limited, *arguments, "--steps", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1:] == ["device_runtime: 'run.tkc': File too large"]
    assert Path("run.tkc").read_bytes() == good


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(command: Command) -> None:
    Path("slow.tkt").write_bytes(artifact(nets.small(recipe=Recipe(epochs=2_000_000))))
    base = [sys.executable, "-m", "device_runtime", "train", "slow.tkt", *DATA, "--checkpoint", "run.tkc", "--json"]
    process = subprocess.Popen(
        base, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    deadline = time.monotonic() + 30
    while not Path("run.tkc").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""
    result = json.loads(out)
    assert result["interrupted"]
    with Trainer.open("slow.tkt") as trainer:
        trainer.restore("run.tkc")
        assert trainer.progress.step == result["step"] > 0
        losses = trainer.fit(X, Y, steps=result["step"] + 5).losses
    again = command("train", "slow.tkt", *DATA, "--checkpoint", "run.tkc", "--steps", result["step"] + 5, "--json")
    assert again.json["last_loss"] == losses[-1]
