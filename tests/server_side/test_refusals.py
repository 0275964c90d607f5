"""What the search refuses before it trains: one clear line for each kind of bad input, exit code 2, and no files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.find import main
from tests.server_side.searches import SMALL, blobs

BAD: list[tuple[list[str], str]] = [
    (["--data", "nonsense"], "expected digits, idx:DIR, npz:FILE"),
    (["--data", "idx:nowhere", "--model", "lenet-300-100"], "no file train-images-idx3-ubyte.gz"),
    (["--data", "npz:nowhere.npz"], "No such file or directory"),
    (["--data", "no.such.module:function"], "No module named"),
    (["--model", "resnet-9000"], "expected one of lenet-300-100"),
    (["--model", "tests.server_side.test_refusals:unsupported"], "module '1' (SiLU): aten.silu"),
    (
        ["--model", "tests.server_side.test_refusals:reading"],
        "an embedding reads whole numbers, but a search trains on",
    ),
    (
        ["--model", "tests.server_side.searches:normed", "--batch", "1"],
        "'1', a batch norm, finds no spread in one sample; take a --batch of at least 2",
    ),
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
    (["--model", "tests.server_side.test_refusals:reading", "--engine", "device"], "leave the embedding out"),
    (["--model", "tests.server_side.test_refusals:too_many_outputs"], "7 outputs, but the data has 4 classes"),
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
    (["--model", "tests.server_side.test_refusals:raising"], "KeyError: 'width' (in "),
    (["--data", "tests.server_side.test_refusals:raising"], "KeyError: 'width' (in "),
    (["--data", "tests.server_side.test_refusals:half_tested"], "x_test without y_test; give both"),
    (["--data", "tests.server_side.test_refusals:wide"], "train part: sample 3 holds 1e+300, beyond float32; scale"),
    (["--data", "tests.server_side.test_refusals:flat"], "cannot be normalised in float32; scale"),
    (["--model", "tests.server_side.test_refusals:no_such"], "has no 'no_such'; expected package.module:name"),
    (["--model", "tests.server_side.test_refusals:of_numpy"], "other weights '0.weight' for the same seed; draw all"),
    (
        ["--model", "tests.server_side.test_refusals:of_one_seed"],
        "the same weights '0.weight' for every seed; draw all",
    ),
    (
        ["--model", "tests.server_side.test_refusals:partly_seeded"],
        "the same weights '0.weight' for every seed; draw all",
    ),
    (["--model", "tests.server_side.test_refusals:growing"], "another network when called again; give the same"),
    (["--model", "tests.server_side.test_refusals:not_a_number"], "'0.weight' with NaN or infinite weights"),
    (["--model", "tests.server_side.test_refusals:untrained"], "parameter '0.bias': requires_grad=False, but a device"),
    (
        ["--target-density", "0.1", "--prune-fraction", "0.3"],
        "prune_fraction 0.3 with rounds 3 and target_density 0.1: these two say the shares; leave one out",
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


def partly_seeded() -> Any:
    """A trunk that is always the same, as a pretrained one, and a head that is not."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Linear(20, 8)
    return nn.Sequential(trunk, nn.ReLU(), nn.Linear(8, 4))


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


def reading() -> Any:
    from tests.architectures import Indexed

    return Indexed(20, 4)


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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--rounds", "many"], "rounds 'many': expected a whole number"),
        (["--batch", "2.5"], "batch '2.5': expected a whole number"),
        (["--learning-rate", "fast"], "learning_rate 'fast': expected a number"),
        (["--stability=maybe"], "stability 'maybe': expected true or false"),
        (["--engine", "gpu"], "engine 'gpu': expected auto or stacked or device or fabric"),
        (["--exclude", "fc1"], """exclude 'fc1': expected a list, e.g. '["fc1"]'"""),
        (["--exclude", "[1, 2]"], "exclude '1': expected text"),
        (["--nosuch", "3"], "unrecognized arguments: --nosuch 3"),
    ],
)
def test_a_bad_option_is_one_line_without_the_usage_of_all(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"find: {text}; see python -m server_side.find --help\n"


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
