"""What each operator of an exported graph becomes on a device: one rule a name, settings and all.

A rule adds operators to the network or refuses, naming the module, the setting and the remedy; it never approximates.
It knows torch's names and arguments, yet needs no torch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.operators import NetworkError, Setting, Shape

if TYPE_CHECKING:
    from export.lower import _Lowering as Lowering


class UnsupportedOperator(NetworkError):
    """The module uses something a device cannot train; the text names the module's path, the operator and the remedy."""


@dataclass(frozen=True)
class Call:
    """One operator of an exported graph, its arguments by name, and the module it came from."""

    node: Any
    operator: str
    arguments: Mapping[str, Any]
    path: str
    kind: str

    def refused(self, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"module '{self.path}' ({self.kind}): {self.node.target} {why}")


Rule = Callable[["Lowering", Call], None]


def _plain(op: str) -> Rule:
    """An operator of one tensor and no settings."""
    return lambda lowering, call: lowering.add(call, op, [lowering.buffer(call, _first(call))])


def _first(call: Call) -> Any:
    """What it works on; schemas call it self, input or x."""
    return call.node.args[0]


def _keep(lowering: Lowering, call: Call) -> None:
    lowering.keep(call, _first(call))


def _linear(lowering: Lowering, call: Call) -> None:
    lowering.add(call, "linear", [lowering.buffer(call, _first(call))], _with_bias(call))


def _with_bias(call: Call) -> tuple[str, ...]:
    return ("weight", "bias") if call.arguments["bias"] is not None else ("weight",)


def _sum(lowering: Lowering, call: Call) -> None:
    if call.arguments["alpha"] != 1:
        raise call.refused(f"with alpha={call.arguments['alpha']}; scale before adding")
    _product("add")(lowering, call)


def _product(op: str) -> Rule:
    def rule(lowering: Lowering, call: Call) -> None:
        lowering.add(call, op, [lowering.buffer(call, x) for x in (_first(call), call.arguments["other"])])

    return rule


def _concat(lowering: Lowering, call: Call) -> None:
    tensors = call.arguments["tensors"]
    if call.arguments["dim"] % len(call.node.meta["val"].shape) != 1:
        raise call.refused(f"along dimension {call.arguments['dim']}; a device concatenates along dimension 1")
    if len(tensors) == 1:
        lowering.keep(call, tensors[0])
    else:
        lowering.add(call, "concat", [lowering.buffer(call, tensor) for tensor in tensors])


def _conv(lowering: Lowering, call: Call) -> None:
    a = call.arguments
    x, kernel = _first(call), a["weight"].meta["val"].shape[2:]
    _check_rank(lowering, call, x, len(kernel))
    dilation = _each(a["dilation"], len(kernel))
    settings = {"kernel": kernel, "stride": _each(a["stride"], len(kernel)), "pad": _padding(call, kernel, dilation)}
    attrs = {**_window(settings), **_window({"dilation": dilation}), "groups": int(a["groups"])}
    lowering.add(call, "conv", [lowering.buffer(call, x)], _with_bias(call), attrs)


