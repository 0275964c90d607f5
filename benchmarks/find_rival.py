"""open_lth (github.com/facebookresearch/open_lth), the usual framework for finding tickets, as a peer of a search.

Its own model with its own mask, loader, optimizer and training loop, in which a callback of ours counts steps. No code of it
is here. It is of 2020: a copy of the checkout is changed in PATCHES, without which it starts on no present PyTorch or NumPy,
and a torchvision that was built for another torch is loaded without its detection operators, which nothing here uses.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from server_side.data import Array, Dataset
from server_side.prune import Masks
from server_side.training import Recipe

# By file: what stands there, what replaces it. A base class that is no longer compatible, and a name that NumPy 2 removed.
PATCHES = {
    "models/base.py": ("class Model(abc.ABC, torch.nn.Module)", "class Model(torch.nn.Module, abc.ABC)"),
    "training/optimizers.py": ("np.product(", "np.prod("),
}
LAYERS = {"fc1": "fc_layers.0", "fc2": "fc_layers.1", "output": "fc"}  # our names, its names


class RivalError(Exception):
    """A checkout that is none, or what it needs is not installed; the text is one line."""


def check(checkout: Path) -> None:
    """Raises RivalError unless it can take part."""
    if importlib.util.find_spec("torchvision") is None:
        raise RivalError("open_lth needs torchvision; install the one of this torch")
    for name, (there, _) in PATCHES.items():
        path = checkout / name
        if not path.is_file() or path.read_text().count(there) != 1:
            raise RivalError(f"'{checkout}' is no checkout of open_lth: {name} has no '{there}'")


def open_lth(
    checkout: Path, data: Dataset, recipe: Recipe, masks: Masks, scratch: Path, evaluated: int
) -> Callable[[Callable[[], None]], None]:
    """Its training of LeNet-300-100 by `recipe`, ready to begin; calls what it is given before each step. Every
    recipe.evaluate_every steps its own callback measures the first `evaluated` of the test samples; 0: it measures none."""
    check(checkout)
    copy = scratch / "open_lth"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
    for name, (there, instead) in PATCHES.items():
        path = copy / name
        path.write_text(path.read_text().replace(there, instead))
    sys.path.insert(0, str(copy))
    _load_torchvision()
    importlib.import_module("cli.runner_registry")  # first: its modules import each other in a ring
    names = ("datasets.mnist", "models.registry", "pruning.mask", "pruning.pruned_model", "training.train")
    mnist, models, mask, pruned_model, training = map(importlib.import_module, names)
    hparams = importlib.import_module("foundations.hparams")
    platform: Any = importlib.import_module("platforms.platform")
    platform._PLATFORM = importlib.import_module("platforms.local").Platform()

    def loader_of(x: Array, y: Array) -> Any:
        return mnist.DataLoader(mnist.Dataset(torch.tensor(x), torch.tensor(y)), batch_size=recipe.batch, num_workers=0)

    loader = loader_of(data.x_train, data.y_train)
    model = models.get(hparams.ModelHparams("mnist_lenet_300_100", "kaiming_normal", "uniform"))
    theirs = {f"{LAYERS[name.removesuffix('.weight')]}.weight": value.astype(int) for name, value in masks.items()}
    pruned = pruned_model.PrunedModel(model, mask.Mask(theirs))
    settings = hparams.TrainingHparams("adam", recipe.learning_rate, f"{recipe.steps}it", data_order_seed=0)

    measured = loader_of(data.x_test[:evaluated], data.y_test[:evaluated]) if evaluated else None
    measure = importlib.import_module("training.standard_callbacks").create_eval_callback("test", measured)

    def measure_when_due(output: str, step: Any, *state: Any) -> None:
        if evaluated and step.iteration % recipe.evaluate_every == 0:
            measure(output, step, *state)

    def train(before_step: Callable[[], None]) -> None:
        callbacks = [measure_when_due, lambda *state: before_step()]
        training.train(settings, pruned, loader, str(scratch / "output"), callbacks)

    return train


def _load_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # its operators are not those of this torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = ModuleType("_meta_registrations")
        importlib.import_module("torchvision")
