"""Initial weights from the generator of devices instead of torch's, with the distributions of the model's own initialisation.

They are found by watching one run of the factory: the last fill of a parameter's whole memory, by one of FILLS, says what it
was drawn from. A parameter that anything else has written, or read since, is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from device_runtime import draw
from export.drawn import Distribution, Drawn
from export.network import Network
from server_side.errors import UsageError

Named = Mapping[str, Any]  # arguments of a call by their names
aten = torch.ops.aten


def _constant(value: Any) -> Distribution:
    return Distribution("constant", value.item() if isinstance(value, torch.Tensor) else value)


FILLS: Mapping[Any, Callable[[Named], Distribution]] = {
    aten.uniform_: lambda named: Distribution("uniform", named["from"], named["to"]),
    aten.normal_: lambda named: Distribution("normal", named["mean"], named["std"]),
    aten.normal: lambda named: Distribution("normal", named["mean"], named["std"]),
    aten.fill_: lambda named: _constant(named["value"]),
    **dict.fromkeys((aten.full, aten.full_like, aten.new_full), lambda named: _constant(named["fill_value"])),
    **dict.fromkeys((aten.zero_, aten.zeros, aten.zeros_like, aten.new_zeros), lambda named: _constant(0)),
    **dict.fromkeys((aten.ones, aten.ones_like, aten.new_ones), lambda named: _constant(1)),
    **dict.fromkeys((aten.rand, aten.rand_like), lambda named: Distribution("uniform", 0, 1)),
    **dict.fromkeys((aten.randn, aten.randn_like), lambda named: Distribution("normal", 0, 1)),
}
READ_NO_VALUES = {*FILLS, aten.empty_like, aten.new_empty, aten.new_empty_strided}
REMEDY = (
    "give it its values at last by one uniform_, normal_ or constant of torch.nn.init, as its xavier_ and kaiming_ do, or leave "
    "init_from_seed out"
)


@dataclass(frozen=True)
class _Memory:
    """A tensor's memory: what it was filled from, or why that is not known, and what the fill left there."""

    storage: torch.UntypedStorage  # held, so that no other has its number meanwhile
    origin: Distribution | str
    values: torch.Tensor | None = None


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what fills memory while it is entered; `distributions` then tells what a module's parameters were drawn from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memories: dict[int, _Memory] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema, named = function._schema.arguments, dict(kwargs or {})
        named |= {argument.name: value for argument, value in zip(schema, args, strict=False)}
        result = function(*args, **(kwargs or {}))
        for argument in schema:
            written = argument.alias_info is not None and argument.alias_info.is_write
            is_view = argument.alias_info is not None and not written
            for tensor in _tensors(named.get(argument.name)):
                if written or not (is_view or function.overloadpacket in READ_NO_VALUES):
                    self._note(tensor, f"{'written' if written else 'read'} by {function.overloadpacket}", written)
        if function.overloadpacket in FILLS and isinstance(result, torch.Tensor):
            defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
            self._fill(result, FILLS[function.overloadpacket], {**defaults, **named})
        return result

    def _note(self, tensor: torch.Tensor, what: str, written: bool) -> None:
        """A read matters of what is known alone."""
        storage = tensor.untyped_storage()
        if written or storage._cdata in self._memories:
            self._memories[storage._cdata] = _Memory(storage, what)

    def _fill(self, tensor: torch.Tensor, read: Callable[[Named], Distribution], named: Named) -> None:
        if not _is_whole(tensor):
            return self._note(tensor, "filled in parts", True)
        try:
            origin = read(named)
        except ValueError:
            return self._note(tensor, "filled with what is no distribution of finite numbers", True)
        storage = tensor.untyped_storage()
        self._memories[storage._cdata] = _Memory(storage, origin, _flat(tensor).clone())
        return None

    def distributions(self, model: str, module: nn.Module, network: Network) -> dict[str, Distribution]:
        """Of every parameter of the network, running statistics included, in its order; raises UsageError naming one that
        was not drawn by a fill alone."""
        values = dict([*module.named_parameters(), *module.named_buffers()])
        found = {}
        for name in network.parameter_shapes:
            origin = self._origin(values[name])
            if isinstance(origin, str):
                raise UsageError(f"model '{model}': init_from_seed cannot draw '{name}', which was {origin}; {REMEDY}")
            found[name] = origin
        return found

    def _origin(self, tensor: torch.Tensor) -> Distribution | str:
        memory = self._memories.get(tensor.untyped_storage()._cdata)
        if memory is None or not _is_whole(tensor):
            return "computed, or made of other memory" if memory is None else "cut out of a larger tensor"
        if memory.values is not None and not torch.equal(memory.values, _flat(tensor)):
            return "changed behind torch's back"  # through numpy
        return memory.origin


def draw_weights(network: Network, drawn: Drawn) -> dict[str, torch.Tensor]:
    """Every parameter as devices draw it, float32 on the CPU."""
    weights = {}
    for stream, (name, shape) in enumerate(network.parameter_shapes.items()):
        origin = drawn.distributions[name]
        values = draw(drawn.seed, stream, origin.kind, origin.a, origin.b, math.prod(shape))
        weights[name] = torch.from_numpy(values.reshape(shape))
    return weights


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    for each in value if isinstance(value, list | tuple) else (value,):
        if isinstance(each, torch.Tensor) and each.layout == torch.strided:  # others have no memory to fill
            yield each


def _is_whole(tensor: torch.Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All of its memory, in the order of that."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), 0)