def _padding(call: Call, kernel: Shape, dilation: Shape) -> Shape:
    padding = call.arguments["padding"]
    if padding == "valid":
        return (0,) * len(kernel)
    if padding != "same":
        return _each(padding, len(kernel))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in reach):
        raise call.refused(
            f"with padding='same' and a kernel of {tuple(kernel)} pads one side more; take an odd kernel"
        )
    return tuple(total // 2 for total in reach)


def _each(value: Any, count: int) -> Shape:
    """One whole number for each dimension, where torch takes one for all."""
    values = [value] if isinstance(value, int) else value
    return tuple(values) if len(values) == count else tuple(values) * count


def _window(settings: Mapping[str, Shape]) -> dict[str, Setting]:
    """`kernel_h`, `kernel_w` and so on; along the height that a sample of rank 2 does not have, nothing happens."""
    nothing = {"kernel": 1, "stride": 1, "dilation": 1, "pad": 0}
    attrs: dict[str, Setting] = {}
    for name, value in settings.items():
        attrs[f"{name}_h"], attrs[f"{name}_w"] = (nothing[name], *value)[-2:]
    return attrs


def _check_rank(lowering: Lowering, call: Call, x: Any, positions: int) -> None:
    shape = lowering.view(call, x).shape
    if len(shape) != positions + 1:
        raise call.refused(f"of samples of shape {shape}; give them a dimension of channels, by unsqueeze(1) for one")


def _batch_norm(lowering: Lowering, call: Call) -> None:
    a = call.arguments
    attrs = {"epsilon": float(a["eps"]), "momentum": float(a["momentum"]), "frozen": int(not a["training"])}
    roles = ("weight", "bias", "running_mean", "running_var")
    lowering.add(call, "batch_norm", [lowering.buffer(call, _first(call))], roles, attrs)


def _layer_norm(lowering: Lowering, call: Call) -> None:
    a = call.arguments
    if (a["weight"] is None) != (a["bias"] is None):
        raise call.refused("with a weight or a bias alone; a device has both or none, set bias=True")
    attrs = {"epsilon": float(a["eps"]), "dimensions": len(a["normalized_shape"])}
    roles = ("weight", "bias") if a["weight"] is not None else ()
    lowering.add(call, "layer_norm", [lowering.buffer(call, _first(call))], roles, attrs)


def _leaky_relu(lowering: Lowering, call: Call) -> None:
    attrs = {"slope": float(call.arguments["negative_slope"])}
    lowering.add(call, "leaky_relu", [lowering.buffer(call, _first(call))], (), attrs)


def _hardtanh(lowering: Lowering, call: Call) -> None:
    low, high = call.arguments["min_val"], call.arguments["max_val"]
    if (low, high) != (0, 6):
        raise call.refused(f"between {low} and {high}; a device has it between 0 and 6 (relu6)")
    lowering.add(call, "relu6", [lowering.buffer(call, _first(call))])


def _gelu(lowering: Lowering, call: Call) -> None:
    approximation = {"none": 0, "tanh": 1}[call.arguments["approximate"]]
    lowering.add(call, "gelu", [lowering.buffer(call, _first(call))], (), {"approximation": approximation})


def _softmax(lowering: Lowering, call: Call) -> None:
    x, dim = _first(call), call.arguments["dim"]
    shape = lowering.view(call, x).shape
    if len(shape) != 1 or dim not in (1, -1) or call.arguments["dtype"] is not None:
        raise call.refused(f"over dimension {dim} of samples of shape {shape}; a device has it over flat samples")
    lowering.add(call, "softmax", [lowering.buffer(call, x)])


def _dropout(lowering: Lowering, call: Call) -> None:
    x, probability = _first(call), float(call.arguments["p"])
    if probability == 0 or not call.arguments["train"]:
        lowering.keep(call, x)
    else:
        lowering.add(call, "dropout", [lowering.buffer(call, x)], (), {"probability": probability})


def _embedding(lowering: Lowering, call: Call) -> None:
    a = call.arguments
    if a["padding_idx"] != -1 or a["scale_grad_by_freq"] or a["sparse"]:
        raise call.refused("with padding_idx, scale_grad_by_freq or sparse; leave them out")
    lowering.add(call, "embedding", [lowering.buffer(call, a["indices"])], ("weight",))


def _pool(positions: int, op: str) -> Rule:
    def rule(lowering: Lowering, call: Call) -> None:
        a = call.arguments
        if a["ceil_mode"]:
            raise call.refused("with ceil_mode; a device rounds sizes down, set ceil_mode=False and pad")
        if any(size != 1 for size in _each(a.get("dilation", 1), positions)):
            raise call.refused(f"with dilation {a['dilation']}; a device pools what lies side by side, set dilation=1")
        if a.get("divisor_override") is not None:
            raise call.refused(
                f"with divisor_override {a['divisor_override']}; leave it out, a mean divides by its count"
            )
        kernel = _each(a["kernel_size"], positions)
        settings = {
            "kernel": kernel,
            "stride": _each(a["stride"] or kernel, positions),
            "pad": _each(a["padding"], positions),
        }
        attrs = _window(settings)
        if op == "avg_pool":
            attrs["count_include_pad"] = int(a["count_include_pad"])
        _check_rank(lowering, call, _first(call), positions)
        lowering.add(call, op, [lowering.buffer(call, _first(call))], (), attrs)

    return rule


def _adaptive_pool(positions: int) -> Rule:
    def rule(lowering: Lowering, call: Call) -> None:
        x, wanted = _first(call), _each(call.arguments["output_size"], positions)
        _check_rank(lowering, call, x, positions)
        sizes = lowering.view(call, x).shape[1:]
        if any(size % out for size, out in zip(sizes, wanted, strict=True)):
            raise call.refused(f"from {sizes} to {wanted} in windows of unequal size; choose sizes that divide evenly")
        if wanted == sizes:
            lowering.keep(call, x)
        elif wanted == (1,) * positions:
            lowering.add(call, "global_avg_pool", [lowering.buffer(call, x)])
        else:
            window = tuple(size // out for size, out in zip(sizes, wanted, strict=True))
            lowering.add(call, "avg_pool", [lowering.buffer(call, x)], (), _mean_window(window))

    return rule


def _mean_window(window: Shape) -> dict[str, Setting]:
    pad = (0,) * len(window)
    return {**_window({"kernel": window, "stride": window, "pad": pad}), "count_include_pad": 1}


def _mean(lowering: Lowering, call: Call) -> None:
    """Over trailing dimensions a global pool, over others a pool of windows as high as they are."""
    x = _first(call)
    shape = lowering.view(call, x).shape
    dims = sorted(dim % (len(shape) + 1) for dim in call.arguments["dim"] or ())
    if not dims or dims[0] == 0 or dims != list(range(dims[0], dims[-1] + 1)) or call.arguments["dtype"] is not None:
        raise call.refused(f"over dimensions {call.arguments['dim']}; take neighbouring ones, and never the batch")
    parts = shape[: dims[0] - 1], shape[dims[0] - 1 : dims[-1]], shape[dims[-1] :]
    before, over, after = (math.prod(part) for part in parts)
    if after > 1:
        pooled = lowering.buffer(call, x, (before, over, after))
        lowering.add(call, "avg_pool", [pooled], (), _mean_window((over, 1)))
    else:
        image = shape if dims[0] == 2 and len(shape) <= 3 and not parts[2] else (before, over)
        lowering.add(call, "global_avg_pool", [lowering.buffer(call, x, image)])


def _slice(lowering: Lowering, call: Call) -> None:
    """`x[:, None]` begins with a slice of everything."""
    x = _first(call)
    if tuple(map(str, x.meta["val"].shape)) != tuple(map(str, call.node.meta["val"].shape)):
        raise call.refused("takes a part; a device has no operator for it")
    lowering.keep(call, x)


def _convert(lowering: Lowering, call: Call) -> None:
    """Samples are f32 on a device, and an embedding takes whole numbers out of them by itself."""
    x, result = _first(call), call.node
    same = x.meta["val"].dtype == result.meta["val"].dtype
    for_embedding = all(str(user.target) == "aten.embedding.default" for user in result.users)
    if not same and not lowering.is_whole(x) and not (lowering.is_whole(result) and for_embedding):
        raise call.refused(f"to {result.meta['val'].dtype}; a device computes in float32")
    lowering.keep(call, x)


RULES: Mapping[str, Rule] = {
    "aten.linear.default": _linear,
    "aten.relu.default": _plain("relu"),
    **dict.fromkeys(
        (
            "aten.flatten.using_ints",
            "aten.unflatten.int",
            "aten.view.default",
            "aten._unsafe_view.default",
            "aten.view_as.default",
            "aten.reshape.default",
            "aten.reshape_as.default",
            "aten.unsqueeze.default",
            "aten.squeeze.default",
            "aten.squeeze.dim",
            "aten.squeeze.dims",
            "aten.clone.default",
        ),
        _keep,
    ),
    "aten.slice.Tensor": _slice,
    **dict.fromkeys(("aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default"), _convert),
    "aten.add.Tensor": _sum,
    "aten.mul.Tensor": _product("mul"),
    **dict.fromkeys(("aten.cat.default", "aten.concat.default", "aten.concatenate.default"), _concat),
    **dict.fromkeys(
        ("aten.conv1d.default", "aten.conv1d.padding", "aten.conv2d.default", "aten.conv2d.padding"), _conv
    ),
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.leaky_relu.default": _leaky_relu,
    "aten.relu6.default": _plain("relu6"),
    "aten.hardtanh.default": _hardtanh,
    "aten.hardswish.default": _plain("hardswish"),
    "aten.sigmoid.default": _plain("sigmoid"),
    "aten.tanh.default": _plain("tanh"),
    "aten.gelu.default": _gelu,
    "aten.max_pool1d.default": _pool(1, "max_pool"),
    "aten.max_pool2d.default": _pool(2, "max_pool"),
    "aten.avg_pool1d.default": _pool(1, "avg_pool"),
    "aten.avg_pool2d.default": _pool(2, "avg_pool"),
    "aten.adaptive_avg_pool1d.default": _adaptive_pool(1),
    "aten.adaptive_avg_pool2d.default": _adaptive_pool(2),
    "aten.mean.dim": _mean,
    "aten.softmax.int": _softmax,
    "aten.embedding.default": _embedding,
    "aten.dropout.default": _dropout,
}
