"""One training step on one thread: sparse native against dense, for LeNet-300-100 in four other ways, and layer by layer.

All of them run in this one process in interleaved rounds, so that a busy machine slows everyone; figures are medians
over the rounds, ratios are dense over native (above 1: native is faster). Who is not installed is listed as such.

    python -m benchmarks.device_step [--threads 1] [--rounds 40] [--peers NAME ...] [--layers] [--sparseprop PATH]
        [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import layers, sparse_rival
from benchmarks import step_contenders as contenders
from benchmarks.circumstances import circumstances
from benchmarks.interleaved import Entry, Step, run_interleaved
from benchmarks.step_contenders import Batches

DENSITIES = (0.2, 0.1, 0.05, 0.036, 0.02)
BATCH = 32
RESULT = Path(__file__).parent / "results" / "device_step.json"

PEERS: dict[str, Callable[[Batches, int], Step]] = {
    "torch eager": contenders.torch_eager,
    "torch trio": contenders.torch_trio,
    "onnxruntime": contenders.onnx_runtime,
    "executorch": contenders.executorch,
}


def measure(threads: int, rounds: int, peers: Sequence[str]) -> dict[str, Any]:
    """Builds everyone, checks that equal work is done, and times it; a JSON object."""
    batches = Batches.random(8, BATCH)
    entries, missing = _build_peers(batches, threads, peers)
    facts = _build_natives(batches, entries)
    dense = {name: entry for name, entry in entries.items() if name in PEERS}
    run_interleaved(list(entries.values()), rounds, lambda: _check_dense(dense))
    dense.clear()
    found = {name: entry.result() | facts.get(name, {}) for name, entry in entries.items()}
    entries.clear()  # onnxruntime keeps a caught exception for ever, and with it this frame
    return {
        "benchmark": "device_step",
        "network": list(contenders.SIZES),
        "batch": BATCH,
        "threads": threads,
        **circumstances(),
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


def print_layers(rows: list[dict[str, Any]]) -> None:
    """Forward and backward of single layers; shares are of a vector's fused multiply-add from registers and from memory."""
    rivals = any("sparseprop_ms" in row for row in rows)
    for number, row in enumerate(rows):
        if number == 0 or (row["isa"], row["layer"]) != (rows[number - 1]["isa"], rows[number - 1]["layer"]):
            print(f"\n{row['layer']}, {row['isa']}: forward, dX and dW, against {row['dense']}")
            rival = "   SparseProp ms   SparseProp/native" if rivals else ""
            print(f"  {'density':<20}    dense ms   native ms   dense/native   of FMA peak   of load bound{rival}")
        figures = f"{row['dense_ms']:>11.3f} {row['native_ms']:>11.3f} {row['ratio']:>14.1f}"
        shares = f"{row['share_of_fma_peak']:>13.0%} {row['share_of_load_bound']:>15.0%}"
        rival = ""
        if "sparseprop_ms" in row:
            rival = f"{row['sparseprop_ms']:>16.3f} {row['sparseprop_over_native']:>19.1f}"
        print(f"  {layers.pattern_name(row['pattern'], row['density']):<20} {figures} {shares} {rival}".rstrip())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device_step", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1, help="of the dense contenders (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="(default: all)")
    parser.add_argument("--layers", action=argparse.BooleanOptionalAction, default=True, help="single layers too")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    layers.add_sparseprop_option(parser)
    arguments = parser.parse_args(argv)
    try:
        if arguments.sparseprop:
            sparse_rival.build(arguments.sparseprop)  # before anything is timed
    except sparse_rival.RivalError as error:
        print(f"{parser.prog}: error: --sparseprop: {error}", file=sys.stderr)
        return 2
    result = measure(arguments.threads, arguments.rounds, arguments.peers)
    print_table(result)
    result["layers"] = []
    for isa in layers.available() if arguments.layers else ():
        result["layers"] += layers.measure_apart(isa, arguments.rounds, arguments.sparseprop)
    print_layers(result["layers"])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
