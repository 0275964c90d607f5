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

# The whole command line, a run that goes on from its checkpoint, and every verb of the Trainer.
RUN = """
import warnings
import numpy as np
from device_runtime import Trainer
from device_runtime.__main__ import main

for line in (
    "inspect net.tkt --json",
    "train net.tkt --data npz:data.npz --epochs 2 --checkpoint run.tkc --output trained.tkt",
    "train net.tkt --data npz:data.npz --epochs 3 --checkpoint run.tkc --output trained.tkt",
    "evaluate trained.tkt --start trained --data npz:data.npz",
    "evaluate net.tkt --checkpoint run.tkc --data npz:data.npz",
    "predict trained.tkt --start trained --data npz:data.npz --output labels.csv",
    "simulate net.tkt --data npz:data.npz --epochs 1 --interruptions 1 --output-dir devices",
):
    assert main(line.split()) == 0, line

with np.load("data.npz") as arrays:
    x, y = arrays["x"], arrays["y"]
with Trainer.open("net.tkt", optimizer="adam", seed=3) as trainer:
    trainer.fit(x, y, epochs=2, checkpoint="own.tkc", checkpoint_every=1, on_step=lambda progress: True)
    trainer.train_step(x[:4], y[:4])
    trainer.train_steps(x, y, np.arange(8).reshape(2, 4))
    trainer.compute_gradients(x[:4], y[:4])
    trainer.evaluate(x, y)
    trainer.predict(x)
    trainer.export("own.tkt")
    with open("own.tkc", "r+b") as file:  # so that the generation before has to be taken
        file.truncate(100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert trainer.restore("own.tkc")
    trainer.reset()
"""
# Python's own socket, and one that no import of Python shows, from a thread and from a child.
CONTROLS = {
    "socket": "import socket; socket.socket().close()",
    "bind": "import socket; socket.socket(socket.AF_UNIX).bind('here')",
    "libc": "import ctypes; ctypes.CDLL(None).socket(2, 1, 0)",
    "thread": "import socket, threading; t = threading.Thread(target=socket.socketpair); t.start(); t.join()",
    "child": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], check=True)",
}


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


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_no_network_call_in_a_whole_run(tmp_path: Path) -> None:
    net = nets.small()
    (tmp_path / "net.tkt").write_bytes(artifact(net))
    x, y = nets.task(net, 40)
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=x, y=y)
    assert network_calls(RUN, tmp_path) == []
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"run.tkc", "trained.tkt", "labels.csv", "devices", "own.tkc", "own.tkt"}


@needs_strace
@pytest.mark.parametrize("control", CONTROLS)
def test_the_watch_sees_a_network_call(tmp_path: Path, control: str) -> None:
    assert any("socket" in call for call in network_calls(CONTROLS[control], tmp_path))


def test_the_device_side_imports_no_network_module() -> None:
    script = "import sys, device_runtime.__main__; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    modules = set(found.stdout.split())
    assert "device_runtime._core" in modules
    assert not modules & {"torch", "safetensors", "export", "server_side", "http", "urllib.request", "ssl"}
