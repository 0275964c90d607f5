"""From which density on a pruned layer is faster whole, with a mask, than as CSR: forward and backward of single layers.

Both forms of one pattern run side by side in interleaved rounds; what `export.layout` would choose is set aside. The masked
form's time includes setting the gradients of pruned weights to 0. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from benchmarks.circumstances import circumstances
from benchmarks.interleaved import Entry, run_interleaved
from benchmarks.layers import KERNELS, LAYERS, Layer, Pattern, Probe, available, conv, linear, ticket
from export import layout
from export.to_native import to_native_bytes

DENSITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
FIRST_MASKED = {"csr": 2.0, "masked": 0.0}  # no density reaches the first
SMALL_BATCHES: tuple[Layer, ...] = (linear(784, 300, 8), linear(784, 300, 1), conv(64, 64, 16, 1))
DEFAULT_JSON = Path(__file__).parent / "results/dense_fallback.json"


def artifact(layer: Layer, density: float, form: str) -> bytes:
    with patch.object(layout, "MASKED_DENSITY", dict.fromkeys(layout.MASKED_DENSITY, FIRST_MASKED[form])):
        return to_native_bytes(ticket(layer, Pattern(density)))


def measure(isa: str, layer: Layer, rounds: int, probe: Probe) -> Iterator[dict[str, Any]]:
    entries = {
        (density, form): Entry(probe.open(artifact(layer, density, form), layer, KERNELS[isa]))
        for density in DENSITIES
        for form in FIRST_MASKED
    }
    run_interleaved(list(entries.values()), rounds)
    for density in DENSITIES:
        csr, masked = (median(entries[density, form].step_ms) for form in FIRST_MASKED)
        row = {"isa": isa, "layer": layer.name, "density": density}
        yield row | {"csr_ms": csr, "masked_ms": masked, "csr_over_masked": csr / masked}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("CSR / masked, how many times longer a layer takes as CSR\n")
    print("".join(f"{title:>8}" for title in ("", *(f"{density:.0%}" for density in DENSITIES))))
    for layer in dict.fromkeys(row["layer"] for row in rows):
        print(layer)
        for isa in dict.fromkeys(row["isa"] for row in rows):
            found = [row["csr_over_masked"] for row in rows if (row["layer"], row["isa"]) == (layer, isa)]
            print(f"{isa:>8}" + "".join(f"{ratio:8.2f}" for ratio in found))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dense_fallback", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON)
    arguments = parser.parse_args(argv)
    probe = Probe()
    rows = [
        row
        for layer in (*LAYERS, *SMALL_BATCHES)
        for isa in available()
        for row in measure(isa, layer, arguments.rounds, probe)
    ]
    print_table(rows)
    result = {"benchmark": "dense_fallback", "threads": 1, **circumstances(), "layers": rows}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
