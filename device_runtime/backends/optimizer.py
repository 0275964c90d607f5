"""SGD, Adam and AdamW as FORMAT.md has them, over arrays that a runtime trains; for runtimes whose own have no state to save.

A fused multiply-add is taken in float64 and rounded to float32 after it: where that rounds twice, a last bit may be another
than the core's. Refuses settings out of range as InvalidInput.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from device_runtime.backends.engine import check_floats
from device_runtime.engine import Floats
from device_runtime.errors import CorruptCheckpoint, InvalidInput

SMALLEST_NORMAL = np.float32(2.0**-126)
BELOW_ONE, FINITE = "at least 0 and below 1", "finite and at least 0"
RANGES = {"momentum": BELOW_ONE, "beta1": BELOW_ONE, "beta2": BELOW_ONE, "weight_decay": FINITE, "clip_norm": FINITE}
OPTIONS = frozenset({"optimizer", "nesterov", "epsilon", *RANGES})


class Optimizer(ABC):
    """Works in place on the float32 `values`, arrays by name; `state` is all there is to save beside them."""

    moments: ClassVar[tuple[str, ...]]

    def __init__(self, values: Mapping[str, Floats], settings: Mapping[str, Any]) -> None:
        self.values = values
        self.settings = {n: float(np.float32(v)) for n, v in settings.items() if n in RANGES or n == "epsilon"}
        self.nesterov = bool(settings["nesterov"])
        self.load({})

    def step(self, learning_rate: float, gradients: Mapping[str, Floats]) -> None:
        """One update; `gradients` in the order of `values`."""
        factor = self._clip_factor(gradients)
        self._begin(float(np.float32(learning_rate)))
        with np.errstate(over="ignore"):  # a checkpoint refuses what is not finite
            for name, value in self.values.items():
                gradient = gradients[name] if factor is None else gradients[name] * factor
                self._update(name, value, gradient)

    def state(self) -> dict[str, Floats]:
        return {f"{moment}/{name}": array for moment in self.moments for name, array in self._arrays[moment].items()}

    def load(self, state: Mapping[str, Floats]) -> None:
        """What `state` gave, or nothing: that of step 0."""
        self._arrays = {
            moment: {
                name: state[f"{moment}/{name}"].copy() if state else np.zeros_like(value)
                for name, value in self.values.items()
            }
            for moment in self.moments
        }

    def check(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Raises CorruptCheckpoint unless `state`, which has the arrays of the present one, is such as training can leave it."""
        present = self.state()
        for name, array in state.items():
            check_floats(f"optimizer state '{name}'", array, present[name])

    @abstractmethod
    def _begin(self, learning_rate: float) -> None: ...

    @abstractmethod
    def _update(self, name: str, value: Floats, gradient: Floats) -> None: ...

    def _clip_factor(self, gradients: Mapping[str, Floats]) -> np.float32 | None:
        limit = self.settings["clip_norm"]
        if limit == 0:
            return None
        squares = sum(float((gradients[name].astype(np.float64) ** 2).sum()) for name in self.values)
        factor = limit / (math.sqrt(squares) + 1e-6)
        return np.float32(factor) if factor < 1 else None

    def _moved(self, moment: str, name: str, factor: float, added: Floats) -> Floats:
        """The moment after `factor * moment + added`."""
        new = _fma(factor, self._arrays[moment][name], added)
        new[np.abs(new) < SMALLEST_NORMAL] = 0
        self._arrays[moment][name] = new
        return new


class Sgd(Optimizer):
    """Without momentum."""

    moments: ClassVar[tuple[str, ...]] = ()

    def _begin(self, learning_rate: float) -> None:
        self._rate = learning_rate

    def _update(self, name: str, value: Floats, gradient: Floats) -> None:
        value[...] = _fma(
            -self._rate, self._direction(name, _fma(self.settings["weight_decay"], value, gradient)), value
        )

    def _direction(self, name: str, gradient: Floats) -> Floats:
        return gradient


