"""SparseProp (github.com/IST-DASLab/sparseprop), the other sparse backward pass for processors, as a peer of single layers.

Its C++ backend is compiled from a checkout's folder into build/sparseprop; no code of it is here. The flags are those of its
setup.py but for -fopenmp, which on one thread would only cost it: a barrier for each row, more than half of the backward pass
of 784x300 at 10 % density and below. A step is its kernels alone, forward and backward (gradients of the input and of the
live weights), on preallocated arrays in their own layout, without autograd and the transposes that its modules do around
them; the results are set to zero first, as the kernels add to them. A convolution has two kernels, with vectors of the batch
or of a row; both are peers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.interleaved import Step

BUILD = Path(__file__).parent.parent / "build/sparseprop"
SOURCE = "sparseprop/backend.cpp"
FLAGS = ("-O3", "-std=c++11", "-fPIC", "-march=native", "-ffast-math")
# The kernels by the number of the weight's dimensions: their names in the backend, and the axes of (batch, ...) that they want.
KERNELS: dict[int, dict[str, tuple[str, tuple[int, ...]]]] = {
    2: {"sparseprop": ("sparse_linear_vectorized_{}", (1, 0))},
    4: {
        "sparseprop over the batch": ("sparse_conv2d_vectorized_{}_stride_1", (1, 2, 3, 0)),
        "sparseprop over a row": ("sparse_conv2d_vectorized_{}_over_on_stride_1", (0, 1, 2, 3)),
    },
}

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]


class RivalError(Exception):
    """A checkout that is none, does not build, or computes something else; the text is one line."""


def build(checkout: Path) -> Path:
    """The compiled backend of a checkout; one that was compiled before from the same sources is taken."""
    source = checkout / SOURCE
    if not source.is_file():
        raise RivalError(f"'{checkout}' is no checkout of SparseProp: it has no {SOURCE}")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    includes = [f"-I{folder}" for folder in (_pybind11(), sysconfig.get_path("include"))]
    digest = _digest(source.parent, [*compiler, *FLAGS, *includes])
    target = BUILD / digest / f"backend{sysconfig.get_config_var('EXT_SUFFIX')}"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        compiled, linked = (str(Path(folder) / name) for name in ("backend.o", "backend.so"))
        _run([*compiler, *FLAGS, *includes, "-c", str(source), "-o", compiled], checkout)
        # Without the flags, as setuptools does: -ffast-math here would flush denormals in the whole process.
        _run([*compiler, "-shared", compiled, "-o", linked], checkout)
        os.replace(linked, target)
    return target


def _pybind11() -> Path:
    """Where pybind11's headers are: PyTorch brings them."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise RivalError("SparseProp needs PyTorch and the headers in it; install torch")
    return Path(torch.origin).parent / "include"


def _digest(folder: Path, command: list[str]) -> str:
    digest = hashlib.sha256("\0".join([sys.version, *command]).encode())
    for path in sorted(folder.rglob("*.cpp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str], checkout: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RivalError(
            f"'{command[0]}' cannot compile SparseProp: {error.strerror}; set CXX to a C++ compiler"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"'{command[0]}' ends with {done.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise RivalError(f"'{checkout}' does not build: {reason}")


def load(checkout: Path) -> Any:
    """The backend's module."""
    path = build(checkout)
    spec = importlib.util.spec_from_file_location("backend", path)
    assert spec is not None
    assert spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
    except ImportError as error:
        raise RivalError(f"'{checkout}' is built, but cannot be loaded: {error}") from error
    spec.loader.exec_module(module)
    return module


def steps(backend: Any, weight: Floats, mask: Bits, input_shape: tuple[int, ...]) -> dict[str, Step]:
    """By name, each kernel that can compute the layer, checked against dense PyTorch.

    A linear layer if the weight is a matrix, else a convolution of stride 1 that keeps its size. input_shape: (batch, ...).
    """
    random = np.random.default_rng(3)
    x = random.standard_normal(input_shape).astype(np.float32)
    dy = random.standard_normal((len(x), len(weight), *input_shape[2:])).astype(np.float32)
    want = _dense(x, weight, dy)
    index, values = _linear_format(weight, mask) if weight.ndim == 2 else _conv_format(backend, weight, mask)
    size = () if weight.ndim == 2 else (weight.shape[-1], weight.shape[-1] // 2)  # kernel, padding
    found = {}
    for name, (kernel, axes) in KERNELS[weight.ndim].items():
        arrays = [_aligned(array.transpose(axes)) for array in (x, dy, np.zeros_like(dy), np.zeros_like(x))]
        dw = _aligned(np.zeros_like(values))
        found[name] = _step(backend, kernel, (*index, values), size, (*arrays, dw))
        found[name](0)
        y, dx = (array.transpose(np.argsort(axes)) for array in arrays[2:])
        _check(f"{name}, weight {weight.shape}", {"y": y, "dx": dx, "dw": dw}, want | {"dw": want["dw"][mask]})
    return found


def _step(backend: Any, kernel: str, weight: Sequence[Any], size: tuple[int, ...], arrays: Sequence[Floats]) -> Step:
    forward, backward = (getattr(backend, kernel.format(way)) for way in ("forward", "backward"))
    x, dy, y, dx, dw = arrays

    def step(_: int) -> float:
        y.fill(0)
        forward(x, *weight, y, *size)
        dx.fill(0)
        dw.fill(0)
        backward(x, *weight, dy, dx, dw, *size)
        return float("nan")

    return step


def _linear_format(weight: Floats, mask: Bits) -> tuple[tuple[Any, ...], Floats]:
    starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
    return (starts, mask.nonzero()[1].astype(np.int32)), _aligned(weight[mask])


def _conv_format(backend: Any, weight: Floats, mask: Bits) -> tuple[tuple[Any, ...], Floats]:
    """By their own function, to which zero means pruned; then the values of the mask, in the same order."""
    outputs, channels, kernel, _ = weight.shape
    live = int(mask.sum())
    starts = np.zeros(outputs + 1, np.int32), np.zeros(outputs * (channels + 1), np.int16)
    places = np.zeros(live, np.uint8), np.zeros(live, np.uint8)
    values = _aligned(np.zeros(live, np.float32))
    backend.sparsify_conv2d(outputs, channels, kernel, mask.astype(np.float32), *starts, *places, values)
    values[:] = weight[mask]
    return (*starts, *places), values


def _aligned(array: Floats) -> Floats:
    """A copy in memory of PyTorch's, as their modules have it: it starts at a cache line."""
    import torch

    copy: Floats = torch.empty(array.shape).numpy()
    copy[...] = array
    return copy


def _dense(x: Floats, weight: Floats, dy: Floats) -> dict[str, Floats]:
    """The result and both gradients by PyTorch."""
    import torch
    from torch.nn import functional as F

    inputs, weights = (torch.from_numpy(array).requires_grad_() for array in (x, weight.copy()))
    y = F.linear(inputs, weights) if weight.ndim == 2 else F.conv2d(inputs, weights, padding="same")
    dx, dw = torch.autograd.grad(y, (inputs, weights), torch.from_numpy(dy))
    return {"y": y.detach().numpy(), "dx": dx.numpy(), "dw": dw.numpy()}


def _check(who: str, got: Mapping[str, Floats], want: Mapping[str, Floats]) -> None:
    for name, expected in want.items():
        if not np.allclose(got[name], expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max())):
            error = np.abs(got[name] - expected).max()
            raise RivalError(f"{who}: {name} is off by {error:.2g} from dense PyTorch's; nothing was timed")
