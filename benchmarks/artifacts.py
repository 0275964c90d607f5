"""Every artifact of a ticket beside its dense twin: bytes, the gate's verdict, and what ONNX models give; then the accuracy to
which each runtime trains one ticket on MNIST, in the simulator.

Tickets are the largest initial weights of each layer, which lie as if at random: coders have nothing to gain from them.
Dense twins are the same network unpruned in the same format. All at a batch of 16: an ExecuTorch program has one size.
A format that refuses a ticket, or fails its gate, is told with its reason. What --networks and --no-mnist leave out stays in FILE
as it was.

    python -m benchmarks.artifacts [--networks NAME ...] [--mnist DIR] [--no-mnist] [--no-gates] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.circumstances import circumstances
from device_runtime import Data, Trainer
from device_runtime.simulator import Settings, simulate
from export.formats import FORMATS, Content, Wanted, judged, place, size, written
from export.ticket import Floats, Ticket, TicketError
from server_side.models import load_model
from server_side.presets import PRESETS

RESULT = Path(__file__).parent / "results" / "artifacts.json"
MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
BATCH = 16
NETWORKS: Mapping[
    str, tuple[str, float, bool]
] = {  # preset, density, and whether a seed gives the values it starts from
    "LeNet-300-100 at 3.6 %": ("lenet-300-100", 0.036, True),
    "LeNet-300-100 at 5 %": ("lenet-300-100", 0.05, True),
    "Conv-4 at 10 %": ("conv-4", 0.1, True),
    "ResNet-20 at 10 %": ("resnet-20", 0.1, False),  # its tickets start after step 0
    "sensor-1d at 10 %": ("sensor-1d", 0.1, True),
}
ARTIFACTS: Mapping[str, tuple[str, Wanted]] = {
    "native": ("native", Wanted()),
    "packed, float32": ("packed", Wanted()),
    "packed, float16": ("packed", Wanted(packed="float16")),
    "packed, a seed": ("packed", Wanted(packed="seed")),
    "onnx": ("onnx", Wanted()),
    "ort": ("ort", Wanted()),
    "executorch": ("executorch", Wanted()),
}
DENSE = ("onnx", "ort", "executorch")
RUNTIMES = ("native", "ort", "executorch")  # that train MNIST
# Of 15 rounds the last one's ticket alone fits: the one of 3.6 % of the weights.
SEARCH: dict[str, Any] = {"rounds": 15, "target_density": 0.036, "fit_bytes": "64KB", "steps": "2000it", "seeds": 1}
SEARCH |= {"reinits": 0, "shuffles": 0, "stability": False}
EPOCHS, SEEDS = 5, (0, 1, 2)


def ticket_of(preset: str, density: float, *, seeded: bool) -> Ticket:
    """With the weights of seed 0, of each layer the largest; nothing is pruned at density 1."""
    known = PRESETS[preset]
    model = load_model(preset, known.input_shape, known.classes).from_seed()
    weights = {name: value.numpy() for name, value in model.initial_weights(0).items()}
    masks = {name: _largest(weights[name], density) for name in model.network.prunable if density < 1}
    init = {name: np.where(masks.get(name, True), value, np.float32(0)) for name, value in weights.items()}
    given = {"momentum": 0.0, "weight_decay": 0.0, **known.defaults}
    recipe = {key: given[key] for key in ("optimizer", "learning_rate", "momentum", "weight_decay")}
    recipe |= {"batch": BATCH, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 10}
    card = {"task": preset, "recipe": recipe, "input": {"mean": [0.5], "inverse_std": [4.0]}}
    return Ticket(model.network, init, masks, None, card, model.drawn(0) if seeded else None)


def _largest(weight: Floats, density: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    order = np.argsort(-np.abs(weight), axis=None, kind="stable")
    mask = np.zeros(weight.size, np.bool_)
    mask[order[: max(1, round(density * weight.size))]] = True
    return mask.reshape(weight.shape)


def network_row(name: str, gates: bool) -> dict[str, Any]:
    preset, density, seeded = NETWORKS[name]
    ticket, whole = ticket_of(preset, density, seeded=seeded), ticket_of(preset, 1.0, seeded=False)
    found: dict[str, Any] = {}
    for label, (kind, wanted) in ARTIFACTS.items():
        found[label] = artifact_row(kind, ticket, wanted, gates)
        print(f"  {name}: {label}: {json.dumps(found[label])}", file=sys.stderr, flush=True)
    return {
        "network": name,
        "commit": circumstances()["commit"],
        "live": ticket.live,
        "parameters": sum(parameter.size for parameter in ticket.network.parameters),
        "dense_bytes": {kind: size(written(kind, whole, Wanted())) for kind in DENSE},
        "artifacts": found,
    }


def artifact_row(kind: str, ticket: Ticket, wanted: Wanted, gates: bool) -> dict[str, Any]:
    """Bytes, and what the gate says or the reason why there is none."""
    try:
        content = written(kind, ticket, wanted)
    except TicketError as error:
        return {"refused": str(error)}
    row: dict[str, Any] = {"bytes": size(content)}
    if kind == "onnx":
        return row | {"largest_probability_difference": onnx_difference(ticket, content)}
    return row | gate_row(kind, ticket, wanted, content) if gates else row


def gate_row(kind: str, ticket: Ticket, wanted: Wanted, content: Content) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        passed = judged(kind, ticket, wanted, content)
    except TicketError as error:
        return {"gate_failed": str(error)}
    assert passed is not None
    worst = max(passed.gradients, key=lambda name: passed.gradients[name])
    return {
        "gate": {
            "largest_gradient_error": passed.gradients[worst],
            "of": worst,
            "allowed_there": passed.allowed[worst],
            "largest_finite_difference_error": max(passed.finite_differences.values()),
            "output_difference": passed.outputs,
            "loss_difference": passed.losses,
            "loss_difference_allowed": passed.losses_allowed,
            "seconds": round(time.perf_counter() - begun, 1),
        }
    }


def onnx_difference(ticket: Ticket, content: Content) -> float:
    """Between ONNX Runtime's probabilities and the native core's, on samples at random."""
    import onnxruntime

    x = np.random.default_rng(0).random((BATCH, *ticket.network.input_shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"input": x})
    native = written("native", ticket, Wanted())
    assert isinstance(native, bytes)
    with Trainer.open(native) as trainer:
        return float(np.abs(found - trainer.predict(x)).max())


def mnist(folder: Path) -> dict[str, Any]:
    """A ticket found on MNIST's training images, and one device with the 10,000 test images, of which it trains on 70 %."""
    from server_side.api import find_ticket
    from server_side.data import load_data

    with tempfile.TemporaryDirectory() as scratch:
        found = find_ticket("lenet-300-100", f"idx:{folder}", output_dir=scratch, **SEARCH)
    samples = load_data(f"idx:{folder}", 0, lambda _: None)
    people = Data(np.asarray(samples.x_test), np.asarray(samples.y_test))
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in RUNTIMES:
            path = Path(scratch, f"mnist{FORMATS[kind].suffix}")
            place(written(kind, found.ticket, Wanted()), path)
            for seed in SEEDS:
                settings = Settings(epochs=EPOCHS, seed=seed, checkpoint_every=500)
                (device,) = simulate(path, people, settings, {})["users"]
                runs.setdefault(kind, []).append(device)
                print(f"  MNIST: {kind}: {json.dumps(device)}", file=sys.stderr, flush=True)
    native = runs["native"]
    return {
        "density": found.ticket.density,
        "search": SEARCH,
        "epochs": EPOCHS,
        **{key: native[0][key] for key in ("samples", "held_out", "steps")},
        **{key: {kind: [d[key] for d in devices] for kind, devices in runs.items()} for key in ("before", "after")},
        "largest_difference_points": {
            kind: max(abs(100 * (one["after"] - other["after"])) for one, other in zip(devices, native, strict=True))
            for kind, devices in runs.items()
        },
    }


