"""Single layers, forward and backward: the native node against the best dense PyTorch on the same instruction set.

Linear layers run against a "trio" of preallocated matrix products (forward, dX, dW), convolutions against the faster memory
format of PyTorch's, without autograd. Everything is timed in one process in interleaved rounds; benchmarks/device_step.py
prints it. The native node runs through a probe of the core (layer_probe.cpp), built here by CMake. With --sparseprop and
the folder of a checkout of SparseProp its kernels are timed too (sparse_rival.py says what exactly).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import sparse_rival
from benchmarks.interleaved import Entry, run_interleaved
from export.layout import BLOCKS
from export.network import Network, Node, Parameter
from export.ticket import Ticket
from export.to_native import to_native_bytes

HERE = Path(__file__).parent
BUILD = HERE.parent / "build/layer_probe"
KERNELS = {"avx2": 2, "avx512": 3}
LANES = {"avx2": 8, "avx512": 16}
DENSITIES = (0.2, 0.1, 0.05, 0.036, 0.02)
BLOCK_DENSITIES = (0.2, 0.05)
# What PyTorch's libraries read: the instruction set they may use.
ENVIRONMENT = {
    "avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "avx512": {},
}

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Layer:
    """A network's second node; the first hands on each of its inputs, so that the gradient of them is asked for."""

    name: str
    network: Network
    before: Bits  # the live weights of the first node
    batch: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.network.input_shape

    @property
    def weight(self) -> tuple[int, ...]:
        return self.network.parameters[1].shape

    @property
    def outputs(self) -> int:
        return self.weight[0]

    @property
    def positions(self) -> int:
        return math.prod(self.shape[1:])


def linear(inputs: int, outputs: int, batch: int) -> Layer:
    nodes = (
        Node("linear", "before", (0,), {"weight": "before"}),
        Node("linear", "layer", (1,), {"weight": "layer"}),
    )
    parameters = (Parameter("before", (inputs, inputs), True), Parameter("layer", (outputs, inputs), True))
    network = Network((inputs,), parameters, nodes)
    return Layer(f"linear {inputs}x{outputs}, batch {batch}", network, np.eye(inputs, dtype=bool), batch)


def conv(channels: int, outputs: int, side: int, batch: int) -> Layer:
    def attrs(kernel: int, pad: int, groups: int) -> dict[str, int]:
        pairs = {"kernel": kernel, "stride": 1, "pad": pad, "dilation": 1}
        return {f"{name}_{axis}": value for name, value in pairs.items() for axis in "hw"} | {"groups": groups}

    nodes = (
        Node("conv", "before", (0,), {"weight": "before"}, attrs(1, 0, channels)),
        Node("conv", "layer", (1,), {"weight": "layer"}, attrs(3, 1, 1)),
        Node("global_avg_pool", "pool", (2,)),
    )
    before, weight = (channels, 1, 1, 1), (outputs, channels, 3, 3)
    network = Network(
        (channels, side, side), (Parameter("before", before, True), Parameter("layer", weight, True)), nodes
    )
    return Layer(f"conv 3x3 {channels}->{outputs}, {side}x{side}, batch {batch}", network, np.ones(before, bool), batch)


LAYERS = (linear(784, 300, 32), linear(1024, 1024, 64), conv(64, 64, 16, 16))


