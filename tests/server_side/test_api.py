"""find_ticket: the README's snippet, the same search as the command's, going on with a run, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.ticket import load_ticket
from server_side import find_ticket
from server_side.errors import UsageError
from server_side.find import main
from tests.server_side.searches import SMALL, Tiny, blobs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = [name[2:].replace("-", "_") for name in SMALL[::2]]
SETTINGS: dict[str, Any] = {  # the same search as arguments of a call
    name: json.loads(value) if value.replace(".", "").isdecimal() else value
    for name, value in zip(NAMES, SMALL[1::2], strict=True)
    if name not in ("data", "model")
}


def unnamed(factor: float) -> Callable[[], nn.Module]:
    """A function that no other start can import."""

    def network() -> nn.Module:
        module = Tiny()
        module.fc1.weight.data *= factor
        return module

    return network


def test_the_readme_s_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = (text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "find_ticket" in text)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"make_model": Tiny, "x": blobs()["x"], "y": blobs()["y"]}
    exec(snippet, scope)
    found = scope["found"]
    assert found.ticket.hash == load_ticket(found.ticket_path).hash == found.results["ticket_hash"]
    assert found.report.is_file()
    assert found.directory == Path("runs/mine")


def test_the_package_is_imported_without_torch() -> None:
    code = "import sys, server_side; assert 'torch' not in sys.modules; server_side.find_ticket; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_same_call_goes_on_with_a_run_also_of_what_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = find_ticket(unnamed(1), (blobs()["x"], blobs()["y"]), output_dir=tmp_path, quiet=False, **SETTINGS)
    assert "the same call goes on with this run; the command cannot" in capsys.readouterr().err
    assert "find_ticket(model_fn, data, output_dir=" in first.report.read_text()
    monkeypatch.setattr("server_side.stacked.StackedEngine.train", None)  # nothing is left to train
    again = find_ticket(unnamed(1), (blobs()["x"], blobs()["y"]), output_dir=tmp_path, **SETTINGS)
    assert again.ticket.hash == first.ticket.hash
    with pytest.raises(UsageError, match=r"holds a run with model 'network-\w{12}', not 'network-\w{12}'"):
        find_ticket(unnamed(2), (blobs()["x"], blobs()["y"]), output_dir=tmp_path, **SETTINGS)  # other weights
    with pytest.raises(UsageError, match="holds a run on other data"):
        find_ticket(unnamed(1), (blobs()["x"][1:], blobs()["y"][1:]), output_dir=tmp_path, **SETTINGS)


def test_with_names_it_is_the_search_of_the_command_which_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SMALL, "--output-dir", str(tmp_path / "command"), "--quiet", "--json"])
    (command,) = capsys.readouterr().out.splitlines()
    torch.set_num_threads(2)
    found = find_ticket(Tiny, f"{blobs.__module__}:blobs", output_dir=tmp_path / "call", **SETTINGS)
    assert capsys.readouterr() == ("", "")
    assert torch.get_num_threads() == 2  # its own thread was for the search alone
    assert found.ticket.hash == json.loads(command)["ticket_hash"]
    config = tmp_path / "call/config.json"
    assert config.read_bytes() == (tmp_path / "command/config.json").read_bytes()
    assert f"--config {config}" in found.report.read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"data": blobs}, r"data function: expected \(x, y\)"),
        ({"data": {"x": np.zeros((4, 2))}}, "no array 'y'"),
        ({"data": {"x": np.zeros((4, 2)), "y": [0, 1, 0, 1], "x_test": np.zeros((1, 2))}}, "x_test without y_test"),
        ({"json": True}, "json True: no option of find_ticket"),
        ({"sedes": 3}, "sedes"),
        ({"seeds": "three"}, "seeds"),
        ({"method": "magic"}, "method"),
        ({"seeds": 0}, "seeds 0: must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"data": blobs(), **SETTINGS, **options}
    data = given.pop("data")
    with pytest.raises(UsageError, match=told):
        find_ticket(Tiny, data, output_dir=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