def print_tables(result: Mapping[str, Any]) -> None:
    """In Markdown, as README has them."""
    print("| ticket | " + " | ".join(f"dense {kind}" for kind in DENSE) + " | " + " | ".join(ARTIFACTS) + " |")
    print("|---" * (1 + len(DENSE) + len(ARTIFACTS)) + "|")
    for row in result["networks"]:
        dense = [f"{row['dense_bytes'][kind]:,}" for kind in DENSE]
        ours = [f"{a['bytes']:,}" if "bytes" in a else "refused" for a in row["artifacts"].values()]
        print(f"| {row['network']} | " + " | ".join([*dense, *ours]) + " |")
    trained = [label for label, (kind, _) in ARTIFACTS.items() if FORMATS[kind].places]
    print("\n| gradient error, loss difference | " + " | ".join(trained) + " |")
    print("|---" * (1 + len(trained)) + "|")
    for row in result["networks"]:
        print(f"| {row['network']} | " + " | ".join(_verdict(row["artifacts"][label]) for label in trained) + " |")
    for row in result["networks"]:
        for label, artifact in row["artifacts"].items():
            if reason := artifact.get("refused") or artifact.get("gate_failed"):
                print(f"\n{row['network']}, {label}: {reason}")
    if "mnist" in result:
        found = result["mnist"]
        print(
            f"\nMNIST, {found['density']:.2%} of LeNet-300-100, {found['steps']} steps, {found['held_out']} images held out"
        )
        for kind, after in found["after"].items():
            away = f"at most {found['largest_difference_points'][kind]:.2f} points from native in {len(after)} seeds"
            print(f"  {kind:<11} {fmean(found['before'][kind]):.2%} -> {fmean(after):.2%}, {away}")


def _verdict(artifact: Mapping[str, Any]) -> str:
    if "gate" in artifact:
        return f"{artifact['gate']['largest_gradient_error']:.1e}, {artifact['gate']['loss_difference']:.1e}"
    return "refused" if "refused" in artifact else "failed" if "gate_failed" in artifact else "not run"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.artifacts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=list(NETWORKS), help="(default: all)")
    parser.add_argument("--mnist", type=Path, default=MNIST, metavar="DIR", help="its four files (%(default)s)")
    parser.add_argument("--no-mnist", action="store_true", help="train nothing on it")
    parser.add_argument("--no-gates", action="store_true", help="bytes alone, which takes a minute")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {"benchmark": "artifacts", **circumstances(), "batch": BATCH}
    before = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"networks": []}
    rows = {row["network"]: row for row in before["networks"]}
    rows |= {name: network_row(name, not arguments.no_gates) for name in arguments.networks}
    result["networks"] = [rows[name] for name in NETWORKS if name in rows]
    if arguments.mnist.is_dir() and not arguments.no_mnist:
        result["mnist"] = {"commit": result["commit"], **mnist(arguments.mnist)}
    elif "mnist" in before:
        result["mnist"] = before["mnist"]
    else:
        print(f"MNIST is left out, or '{arguments.mnist}' not there: nothing is trained on it", file=sys.stderr)
    print_tables(result)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
