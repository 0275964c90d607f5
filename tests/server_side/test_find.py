"""The command: exit codes, one line for each kind of bad input, one JSON object, files that are whole and its own."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.ticket import Ticket, load_ticket
from server_side.find import main
from tests.server_side.searches import blobs, search

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
    return find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.5"), path


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
    assert html.count("<svg") == 7
    body = html.replace("http://www.w3.org", "").replace("https://matplotlib.org", "").replace("http://purl.org", "")
    assert "<script" not in body
    assert "http" not in body.replace("http://creativecommons.org", "")


def test_a_finished_run_is_shown_again_without_training(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    process, path = done
    again = find("--output-dir", str(path), "--json", "--accuracy-tolerance", "0.5")
    first, second = json.loads(process.stdout), json.loads(again.stdout)
    for result in (first, second):
        del result["seconds"]
        for timed in ("seconds", "energy_kwh", "co2_kg"):
            del result["cost"][timed]
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


def test_dry_run_writes_nothing_and_prints_the_plan(
    done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--output-dir", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert "3 rounds down to 51.46%" in captured.err
    assert not (tmp_path / "run").exists()
    plan = json.loads(captured.out)
    assert [row["live"] for row in plan["rounds"]] == [480, 384, 308, 247]
    assert [row["trainings"] for row in plan["rounds"]] == [3, 12, 12, 12]
    assert (plan["trainings"], plan["steps"], plan["steps_of_a_training"]) == (39, 39 * 60, 60)
    made = {done[1] / Path(file).relative_to(tmp_path / "run") for file in plan["files"]}
    assert [str(file) for file in made if not file.exists()] == []
    assert set(plan) <= documented()
    assert set(plan["rounds"][0]) <= documented()


def documented() -> set[str]:
    """Every key that the README names for this command."""
    part = README[README.index("**`server_side.find`**") : README.index("**`export`**")]
    return set(re.findall(r"`(\w+)(?:\[\])?`", part))


def nested(part: Any) -> set[str]:
    """The keys of an object and of all objects in it."""
    return {*part}.union(*map(nested, part.values())) if isinstance(part, dict) else set()


def test_the_readme_names_every_key(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    result = json.loads((done[1] / "results.json").read_text())
    figures = {name.removesuffix(end) for name in result["dense"] for end in ("_std", "_interval", "_by_seed")}
    judged = nested(result["verdict"]) | nested(result["cost"])
    figures = {name for name in figures if not name.endswith(("_std", "_interval", "_by_seed"))}
    keys = {*result, *figures, *judged, *result["rounds"][1], *result["run"]}
    assert keys - documented() == set()
    assert result.keys() == json.loads(done[0].stdout).keys()


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
    (["--model", "tests.server_side.test_find:reading"], "an embedding reads whole numbers, but a search trains on"),
    (["--nesterov"], "nesterov True with optimizer adam: only sgd has it"),
    (["--optimizer", "sgd", "--nesterov"], "nesterov true with momentum 0"),
    (["--learning-rate-schedule", "step"], "step without learning_rate_drops; give the steps"),
    (["--learning-rate-drops", '["20it"]'], "only step has drops; leave it out"),
    (["--learning-rate-schedule", "step", "--learning-rate-drops", '["60it"]'], "must rise, not lie in the warm-up"),
    (["--warmup", "60it"], "warmup 60it: must rise, not lie in"),
    (["--exclude", '["fc9"]'], "exclude 'fc9': no layer that can be pruned has such a name; there are fc1, fc2, out"),
    (["--exclude", '["*"]'], "no layer is left to prune"),
    (["--prune-fractions", '{"conv*": 0.1}'], "prune_fractions 'conv*': no layer that can be pruned"),
    (["--prune-fractions", '{"fc1": 1.0}'], "prune_fractions fc1 1.0: must be between 0 and 1"),
    (["--scope", "global", "--prune-fractions", '{"fc1": 0.1}'], "all layers share one quota there"),
    (["--model", "tests.server_side.test_find:reading", "--engine", "device"], "leave the embedding out"),
    (["--model", "tests.server_side.test_find:too_many_outputs"], "7 outputs, but the data has 4 classes"),
    (["--steps", "many"], "expected steps like 500it"),
    (["--steps", "²it"], "expected steps like 500it"),
    (["--validation", ".nan"], "validation nan: must be a count, or a share"),
    (["--validation", "-1"], "validation -1.0: must be a count, or a share"),
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
    (["--data", "tests.server_side.test_find:half_tested"], "x_test without y_test; give both"),
    (["--data", "tests.server_side.test_find:wide"], "train part: sample 3 holds 1e+300, beyond float32; scale"),
    (["--data", "tests.server_side.test_find:flat"], "cannot be normalised in float32; scale"),
    (["--model", "tests.server_side.test_find:no_such"], "has no 'no_such'; expected package.module:name"),
    (["--model", "tests.server_side.test_find:of_numpy"], "other weights '0.weight' for the same seed; draw all"),
    (["--model", "tests.server_side.test_find:of_one_seed"], "the same weights for every seed; draw all"),
    (["--model", "tests.server_side.test_find:growing"], "another network when called again; give the same"),
    (["--model", "tests.server_side.test_find:not_a_number"], "'0.weight' with NaN or infinite weights"),
    (["--model", "tests.server_side.test_find:untrained"], "parameter '0.bias': requires_grad=False, but a device"),
    (
        ["--target-density", "0.1", "--prune-fraction", "0.3"],
        "prune_fraction 0.3 with rounds 3 and target_density 0.1: two of them say the third; leave one out",
    ),
    (["--scope", "global", "--output-prune-fraction", "0.1"], "output_prune_fraction 0.1 with scope global: all"),
    (["--momentum", "0.9"], "momentum 0.9 with optimizer adam: only sgd has it; leave it out"),
    (
        ["--engine", "device", "--accelerator", "cuda"],
        "accelerator cuda with engine device: that one trains on the CPU",
    ),
]


def raising() -> Any:
    raise KeyError("width")


def half_tested() -> Any:
    data = blobs()
    del data["y_test"]
    return data


def wide() -> Any:
    data = blobs()
    data["x"] = data["x"].astype(np.float64)
    data["x"][3, 7] = 1e300
    return data


def flat() -> Any:
    """A spread that float32 cannot divide by."""
    return {name: value * np.float32(1e-40) if name[0] == "x" else value for name, value in blobs().items()}


def of_numpy() -> Any:
    """numpy's generator is not torch's: no seed of the search fixes these weights."""
    import torch
    from torch import nn

    layer = nn.Linear(20, 4)
    layer.weight.data = torch.from_numpy(np.random.default_rng().normal(size=(4, 20)).astype(np.float32))
    return nn.Sequential(layer)


def of_one_seed() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 4))


GROWN = iter(range(8, 1000))


def growing() -> Any:
    from torch import nn

    width = next(GROWN)
    return nn.Sequential(nn.Linear(20, width), nn.Linear(width, 4))


def not_a_number() -> Any:
    from torch import nn

    layer = nn.Linear(20, 4)
    layer.weight.data[1, 2] = float("nan")
    return nn.Sequential(layer)


def untrained() -> Any:
    from torch import nn

    layer = nn.Linear(20, 4)
    layer.bias.requires_grad = False
    return nn.Sequential(layer)


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
    ticket = small.ticket(rounds[-1], {})
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
    ticket = small.ticket(rounds[-1], {})
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
    ("text", "told"),
    [
        ("def Tiny(:", "SyntaxError: invalid syntax (in "),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence (in "),
        ("import no_such_package", "No module named 'no_such_package'; expected"),
    ],
)
@pytest.mark.parametrize("option", ["model", "data"])
def test_a_module_that_cannot_be_imported_is_named(
    option: str,
    text: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*SMALL, "--output-dir", str(tmp_path / "run"), f"--{option}", "broken_module:Tiny"]) == 2
    captured = capsys.readouterr().err
    assert f"{option} 'broken_module:Tiny': {told}" in captured
    assert captured.count("\n") == 1


@pytest.mark.parametrize("damaged", ["ticket.json", "weights.safetensors"])
def test_a_damaged_ticket_is_named_before_anything_is_trained(
    damaged: str,
    done: tuple[subprocess.CompletedProcess[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done[1], tmp_path / "run")
    (tmp_path / "run/ticket" / damaged).write_bytes(b"{}")
    shutil.rmtree(tmp_path / "run/rounds")
    again = [*SMALL, "--output-dir", str(tmp_path / "run"), "--accuracy-tolerance", "0.5", "--quiet"]
    assert main(again) == 2
    captured = capsys.readouterr()
    assert "or remove it, and the same command writes it again" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "run/rounds").exists()
    shutil.rmtree(tmp_path / "run/ticket")
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ticket_hash"] == json.loads(done[0].stdout)["ticket_hash"]


def test_what_killed_runs_left_is_cleared_away(
    done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(done[1], run)
    (run / ".ticket-0123456789abcdef").mkdir()
    left = [run / ".ticket-0123456789abcdef/ticket.json", run / ".results.json-0123456789abcdef"]
    left += [
        run / "rounds/01/.seed0-ticket.npz-0123456789abcdef",
        run / "rounds/01/stack0.pt",
        run / "rounds/00/stack0.pt",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert main([*SMALL, "--output-dir", str(run), "--accuracy-tolerance", "0.5", "--quiet"]) == 0
    assert [str(path) for path in left if path.exists()] == []
    assert {path.name for path in run.iterdir()} == {path.name for path in done[1].iterdir()}


def endless() -> Any:
    """So much to train between two evaluations that no test waits for it."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(2000, 20)).astype(np.float32), generator.integers(0, 4, 2000)


