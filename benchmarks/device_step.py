"""One training step of LeNet-300-100 on one thread: the sparse native step against dense training in four other ways.

All of them run in this one process in interleaved rounds, so that a busy machine slows everyone; figures are medians
over the rounds, ratios are dense over native (above 1: native is faster). Who is not installed is listed as such.

    python -m benchmarks.device_step [--threads 1] [--rounds 40] [--peers NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import step_contenders as contenders
from benchmarks.step_contenders import Batches, Step

DENSITIES = (0.2, 0.1, 0.05, 0.036, 0.02)
BATCH = 32
RESULT = Path(__file__).parent / "results" / "device_step.json"
PACKAGES = ("numpy", "torch", "onnx", "onnxruntime-training-cpu", "onnxruntime-training", "executorch")

BLOCK_SECONDS = 0.02  # a contender runs about this long before the next one's turn
WARM_UP_STEPS = 20

PEERS: dict[str, Callable[[Batches, int], Step]] = {
    "torch eager": contenders.torch_eager,
    "torch trio": contenders.torch_trio,
    "onnxruntime": contenders.onnx_runtime,
    "executorch": contenders.executorch,
}


@dataclass
class Entry:
    """One contender and the milliseconds a step it took in each round."""

    step: Step
    block: int = 1
    every: int = 1  # takes part in each `every`-th round
    number: int = 0
    losses: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        self.losses = [self.step(number) for number in range(3)]
        self.number = 3
        started = time.perf_counter()
        while self.number < WARM_UP_STEPS and time.perf_counter() - started < 5 * BLOCK_SECONDS:
            self.step(self.number)
            self.number += 1
        seconds = (time.perf_counter() - started) / max(self.number - 3, 1)
        self.block = max(1, round(BLOCK_SECONDS / seconds))
        self.every = 4 if seconds > BLOCK_SECONDS else 1

    def run_block(self) -> None:
        started = time.perf_counter()
        for number in range(self.number, self.number + self.block):
            self.step(number)
        self.step_ms.append((time.perf_counter() - started) / self.block * 1e3)
        self.number += self.block

    def result(self) -> dict[str, Any]:
        quartiles = quantiles(self.step_ms, n=4) if len(self.step_ms) > 1 else [self.step_ms[0]] * 3
        return {
            "median_ms": median(self.step_ms),
            "quartiles_ms": [quartiles[0], quartiles[2]],
            "rounds": len(self.step_ms),
            "steps_a_round": self.block,
            "first_losses": [loss for loss in self.losses if loss == loss],
        }


def measure(threads: int, rounds: int, peers: Sequence[str]) -> dict[str, Any]:
    """Builds everyone, checks that equal work is done, and times it; a JSON object."""
    batches = Batches.random(8, BATCH)
    entries, missing = _build_peers(batches, threads, peers)
    facts = _build_natives(batches, entries)
    _run(entries, rounds)
    found = {name: entry.result() | facts.get(name, {}) for name, entry in entries.items()}
    entries.clear()  # onnxruntime keeps a caught exception for ever, and with it this frame
    return {
        "benchmark": "device_step",
        "network": list(contenders.SIZES),
        "batch": BATCH,
        "threads": threads,
        **_circumstances(),
        "step": found,
        "missing": missing,
        "ratio": {f"{density:g}": _ratios(found, density) for density in DENSITIES},
    }


def _build_peers(batches: Batches, threads: int, peers: Sequence[str]) -> tuple[dict[str, Entry], dict[str, str]]:
    entries, missing = {}, {}
    for name, build in PEERS.items():
        try:
            if name in peers:
                entries[name] = Entry(build(batches, threads))
            else:
                missing[name] = "not asked for"
        except ImportError as error:
            missing[name] = f"not installed ({error})"
    return entries, missing


def _build_natives(batches: Batches, entries: dict[str, Entry]) -> dict[str, dict[str, Any]]:
    facts = {}
    for density in DENSITIES:
        step, trainer = contenders.native(density, batches)
        entries[_native(density)] = Entry(step)
        facts[_native(density)] = {
            "kernels": trainer.kernels,
            "arena_bytes": trainer.arena_bytes,
            "artifact_bytes": trainer.info.artifact_bytes,
        }
    return facts


def _run(entries: dict[str, Entry], rounds: int) -> None:
    for entry in entries.values():
        entry.warm_up()
    _check_dense({name: entry for name, entry in entries.items() if name in PEERS})
    for number in range(rounds):
        for entry in entries.values():
            if number % entry.every == 0:
                entry.run_block()


def _ratios(found: dict[str, dict[str, Any]], density: float) -> dict[str, float]:
    native = found[_native(density)]["median_ms"]
    return {name: found[name]["median_ms"] / native for name in PEERS if name in found}


def _native(density: float) -> str:
    return f"native {density:.1%}"


def _check_dense(entries: dict[str, Entry]) -> None:
    """Dense contenders start from one set of weights, so their first losses must be one number."""
    first = {name: entry.losses[0] for name, entry in entries.items() if entry.losses[0] == entry.losses[0]}
    if first and max(first.values()) - min(first.values()) > 1e-4:
        raise SystemExit(f"the contenders do not compute the same loss: {first}")


def _circumstances() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"device": _cpu(), "commit": _commit(), "versions": versions, "load": round(os.getloadavg()[0], 2)}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} logical"


def _commit() -> str | None:
    """The commit, with + where the tree differs from it; None outside a repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def print_table(result: dict[str, Any]) -> None:
    step = result["step"]
    print(f"LeNet-300-100, batch {result['batch']}, threads {result['threads']}")
    print(f"{result['device']}; ms a step, median [quartiles]\n")
    for name in [*PEERS, *(_native(density) for density in DENSITIES)]:
        if name in result["missing"]:
            print(f"  {name:<14} {result['missing'][name]}")
            continue
        low, high = step[name]["quartiles_ms"]
        facts = step[name]
        arena = f"   {facts['kernels']}, arena {facts['arena_bytes']:>9,} bytes" if "kernels" in facts else ""
        print(f"  {name:<14} {step[name]['median_ms']:9.3f} [{low:.3f}, {high:.3f}]{arena}")
    if "onnxruntime" in step:
        print("  (onnxruntime trains with plain SGD, without momentum; torch trio does the matrix products alone)")
    peers = [name for name in PEERS if name in step]
    print("\ndense time over native time\n  density   " + "".join(f"{name:>14}" for name in peers))
    for density in DENSITIES:
        ratios = result["ratio"][f"{density:g}"]
        print(f"  {density:>7.1%}   " + "".join(f"{ratios[name]:>14.1f}" for name in peers))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device_step", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1, help="of the dense contenders (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="(default: all)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    result = measure(arguments.threads, arguments.rounds, arguments.peers)
    print_table(result)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
