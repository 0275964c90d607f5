"""The command: exit codes, one line for each kind of bad input, one JSON object, files that are whole and its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.ticket import Ticket, load_ticket
from server_side.find import main
from tests.server_side.searches import blobs, search

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--data", "tests.server_side.searches:blobs", "--model", "tests.server_side.searches:Tiny", "--seeds", "3"),
    *("--rounds", "3", "--reinits", "2", "--steps", "60it", "--evaluate-every", "10it", "--batch", "16"),
    *("--validation", "0.2", "--engine", "stacked", "--threads", "1"),
]


def find(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server_side.find", *SMALL, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    path = tmp_path_factory.mktemp("find") / "run"
    return find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.2"), path


def test_json_is_one_documented_object_on_stdout(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["ticket"] == str(path / "ticket")
    for kind in ("dense", "ticket_at_density", "reinit", "shuffle"):
        assert 0 <= result[kind]["accuracy"] <= 1
        assert len(result[kind]["accuracy_by_seed"]) == 3
    assert result["verdict"]["winning"] in (True, False)
    assert [row["round"] for row in result["rounds"]] == [0, 1, 2, 3]
    assert [row["live"] for row in result["rounds"]] == [480, 384, 308, 247]
    assert result["rounds"][3]["density"] == pytest.approx(247 / 480)
    assert "rounds down to" in process.stderr


def test_the_ticket_is_the_one_the_result_speaks_of(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    result, ticket = json.loads(process.stdout), load_ticket(path / "ticket")
    assert ticket.hash == result["ticket_hash"]
    assert ticket.density == pytest.approx(result["density"])
    assert ticket.trained is not None
    assert ticket.card["labels"] == ["0", "1", "2", "3"]
    assert ticket.card["provenance"]["seed"] == result["seed"]


def test_the_report_is_whole_and_asks_for_nothing_from_outside(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    html = (done[1] / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 6
    body = html.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace("http://purl.org", "")
    assert "<script" not in body
    assert "http" not in body.replace("http://creativecommons.org", "")


def test_a_finished_run_is_shown_again_without_training(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    again = find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.2")
    first, second = json.loads(process.stdout), json.loads(again.stdout)
    for result in (first, second):
        del result["seconds"]
    assert first == second


def test_the_saved_config_reruns_it(done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path) -> None:
    process, path = done
    command = [sys.executable, "-m", "server_side.find", "--config", str(path / "config.json"), "--json", "--quiet"]
    rerun = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "r")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert rerun.returncode == 0, rerun.stderr
    assert json.loads(rerun.stdout)["ticket_hash"] == json.loads(process.stdout)["ticket_hash"]
    assert rerun.stderr == ""


def test_no_matching_ticket_exits_3_and_says_what_came_closest(tmp_path: Path) -> None:
    process = find("--output-dir", str(tmp_path / "run"), "--accuracy-tolerance", "0")
    assert process.returncode == 3, process.stderr
    assert "no matching ticket; the closest is" in process.stdout
    assert (tmp_path / "run/report.html").exists()


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    process = find("--output-dir", str(tmp_path / "run"), "--dry-run")
    assert process.returncode == 0
    assert "3 rounds down to 51.46%" in process.stderr
    assert not (tmp_path / "run").exists()


def test_another_configuration_in_the_same_directory_is_refused(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    process = find("--output-dir", str(done[1]), "--rounds", "4")
    assert process.returncode == 2
    assert "accuracy_tolerance" in process.stderr or "rounds 3, not 4" in process.stderr


BAD: list[tuple[list[str], str]] = [
    (["--data", "nonsense"], "expected digits, idx:DIR, npz:FILE"),
    (["--data", "idx:nowhere", "--model", "lenet-300-100"], "no file train-images-idx3-ubyte.gz"),
    (["--data", "npz:nowhere.npz"], "No such file or directory"),
    (["--data", "no.such.module:function"], "No module named"),
    (["--model", "resnet-9000"], "expected one of lenet-300-100"),
    (["--model", "tests.server_side.test_find:unsupported"], "module '1' (SiLU): aten.silu"),
    (["--model", "tests.server_side.test_find:normed"], "engine stacked: the stacked engine cannot train batch_norm"),
    (["--model", "tests.server_side.test_find:frozen"], "cannot train batch_norm; take --engine device"),
    (["--model", "tests.server_side.test_find:dropping"], "cannot train dropout; take --engine device"),
    (["--model", "tests.server_side.test_find:reading"], "an embedding reads whole numbers, but a search trains on"),
    (["--model", "tests.server_side.test_find:reading", "--engine", "device"], "leave the embedding out"),
    (["--model", "tests.server_side.test_find:too_many_outputs"], "7 outputs, but the data has 4 classes"),
    (["--steps", "many"], "expected steps like 500it"),
    (["--prune-fraction", "1.5"], "prune_fraction 1.5: must be between 0 and 1"),
    (["--batch", "5000"], "batch 5000: more than the 256 training samples"),
    (["--rewind-step", "60it"], "more than rewind_step"),
    (["--validation", "1000"], "leaves -680 of 320 samples"),
    (["--seeds", "0"], "seeds 0: must be at least 1"),
    (["--prune-fraction", "0.001"], "would remove no weight"),
    (["--prune-fraction", "0.999", "--output-prune-fraction", "0.999"], "take a smaller prune_fraction"),
    (["--accelerator", "cuda"], "finds no CUDA device"),
    (["--model", "tests.server_side.test_find:raising"], "KeyError: 'width' (in "),
    (["--data", "tests.server_side.test_find:raising"], "KeyError: 'width' (in "),
]


def raising() -> Any:
    raise KeyError("width")


def unsupported() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(20, 8), nn.SiLU(), nn.Linear(8, 4))


def normed() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


def frozen() -> Any:
    module = normed()
    module[1].eval()
    return module


def dropping() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(20, 8), nn.Dropout(0.5), nn.Linear(8, 4))


def reading() -> Any:
    from tests.architectures import Indexed

    return Indexed(20, 4)


def convolutional() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 4))


def too_many_outputs() -> Any:
    from torch import nn

    return nn.Linear(20, 7)


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_input_is_one_clear_line_and_code_2(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--output-dir", str(tmp_path / "run"), *arguments]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


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
    ticket = small.ticket(rounds[-1], rounds[0], {})
    assert {name: (mask.shape, int(mask.sum())) for name, mask in ticket.masks.items()} == {
        "0.weight": ((4, 2, 3), 6),
        "4.weight": ((4, 20), 20),
    }
    assert rounds[-1].measured["ticket"].accuracy.mean() > 0.5  # of 4 classes


def test_fresh_weights_hold_the_running_statistics(tmp_path: Path) -> None:
    """A ticket holds every parameter of its network, and an artifact of it can be made."""
    small = search(tmp_path, model=f"{__name__}:normed", engine="device")
    fresh = small.theta(0)
    assert set(fresh) == set(small.model.network.parameter_shapes)
    assert fresh["1.running_mean"].tolist() == [0.0] * 8
    assert fresh["1.running_var"].tolist() == [1.0] * 8
    assert [p.name for p in small.model.network.parameters if p.state] == ["1.running_mean", "1.running_var"]
    assert Ticket(small.model.network, fresh, {}).density == 1.0


def test_running_statistics_travel_with_the_weights(tmp_path: Path) -> None:
    """The device engine moves them, and a ticket has those of its rewind step and those after training."""
    small = search(tmp_path, model=f"{__name__}:normed", engine="device", rounds=1, rewind_step="10it")
    rounds = small.run()
    ticket = small.ticket(rounds[-1], rounds[0], {})
    assert ticket.trained is not None
    fresh = small.theta(small.best_seed(rounds[-1]))["1.running_var"]
    rewound, trained = ticket.init["1.running_var"], ticket.trained["1.running_var"]
    assert (rewound != fresh).all()
    assert (trained != rewound).all()


def test_a_bad_option_is_one_line_without_the_usage_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--rounds", "many"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "rounds" in told
    assert "many" in told


@pytest.mark.parametrize("damage", [b"{", b"[1]", b""])
def test_a_damaged_run_directory_is_named(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes(damage)
    assert main([*SMALL, "--output-dir", str(tmp_path)]) == 2
    assert "holds a damaged run" in capsys.readouterr().err


def test_a_file_that_is_no_npz_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.npz").write_bytes(b"hello")
    assert main([*SMALL, "--data", f"npz:{tmp_path}/data.npz", "--output-dir", str(tmp_path / "run")]) == 2
    assert "not a whole npz file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": np.zeros(4, int)}, "no array 'x'"),
        ({"x": np.zeros((0, 3), np.float32), "y": np.zeros(0, int)}, "at least one sample"),
        ({"x": np.full((4, 3), np.nan, np.float32), "y": np.arange(4)}, "NaN or infinity"),
        ({"x": np.zeros((4, 3), np.float32), "y": np.arange(5)}, "expected 4 integers"),
        ({"x": np.zeros((4, 3), np.float32), "y": np.arange(4) - 1}, "label -1"),
        ({"x": np.zeros((4, 3), np.float32), "y": np.arange(4) / 2}, "expected 4 integers"),
        ({"x": np.zeros((4, 3), int), "y": np.arange(4)}, "expected uint8 or float"),
    ],
)
def test_bad_data_is_named(
    arrays: dict[str, Any], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    assert main([*SMALL, "--data", f"npz:{tmp_path}/data.npz", "--output-dir", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err


def test_options_of_the_ladder(tmp_path: Path) -> None:
    assert search(tmp_path / "a", rounds=None, target_density=0.3).ladder()[-1] <= 0.3 * 480
    ladder = search(tmp_path / "b", rounds=4, target_density=0.1).ladder()
    assert len(ladder) == 5
    assert ladder[-1] / 480 == pytest.approx(0.1, abs=0.01)
    ladder = search(tmp_path / "c", rounds=3, scope="global").ladder()
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
    small = search(tmp_path, schedule="oneshot", rounds=2)
    rounds = small.run()
    dense = rounds[0].trainings["seed0-dense"].final["fc1.weight"]
    mask = rounds[2].masks[0]["fc1.weight"]
    assert np.abs(dense[~mask]).max() <= np.abs(dense[mask]).min()


def test_presets_are_the_papers_protocol() -> None:
    from server_side.models import PRESETS

    defaults = PRESETS["lenet-300-100"].defaults
    assert defaults["optimizer"] == "adam"
    assert defaults["learning_rate"] == 1.2e-3
    assert (defaults["batch"], defaults["steps"], defaults["evaluate_every"]) == (60, "50000it", "100it")
    assert (defaults["validation"], defaults["prune_fraction"], defaults["output_prune_fraction"]) == (5000, 0.2, 0.1)