class Momentum(Sgd):
    """SGD with momentum, Nesterov's where asked for."""

    moments = ("velocity",)

    def _direction(self, name: str, gradient: Floats) -> Floats:
        momentum = self.settings["momentum"]
        velocity = self._moved("velocity", name, momentum, gradient)
        return _fma(momentum, velocity, gradient) if self.nesterov else velocity


class Adam(Optimizer):
    """With L2 decay, or as AdamW with the values shrunk."""

    moments = ("first", "second")

    def __init__(self, values: Mapping[str, Floats], settings: Mapping[str, Any]) -> None:
        self.decoupled = settings["optimizer"] == "adamw"
        super().__init__(values, settings)

    def state(self) -> dict[str, Floats]:
        return super().state() | {"powers": np.array(self._powers)}

    def check(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().check(state)
        below = [name for name, array in state.items() if name.startswith("second/") and (array < 0).any()]
        powers = state["powers"]
        if below or not ((powers == 1).all() or ((powers >= 0) & (powers < 1)).all()):
            name = below[0] if below else "powers"
            raise CorruptCheckpoint(f"the checkpoint's optimizer state '{name}' cannot be; take an older one")

    def load(self, state: Mapping[str, Floats]) -> None:
        super().load(state)
        self._powers = [float(power) for power in state["powers"]] if state else [1.0, 1.0]

    def _begin(self, learning_rate: float) -> None:
        betas, decay = (self.settings["beta1"], self.settings["beta2"]), self.settings["weight_decay"]
        self._powers = [power * beta for power, beta in zip(self._powers, betas, strict=True)]
        first, second = self._powers
        self._step_size = np.float32(learning_rate / (1 - first))
        self._inverse_sqrt = np.float32(1 / math.sqrt(1 - second))
        self._keep = np.float32(1 - learning_rate * decay if self.decoupled else 1)
        self._l2 = 0.0 if self.decoupled else decay

    def _update(self, name: str, value: Floats, gradient: Floats) -> None:
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        g = _fma(self._l2, value, gradient)
        first = self._moved("first", name, beta1, np.float32(1 - np.float32(beta1)) * g)
        second = self._moved("second", name, beta2, np.float32(1 - np.float32(beta2)) * (g * g))
        spread = np.sqrt(second) * self._inverse_sqrt + np.float32(self.settings["epsilon"])
        value[...] = value * self._keep - self._step_size * (first / spread)


def optimizer_of(values: Mapping[str, Floats], settings: Mapping[str, Any]) -> Optimizer:
    """The one that `settings` ask for; raises InvalidInput for what it cannot be."""
    kinds: dict[str, type[Optimizer]] = {"sgd": Sgd, "adam": Adam, "adamw": Adam}
    if settings["optimizer"] not in kinds:
        raise InvalidInput(f"optimizer {settings['optimizer']!r} is not known; choose {', '.join(kinds)}")
    for name, allowed in RANGES.items():
        most = 1.0 if allowed == BELOW_ONE else math.inf
        if type(settings[name]) not in (int, float) or not 0 <= np.float32(settings[name]) < most:
            raise InvalidInput(f"{name} {settings[name]!r} must be {allowed}")
    epsilon = settings["epsilon"]
    if type(epsilon) not in (int, float) or not 0 < np.float32(epsilon) < math.inf:
        raise InvalidInput(f"epsilon {epsilon!r} must be finite and above 0")
    if type(settings["nesterov"]) is not bool or (settings["nesterov"] and settings["momentum"] == 0):
        raise InvalidInput(f"nesterov {settings['nesterov']!r} must be False, or True with a momentum above 0")
    chosen = Momentum if settings["optimizer"] == "sgd" and settings["momentum"] > 0 else kinds[settings["optimizer"]]
    return chosen(values, settings)


def _fma(factor: float, array: Floats, added: Floats) -> Floats:
    return np.asarray(array.astype(np.float64) * factor + added, np.float32)