def test_the_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    arguments = ["--engine", "device", "--data", f"{__name__}:endless", "--steps", "100000000it"]
    arguments += ["--evaluate-every", "5000000it", "--output-dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "server_side.find", *SMALL, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "run/rounds/00").exists():
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(1)  # into the training
            process.send_signal(signal.SIGINT)
            time.sleep(1)
            assert process.poll() is None  # it saves at its next evaluation
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=5)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "once more to stop at once" in told
    assert f"stopped at once; the same command goes on from {tmp_path / 'run'}" in told


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_a_network_beyond_the_format_is_told_before_the_search(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.to_native.MAX_NODES", 4)
    code = main([*SMALL, "--output-dir", str(tmp_path / "run"), "--dry-run", "--json", "--engine", engine])
    captured = capsys.readouterr()
    assert "the network has 5 nodes; the format holds 1 to 4" in captured.err
    assert code == (0 if engine == "stacked" else 2)
    if engine == "stacked":
        (warning,) = json.loads(captured.out)["warnings"]
        assert "no .tkt for devices can be made of it" in warning


def test_the_hash_of_a_ticket_depends_on_no_path_and_no_thread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for place, threads in (("here", 1), ("there", 2)):
        (tmp_path / place).mkdir()
        np.savez(tmp_path / place / "blobs.npz", **blobs())
        arguments = ["--data", f"npz:{tmp_path / place}/blobs.npz", "--threads", str(threads), "--engine", "device"]
        main([*SMALL, *arguments, "--output-dir", str(tmp_path / place / "run"), "--json", "--quiet"])
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["ticket_hash"] == found[1]["ticket_hash"]
    assert "threads" not in found[0]["card"]["provenance"]["options"]
    assert str(tmp_path) not in json.dumps(found[0]["card"])
    assert [result["run"]["threads"] for result in found] == [1, 2]
