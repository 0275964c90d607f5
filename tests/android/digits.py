"""What the app's assets are, without their search: real digits, and networks with a mask drawn at random."""

from __future__ import annotations

from pathlib import Path

from examples.android.make_assets import digits, few_of_each, idx_files, rivals
from export.compact import compact
from export.ticket import Ticket
from export.to_native import to_packed_bytes
from server_side.controls import apply_masks
from server_side.models import load_model
from server_side.seeds import generator

PRESET = "lenet-300-100-digits"
DENSITY = 0.2
CARD = {
    "task": "digits",
    "labels": [str(digit) for digit in range(10)],
    "input": {"mean": [4.88], "inverse_std": [0.166]},
    "recipe": {
        "optimizer": "adam", "batch": 60, "learning_rate": 0.0012, "momentum": 0.0, "weight_decay": 0.0,
        "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 10,
    },
}  # fmt: skip


def write(folder: Path) -> Path:
    x, y, x_test, y_test = digits()
    model = load_model(PRESET, x.shape[1:], 10)
    theta, fresh = ({n: v.numpy() for n, v in model.initial_weights(seed).items()} for seed in (0, 1))
    random = generator(0, "test", "mask")
    masks = {name: random.random(theta[name].shape) < DENSITY for name in model.network.prunable}
    ticket = Ticket(model.network, apply_masks(theta, masks), masks, card=CARD)
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in rivals(ticket, theta, fresh).items():
        (folder / f"{name}.tkt").write_bytes(to_packed_bytes(compact(one)))
    replay = few_of_each(y, 10)
    for name, content in {**idx_files("replay", x[replay], y[replay]), **idx_files("shipped", x_test, y_test)}.items():
        (folder / name).write_bytes(content)
    return folder
