"""What half floats cost: gradients and accuracy of training with `half_activations`, against the same training without.

Two networks on scikit-learn's digits, pruned at random, each trained from several seeds (of initialisation, mask and order
of samples) with float32 and with half activations, all else equal. The gradient's error is that of the first batch, relative
to its norm; accuracies are on a quarter of the digits that no training saw.

    python -m benchmarks.half_activations [--seeds N] [--epochs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.circumstances import circumstances
from device_runtime import Trainer
from export.lower import lower
from export.ticket import Ticket
from export.to_native import to_native_bytes

RESULT = Path(__file__).parent / "results" / "half_activations.json"
DENSITY, BATCH = 0.3, 32


def mlp() -> Any:
    from torch import nn

    layers: list[Any] = [nn.Linear(64, 128), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(128, 128), nn.ReLU()]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers, nn.Linear(128, 10))


def conv_net() -> Any:
    from torch import nn

    def block(channels: int, out: int) -> list[Any]:
        return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    layers = [*block(1, 16), *block(16, 16), nn.MaxPool2d(2), *block(16, 32), *block(32, 32)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "digits MLP": (mlp, (64,)),
    "digits conv net": (conv_net, (1, 8, 8)),
}


def artifact(name: str, seed: int) -> bytes:
    import torch

    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    module = build()
    network = lower(module, shape)
    random = np.random.default_rng(seed)
    masks = {p: random.random(network.parameter_shapes[p]) < DENSITY for p in network.prunable}
    state = module.state_dict()
    scale = {p: mask * np.float32(DENSITY**-0.5) for p, mask in masks.items()}  # a pruned layer's output keeps its size
    init = {p.name: state[p.name].numpy() * scale.get(p.name, np.float32(1)) for p in network.parameters}
    recipe = {"optimizer": "sgd", "batch": BATCH, "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0}
    recipe |= {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 1}
    card = {"task": "benchmark", "recipe": recipe, "input": {"mean": [8.0], "inverse_std": [0.125]}}
    return to_native_bytes(Ticket(network, init, masks, None, card))


def run(name: str, seed: int, epochs: int) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images.astype(np.float32).reshape(-1, *NETWORKS[name][1])
    y = digits.target.astype(np.int32)
    test = np.random.default_rng(0).permutation(len(y)) % 4 == 0
    content = artifact(name, seed)
    row: dict[str, Any] = {"network": name, "seed": seed}
    gradients = []
    for key, half in (("float32", False), ("half", True)):
        with Trainer.open(content, seed=seed, half_activations=half) as trainer:
            trainer.compute_gradients(x[:BATCH], y[:BATCH])
            gradients.append(trainer.gradients)
            trainer.fit(x[~test], y[~test], epochs=epochs)
            row[key] = {"accuracy": trainer.evaluate(x[test], y[test]).accuracy, "arena_bytes": trainer.arena_bytes}
    whole, rounded = (gradient.astype(np.float64) for gradient in gradients)
    row["gradient_error"] = float(np.linalg.norm(rounded - whole) / np.linalg.norm(whole))
    return row


def measure(seeds: int, epochs: int) -> dict[str, Any]:
    rows = [run(name, seed, epochs) for name in NETWORKS for seed in range(seeds)]
    return {"benchmark": "half_activations", **circumstances(), "epochs": epochs, "rows": rows}


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['device']}; {result['epochs']} epochs, mean and standard deviation over the seeds\n")
    print(f"  {'network':<17}{'seeds':>6}{'gradient error':>16}{'float32':>18}{'half':>18}{'arena bytes':>24}")
    for name in NETWORKS:
        rows = [row for row in result["rows"] if row["network"] == name]
        error = np.mean([row["gradient_error"] for row in rows])
        line = f"  {name:<17}{len(rows):>6}{error:>16.1e}"
        for key in ("float32", "half"):
            accuracies = [row[key]["accuracy"] for row in rows]
            line += f"{np.mean(accuracies):>10.2%} ±{np.std(accuracies):>6.2%}"
        print(f"{line}{rows[0]['float32']['arena_bytes']:>12,} ->{rows[0]['half']['arena_bytes']:>9,}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.half_activations", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="trainings of each kind (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="passes over the digits (%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    result = measure(arguments.seeds, arguments.epochs)
    print_table(result)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