@dataclass(frozen=True)
class Pattern:
    """Which weights are live: exactly so many at random, where `block` rows share their columns. All: stored dense."""

    density: float
    block: int = 1

    @property
    def kind(self) -> str:
        if self.density == 1:
            return "dense"
        return "unstructured" if self.block == 1 else f"blocks of {self.block}"

    @property
    def name(self) -> str:
        return pattern_name(self.kind, self.density)

    def mask(self, layer: Layer, random: np.random.Generator) -> Bits:
        size = int(np.prod(layer.weight)) // self.block
        live = random.permutation(size) < round(self.density * size)
        return live.reshape(layer.outputs // self.block, -1).repeat(self.block, axis=0).reshape(layer.weight)


def pattern_name(kind: str, density: float) -> str:
    if kind == "dense":
        return kind
    return f"{density:.1%}" + ("" if kind == "unstructured" else f" in {kind}")


def patterns(layer: Layer) -> list[Pattern]:
    block = next(block for block in BLOCKS if layer.outputs % block == 0)
    unstructured = [Pattern(density) for density in DENSITIES]
    return [Pattern(1.0), *unstructured, *(Pattern(density, block) for density in BLOCK_DENSITIES)]


def ticket(layer: Layer, pattern: Pattern) -> Ticket:
    """The layer with random weights; a dense one has no mask."""
    random = np.random.default_rng(2)
    live = {"before": layer.before, "layer": pattern.mask(layer, random)}
    init = {}
    for name, mask in live.items():
        fan_in = max(1.0, mask.sum() / len(mask))
        init[name] = (random.standard_normal(mask.shape) * mask / np.sqrt(fan_in)).astype(np.float32)
    recipe = {"optimizer": "sgd", "batch": layer.batch, "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    recipe |= {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 1}
    card = {"task": "benchmark", "recipe": recipe, "input": {"mean": [0.0], "inverse_std": [1.0]}}
    masks = {name: mask for name, mask in live.items() if name == "before" or pattern.kind != "dense"}
    return Ticket(layer.network, init, masks, None, card)


class Probe:
    """The compiled probe; `node` 1 of an artifact is the layer."""

    def __init__(self) -> None:
        cmake = ["cmake", "-S", str(HERE), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=Release"]
        for command in (cmake, ["cmake", "--build", str(BUILD), "-j", "2"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"the probe cannot be built by '{' '.join(command)}':\n{done.stdout}{done.stderr}")
        self.library = ctypes.CDLL(str(next(BUILD.glob("*layer_probe*.so"))))
        self.library.probe_open.restype = ctypes.c_void_p
        self.library.probe_error.restype = ctypes.c_char_p
        self.library.probe_fma.restype = ctypes.c_double

    def open(self, content: bytes, layer: Layer, kernels: int) -> Callable[[int], float]:
        random = np.random.default_rng(3)
        x = random.standard_normal((layer.batch, *layer.shape)).astype(np.float32)
        y = np.zeros(layer.batch, np.int32)
        pointers = (x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))
        handle = self.library.probe_open(content, ctypes.c_size_t(len(content)), layer.batch, kernels, *pointers)
        if not handle:
            raise SystemExit(f"the probe: {self.library.probe_error().decode()}")
        trainer, node = ctypes.c_void_p(handle), ctypes.c_uint32(1)
        forward, backward = self.library.probe_forward, self.library.probe_backward

        def step(_: int) -> float:
            forward(trainer, node)
            backward(trainer, node)
            return float("nan")

        return step

    def fma_ns(self, isa: str, *, from_memory: bool) -> float:
        return float(self.library.probe_fma(KERNELS[isa], int(from_memory)))


def dense(layer: Layer) -> dict[str, Callable[[int], float]]:
    """Dense PyTorch, by name."""
    import torch

    torch.set_num_threads(1)
    if len(layer.shape) == 1:
        x, w = torch.randn(layer.batch, *layer.shape), torch.randn(layer.weight)
        y, dy = torch.empty(layer.batch, layer.outputs), torch.randn(layer.batch, layer.outputs)
        dx, dw = torch.empty_like(x), torch.empty_like(w)

        def trio(_: int) -> float:
            torch.mm(x, w.t(), out=y)
            torch.mm(dy, w, out=dx)
            torch.mm(dy.t(), x, out=dw)
            return float("nan")

        return {"torch trio": trio}

    def convolution(memory_format: torch.memory_format) -> Callable[[int], float]:
        x = torch.randn(layer.batch, *layer.shape).to(memory_format=memory_format)
        w = torch.randn(layer.weight).to(memory_format=memory_format)
        dy = torch.randn(layer.batch, layer.outputs, *layer.shape[1:]).to(memory_format=memory_format)
        same = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)

        def step(_: int) -> float:
            torch.ops.aten.convolution(x, w, None, *same)
            torch.ops.aten.convolution_backward(dy, x, w, None, *same, [True, True, False])
            return float("nan")

        return step

    return {
        "torch channels first": convolution(torch.contiguous_format),
        "torch channels last": convolution(torch.channels_last),
    }


def measure(isa: str, rounds: int, backend: Any = None) -> list[dict[str, Any]]:
    """A row for each layer and pattern: times, the ratio to the best dense, and the share of two bounds.

    With SparseProp's `backend` also its time (that of the faster kernel, where it has two) unless the layer is dense.

    The bounds are for every live weight a vector's multiply-add from registers and from memory. Where rows share their
    columns, or are dense, a load serves several of them, so such a layer may do better than the second.
    """
    probe = Probe()
    best_fma, best_load = (probe.fma_ns(isa, from_memory=memory) for memory in (False, True))
    rows = []
    for layer in LAYERS:
        found = {pattern.name: pattern for pattern in patterns(layer)}
        rivals: dict[str, list[str]] = {name: [] for name in found}
        entries = {name: Entry(step) for name, step in dense(layer).items()}
        peers = list(entries)
        for name, pattern in found.items():
            made = ticket(layer, pattern)
            entries[name] = Entry(probe.open(to_native_bytes(made), layer, KERNELS[isa]))
            if backend is not None and pattern.kind != "dense":
                shape = (layer.batch, *layer.shape)
                for rival, step in sparse_rival.steps(backend, made.init["layer"], made.masks["layer"], shape).items():
                    rivals[name].append(f"{rival} {name}")
                    entries[rivals[name][-1]] = Entry(step)
        run_interleaved(list(entries.values()), rounds)
        times = {name: median(entry.step_ms) for name, entry in entries.items()}
        peer = min(peers, key=lambda name: times[name])
        for name, pattern in found.items():
            vectors = 3 * round(pattern.density * np.prod(layer.weight)) * layer.positions * layer.batch / LANES[isa]
            rows.append(
                {
                    "isa": isa,
                    "layer": layer.name,
                    "pattern": pattern.kind,
                    "density": pattern.density,
                    "native_ms": times[name],
                    "dense": peer,
                    "dense_ms": times[peer],
                    "ratio": times[peer] / times[name],
                    "share_of_fma_peak": vectors * best_fma * 1e-6 / times[name],
                    "share_of_load_bound": vectors * best_load * 1e-6 / times[name],
                }
            )
            if rivals[name]:
                rival_ms = min(times[rival] for rival in rivals[name])
                rows[-1] |= {"sparseprop_ms": rival_ms, "sparseprop_over_native": rival_ms / times[name]}
    return rows


def measure_apart(isa: str, rounds: int, checkout: Path | None = None) -> list[dict[str, Any]]:
    """In a process of its own, whose libraries keep to the instruction set."""
    command = [sys.executable, "-m", "benchmarks.layers", "--isa", isa, "--rounds", str(rounds)]
    if checkout is not None:
        command += ["--sparseprop", str(checkout.resolve())]
    environment = {**os.environ, **ENVIRONMENT[isa]}
    done = subprocess.run(command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)  # it has said why
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def available() -> list[str]:
    """The instruction sets of this processor that both sides know."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    return [isa for isa, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if f" {flag} " in text]


def add_sparseprop_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sparseprop", type=Path, metavar="PATH", help="a checkout of SparseProp, to be timed too")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--isa", choices=sorted(KERNELS), required=True)
    parser.add_argument("--rounds", type=int, default=40)
    add_sparseprop_option(parser)
    arguments = parser.parse_args(argv)
    try:
        backend = sparse_rival.load(arguments.sparseprop) if arguments.sparseprop else None
        print(json.dumps(measure(arguments.isa, arguments.rounds, backend)))
    except sparse_rival.RivalError as error:
        print(f"{parser.prog}: error: --sparseprop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
