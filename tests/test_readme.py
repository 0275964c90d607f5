"""The README's commands exist with the options it shows, its links lead somewhere, its extras are the package's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line]


def commands() -> dict[str, set[str]]:
    """Each `python -m MODULE` of the README (with its subcommand) and the options shown with it."""
    found: dict[str, set[str]] = {}
    for line in SHELL:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-m"]:
            tools = words[2] == "device_runtime" or words[3] in ("report", "delta", "keygen", "sign")
            subcommand = words[3:4] if tools else []
            options = found.setdefault(" ".join([words[2], *subcommand]), set())
            options |= {word.partition("=")[0] for word in words if word.startswith("--")}
    return found


def test_the_quickstart_shows_every_command() -> None:
    assert {name.split()[0] for name in commands()} == {"server_side.find", "export", "device_runtime"}


@pytest.mark.parametrize("command", commands())
def test_each_command_knows_its_options(command: str) -> None:
    line = [sys.executable, "-m", *command.split(), "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    known = {option.replace("_", "-") for option in re.findall(r"--[a-z][a-z0-9_-]*", done.stdout)}
    assert commands()[command] <= known


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {line.split()[1] for line in SHELL if line.startswith("make ")}
    assert targets == {"apk", "demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_and_paths_of_the_map_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    rows = re.findall(r"^\| `([a-z_]+/)` \|.*\| ([^|]+) \|$", README, re.MULTILINE)
    starts = [folder + name for folder, names in rows for name in re.findall(r"`([^`]+)`", names)]
    assert links
    assert len(rows) == 6
    assert [path for path in links + starts if not (ROOT / path).exists()] == []


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = README[README.index("| extra |") : README.index("## Exit codes")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(project["optional-dependencies"])
