"""Makes the app's assets by a search on real digits: the ticket, its two rivals, and the samples that ship with it.

    python -m examples.android.make_assets [--data idx:MNIST_DIR] [--output build/android/assets]

Networks are packed and untrained; the app trains them. Samples are IDX files, as of MNIST: `replay` is dealt out of what the
search trained on, `shipped` was kept from it. Run again it goes on with the search; assets that are there from the same
search are left. Takes uint8 pictures alone.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.atomic import write_directory
from export.compact import compact
from export.ticket import Ticket
from export.to_native import to_packed_bytes
from server_side import find_ticket
from server_side.controls import apply_masks
from server_side.errors import UsageError
from server_side.models import load_model
from server_side.seeds import derive, generator
from server_side.sources.idx import read_idx
from server_side.sources.source import parse

Bytes = NDArray[np.uint8]

OUTPUT = Path("build/android/assets")
REPLAY_OF_A_CLASS = 10
SHIPPED = 300  # samples on which the app tells what was forgotten
# The presets of the literature, but with fewer steps and seeds: a search of minutes.
SEARCHES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "digits": ("lenet-300-100-digits", {"seeds": 3, "reinits": 1, "stability": False}),
    "mnist": ("lenet-300-100", {"seeds": 1, "reinits": 1, "stability": False, "steps": "4000it", "rounds": 12}),
}


def make_assets(data: str, output: Path, work: Path, **options: Any) -> dict[str, int]:
    """Bytes of each file by its name. `options`, of the search, replace those of SEARCHES. Raises UsageError."""
    x, y, x_test, y_test = digits() if data == "digits" else _idx(data)
    preset, usual = SEARCHES["digits" if data == "digits" else "mnist"]
    samples = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    found = find_ticket(preset, samples, quiet=False, output_dir=work, **{**usual, **options})
    theta = load_model(preset, x.shape[1:], len(np.unique(y)))
    seed = int(found.results["seed"])
    contents = {
        f"{name}.tkt": to_packed_bytes(compact(one))
        for name, one in rivals(
            found.ticket,
            {name: value.numpy() for name, value in theta.initial_weights(derive(seed, "init")).items()},
            {name: value.numpy() for name, value in theta.initial_weights(derive(seed, "app", "reinit")).items()},
        ).items()
    }
    replay = few_of_each(y, REPLAY_OF_A_CLASS)
    kept = generator(0, "app", "shipped").permutation(len(y_test))[:SHIPPED]
    contents |= idx_files("replay", x[replay], y[replay]) | idx_files("shipped", x_test[kept], y_test[kept])
    _write(output, contents)
    return {name: len(content) for name, content in contents.items()}


def rivals(ticket: Ticket, theta: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Ticket]:
    """The ticket, its mask with fresh weights, and the whole network that it is a part of. Raises UsageError where the ticket
    does not start from `theta`."""
    masks = dict(ticket.masks)
    start = apply_masks(dict(theta), masks)
    if any(start[name].tobytes() != value.tobytes() for name, value in ticket.init.items()):
        raise UsageError("the ticket does not start from its network's initial weights; search with rewind_step 0it")
    return {
        "ticket": ticket,
        "reinit": Ticket(ticket.network, apply_masks(dict(fresh), masks), masks, card=ticket.card),
        "dense": Ticket(ticket.network, theta, {}, card={**ticket.card, "density": 1.0, "densities": {}}),
    }


def few_of_each(y: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Places of `count` samples of each class, at random, class after class. Raises UsageError where there are fewer."""
    order = generator(0, "app", "replay").permutation(len(y))
    chosen = [order[y[order] == label][:count] for label in np.unique(y)]
    if any(len(one) < count for one in chosen):
        raise UsageError(f"a class has fewer than {count} samples; give more data")
    return np.concatenate(chosen)


def idx_files(name: str, x: Bytes, y: NDArray[Any]) -> dict[str, bytes]:
    """x (n, height, width) and y (n,) as the two IDX files of MNIST."""
    header = struct.pack(">HBB", 0, 0x08, x.ndim)
    images = header + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(np.uint8).tobytes()
    labels = struct.pack(">HBBI", 0, 0x08, 1, len(y)) + y.astype(np.uint8).tobytes()
    return {f"{name}-images-idx3-ubyte": images, f"{name}-labels-idx1-ubyte": labels}


def digits() -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """scikit-learn's digits, values 0 to 16; SHIPPED of them are kept from the search."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    order = generator(0, "app", "digits").permutation(len(y))
    train, test = order[SHIPPED:], order[:SHIPPED]
    return x[train], y[train], x[test], y[test]


def _idx(data: str) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    if not data.startswith("idx:"):
        raise UsageError(f"data '{data}': give digits, or idx:DIR with the four files of MNIST")
    found = read_idx(parse(data, ()))
    assert found.x_test is not None
    assert found.y_test is not None
    if found.x.dtype != np.uint8 or found.x_test.dtype != np.uint8:
        raise UsageError(f"data '{data}': pictures of {found.x.dtype}; the app takes bytes")
    return found.x, found.y, found.x_test, found.y_test


def _write(output: Path, contents: Mapping[str, bytes]) -> None:
    if output.exists():
        there = {path.name: path.read_bytes() for path in output.iterdir()}
        if there == contents:
            return
        raise UsageError(f"'{output}' holds other assets; remove it, or give another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_directory(output, dict(contents))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", default="digits", help="digits, or idx:DIR with the four files of MNIST")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--work", type=Path, help="of the search (default: beside the output)")
    given = parser.parse_args()
    try:
        sizes = make_assets(
            given.data, given.output, given.work or given.output.with_name(f"{given.output.name}-search")
        )
    except UsageError as error:
        print(f"make_assets: {error}", file=sys.stderr)
        return 2
    for name, size in sorted(sizes.items()):
        print(f"{name:<28} {size:>9,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
