"""Training, checkpointing and predicting open no socket: the system calls of a whole run are watched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import artifact

RUN = """
from device_runtime.__main__ import main
assert main("train net.tkt --data npz:data.npz --epochs 2 --checkpoint run.tkc --output trained.tkt".split()) == 0
assert main("predict trained.tkt --start trained --data npz:data.npz".split()) == 0
assert main("simulate net.tkt --data npz:data.npz --epochs 1 --interruptions 1".split()) == 0
"""
CONTROL = "import socket; socket.socket().close()"


def network_calls(script: str, folder: Path) -> list[str]:
    log = folder / "calls.txt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    trace = ["strace", "-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", str(log)]
    done = subprocess.run(
        [*trace, sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, check=False
    )
    if b"ptrace" in done.stderr.lower() and done.returncode:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr.decode()
    return log.read_text().splitlines()


def test_no_network_call_in_a_whole_run(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    net = nets.small()
    (tmp_path / "net.tkt").write_bytes(artifact(net))
    x, y = nets.task(net, 40)
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=x, y=y)
    assert any("socket(" in call for call in network_calls(CONTROL, tmp_path)), "the watch must see a socket"
    assert network_calls(RUN, tmp_path) == []


def test_the_device_side_imports_no_network_module() -> None:
    script = "import sys, device_runtime.__main__; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    modules = set(found.stdout.split())
    assert "device_runtime._core" in modules
    assert not modules & {"torch", "safetensors", "export", "server_side", "http", "urllib.request", "ssl"}
