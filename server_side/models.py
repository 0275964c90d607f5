"""Models to search in: a preset (presets.py), or `package.module:factory` for one's own nn.Module.

A factory returns a freshly initialised module each time it is called and draws from torch's global generator alone, so
that a seed fixes its weights; one that does not is refused.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from export.drawn import Distribution, Drawn
from export.lower import lower
from export.network import Network, NetworkError
from server_side.data import call, import_object
from server_side.drawn import Watching, draw_weights
from server_side.errors import UsageError
from server_side.presets import PRESETS

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A factory and the network it lowers to, checked before anything is trained. With `distributions` the generator of
    devices draws its weights from these, by their names, and torch does not."""

    name: str
    factory: Callable[[], nn.Module]
    network: Network
    distributions: Mapping[str, Distribution] | None = None

    def initial_weights(self, seed: int) -> Weights:
        """Fresh weights of `seed`, running statistics included, float32 on the CPU; the state of torch's CPU generator is
        as before. Raises UsageError where the factory fails, builds another network or gives NaN or infinity."""
        if (drawn := self.drawn(seed)) is not None:
            return draw_weights(self.network, drawn)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _built(self.name, self.factory)
        values = dict([*module.named_parameters(), *module.named_buffers()])
        shapes = self.network.parameter_shapes
        if {name: tuple(values[name].shape) for name in shapes if name in values} != shapes:
            raise UsageError(f"model '{self.name}': its factory gives another network when called again; give the same")
        weights = {n: v.detach().to("cpu", torch.float32).clone() for n, v in values.items() if n in shapes}
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise UsageError(
                    f"model '{self.name}': its factory gives '{name}' with NaN or infinite weights (seed {seed}); mend its "
                    "initialisation"
                )
        return weights

    def drawn(self, seed: int) -> Drawn | None:
        """What the initial weights of `seed` are drawn from; None where torch draws them."""
        return None if self.distributions is None else Drawn(seed, self.distributions)

    def from_seed(self) -> Model:
        """The same with weights that a seed is enough for, drawn from the distributions of the factory. Raises UsageError
        naming a parameter that was not simply drawn."""
        with torch.random.fork_rng(devices=[]), Watching() as watching:
            torch.manual_seed(0)
            module = _built(self.name, self.factory)
        return replace(self, distributions=watching.distributions(self.name, module, self.network))

    def fingerprint(self, seed: int) -> str:
        """A SHA-256 of the graph and of the initial weights of `seed`: the same whenever it is the same model."""
        digest = hashlib.sha256(json.dumps(self.network.to_json(), sort_keys=True).encode())
        for name, value in sorted(self.initial_weights(seed).items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()


def load_model(
    source: str,
    input_shape: tuple[int, ...],
    classes: int,
    width: float | None = None,
    given: Callable[[], nn.Module] | None = None,
) -> Model:
    """Builds and lowers `source`, or the `given` factory under that name; raises UsageError naming the module a device cannot
    train, or a factory whose weights a seed does not fix. With `width` its hidden widths are multiplied by that; what has no
    argument `width` is refused."""
    factory: Callable[..., nn.Module]
    preset = PRESETS.get(source) if given is None else None
    if given is not None:
        factory = given
    elif preset is not None:
        preset.check_input(source, input_shape)
        factory = partial(preset.build, input_shape, classes)
    elif ":" in source:
        factory = import_object(source, "model")
    else:
        raise UsageError(f"model '{source}': expected one of {', '.join(PRESETS)} or package.module:factory")
    if width is not None:
        factory = _widened(source, factory, width)
    try:
        network = lower(_built(source, factory), input_shape)
    except NetworkError as error:
        raise UsageError(f"model '{source}': {error}") from error
    if preset is not None and width is None:
        preset.check(source, network)
    if network.output_shape != (classes,):
        raise UsageError(f"model '{source}': {network.output_shape[0]} outputs, but the data has {classes} classes")
    if not network.prunable:
        raise UsageError(f"model '{source}': no layer with prunable weights")
    model = Model(source, factory, network)
    _check_seeded(model)
    return model


def _widened(source: str, factory: Callable[..., nn.Module], width: float) -> Callable[[], nn.Module]:
    if not 0 < width < float("inf"):
        raise UsageError(f"width {width}: must be a factor above 0, e.g. 0.5")
    try:
        known = "width" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # no signature to be had
        known = False
    if not known:
        with_width = ", ".join(n for n, p in PRESETS.items() if "width" in inspect.signature(p.build).parameters)
        raise UsageError(
            f"model '{source}': cannot be had in other widths; give its factory an argument width, a factor of all hidden "
            f"widths that is 1 by default, or search in one of {with_width}"
        )
    return partial(factory, width=width)


def _built(name: str, factory: Callable[[], Any]) -> nn.Module:
    module = call(factory, name, "model")
    if not isinstance(module, nn.Module):
        raise UsageError(f"model '{name}': the factory returned {type(module).__name__}, not a torch.nn.Module")
    return module


def _check_seeded(model: Model) -> None:
    """Equal seeds must give equal weights, and others others: replicates and reinit controls live by it."""
    remedy = "; draw all weights from torch's global generator, not from numpy, random, a file or a fixed seed"
    first, again, other = (model.initial_weights(seed) for seed in (0, 0, 1))
    for name, value in first.items():
        if not torch.equal(value, again[name]):
            raise UsageError(
                f"model '{model.name}': its factory gives other weights '{name}' for the same seed{remedy}"
            )
    for name in model.network.prunable:
        same = torch.equal(first[name], other[name]) and not (first[name] == first[name].flatten()[0]).all()
        if same:
            raise UsageError(
                f"model '{model.name}': its factory gives the same weights '{name}' for every seed{remedy}"
            )
    if all(torch.equal(first[name], other[name]) for name in model.network.prunable):
        raise UsageError(f"model '{model.name}': its factory gives the same weights for every seed{remedy}")
