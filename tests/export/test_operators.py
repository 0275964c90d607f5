"""The rows of operators.py are those of FORMAT.md's table, and each rule of a row is refused by name where it is broken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from export import operators, to_native
from export.operators import OPERATORS, NetworkError, Node, Shape, f32, output_shape
from tests.export.tickets import norm_params, window

FORMAT = (Path(operators.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
KINDS: dict[str, type] = {"u32": int, "f32": float}


def table() -> dict[str, list[str]]:
    """Rows of the operator table by name: code, inputs, params, attributes and rule as text."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in FORMAT.splitlines() if re.match(r"\| \d+ \|", line)
    ]
    return {row[1]: [row[0], *row[2:]] for row in rows if len(row) == 6}


def attributes(name: str) -> list[tuple[str, type]]:
    text = re.sub(r"\([^)]*\)", "", table()[name][3])
    if text == "none":
        return []
    if other := re.match(r"as (\w+), then ", text):
        return attributes(other[1]) + _words(text[other.end() :])
    return _words(text)


def _words(text: str) -> list[tuple[str, type]]:
    found: list[tuple[str, type]] = []
    kind: type = int
    for word in text.split(","):
        parts = word.split()
        kind = KINDS[parts[0]] if len(parts) == 2 else kind
        found.append((parts[-1], kind))
    return found


def test_the_table_of_the_specification_is_this_one() -> None:
    assert {name: int(row[0]) for name, row in table().items()} == to_native.OPERATOR_CODES
    assert list(OPERATORS) == list(table())


@pytest.mark.parametrize("name", OPERATORS)
def test_a_row_is_as_specified(name: str) -> None:
    _, inputs, params, _, _ = table()[name]
    operator = OPERATORS[name]
    words = [(n, a.kind) for n, a in operator.attrs.items() if a.kind is not tuple]
    assert words == attributes(name)
    low, high = operator.inputs
    assert re.match(rf"{low}\.\.{high}\b" if low != high else rf"{low}\b", inputs)
    named = [role for role in ("weight", "bias", "running_mean", "running_var") if re.search(rf"\b{role}\b", params)]
    assert list(operator.roles[-1]) == named
    assert (len(operator.roles) == 2) == (params.endswith("or none"))
    assert operator.matrix == ("cols =" in params and "weight (rows" in params)


VECTOR, SIGNAL, IMAGE = (6,), (4, 8), (4, 6, 8)


def slide(shape: Shape, **settings: Any) -> dict[str, int]:
    return window(shape, **{"kernel": 2, "stride": 1, "pad": 0} | settings)


def conv(shape: Shape, groups: int = 1, **settings: Any) -> dict[str, int]:
    return slide(shape, **{"dilation": 1} | settings) | {"groups": groups}


W2: dict[str, Shape] = {"weight": (5, 4, 2, 2)}
W1: dict[str, Shape] = {"weight": (5, 4, 2)}
BN = {"epsilon": 1e-5, "momentum": 0.1, "frozen": 0}
LN = {"epsilon": 1e-5, "dimensions": 1}

Broken = tuple[str, list[Shape], dict[str, Shape], dict[str, Any]]
BROKEN: dict[str, Broken] = {
    "add 'n': inputs of shapes [(6,), (4, 8)] must be equal": ("add", [VECTOR, SIGNAL], {}, {}),
    "mul 'n': inputs of shapes": ("mul", [VECTOR, (1,)], {}, {}),
    "concat 'n': inputs of shapes [(4, 8), (4, 7)] may differ in the first": ("concat", [SIGNAL, (4, 7)], {}, {}),
    "concat 'n': inputs of shapes [(4, 8), (4,)] may": ("concat", [SIGNAL, (4,)], {}, {}),
    "conv 'n': an input of shape (6,); it takes (channels, length)": ("conv", [VECTOR], W1, conv(SIGNAL)),
    "conv 'n': weight (5, 4, 2) does not fit an input of shape (4, 6, 8)": ("conv", [IMAGE], W1, conv(IMAGE)),
    "conv 'n': weight (5, 3, 2) does not fit": ("conv", [SIGNAL], {"weight": (5, 3, 2)}, conv(SIGNAL)),
    "conv 'n': weight (5, 2, 2) does not fit an input of shape (4, 8) in 2 groups": (
        "conv",
        [SIGNAL],
        {"weight": (5, 2, 2)},
        conv(SIGNAL, 2),
    ),
    "in 3 groups": ("conv", [SIGNAL], {"weight": (6, 1, 2)}, conv(SIGNAL, 3)),
    "conv 'n': weight (5, 4, 2) but a kernel of (3,)": ("conv", [SIGNAL], W1, conv(SIGNAL, kernel=3)),
    "conv 'n': bias shape (4,) but 5 outputs": ("conv", [SIGNAL], W1 | {"bias": (4,)}, conv(SIGNAL)),
    "conv 'n': pad_w 2 with kernel_w 2 must be at most 1": ("conv", [SIGNAL], W1, conv(SIGNAL, pad=2)),
    "conv 'n': a window of 10 does not fit an input of 8 with 0": ("conv", [SIGNAL], W1, conv(SIGNAL, dilation=9)),
    "conv 'n': a kernel that reaches over 4098; at most 4096, dilate less": (
        "conv",
        [(4, 5000)],
        {"weight": (5, 4, 18)},
        conv(SIGNAL, kernel=18, dilation=241),
    ),
    "conv 'n': stride_h 2 but the input (4, 8) has no height": ("conv", [SIGNAL], W1, conv(SIGNAL) | {"stride_h": 2}),
    "conv 'n': kernel_h 2 but the input": ("conv", [SIGNAL], W1, conv(SIGNAL) | {"kernel_h": 2}),
    "conv 'n': dilation_h 2 but the input": ("conv", [SIGNAL], W1, conv(SIGNAL) | {"dilation_h": 2}),
    "conv 'n': pad_h 1 but the input": ("conv", [SIGNAL], W1, conv(SIGNAL) | {"pad_h": 1}),
    "conv 'n': stride_h 0 must be a whole number in 1..256": ("conv", [IMAGE], W2, conv(IMAGE, stride=0)),
    "conv 'n': dilation_h 257 must be": ("conv", [IMAGE], W2, conv(IMAGE, dilation=257)),
    "conv 'n': kernel_w 2.0 must be": ("conv", [IMAGE], W2, conv(IMAGE) | {"kernel_w": 2.0}),
    "conv 'n': groups True must be": ("conv", [IMAGE], W2, conv(IMAGE) | {"groups": True}),
    "conv 'n': parameter roles [], but it takes weight or weight, bias": ("conv", [IMAGE], {}, conv(IMAGE)),
    "max_pool 'n': an input of shape (6,)": ("max_pool", [VECTOR], {}, slide(SIGNAL)),
    "max_pool 'n': pad_h 2 with kernel_h 2 must be at most 1": ("max_pool", [IMAGE], {}, slide(IMAGE, pad=2)),
    "max_pool 'n': a window of 9 does not fit": ("max_pool", [IMAGE], {}, slide(IMAGE, kernel=9)),
    "max_pool 'n': stride_h 2 but the input (4, 8) has no height": (
        "max_pool",
        [SIGNAL],
        {},
        slide(SIGNAL) | {"stride_h": 2},
    ),
    "avg_pool 'n': count_include_pad 2 must be": ("avg_pool", [IMAGE], {}, slide(IMAGE) | {"count_include_pad": 2}),
    "global_avg_pool 'n': an input of shape (6,)": ("global_avg_pool", [VECTOR], {}, {}),
    "batch_norm 'n': weight (4,) for an input of shape (6,)": ("batch_norm", [VECTOR], norm_params(4), BN),
    "batch_norm 'n': weight (2,) for an input of shape (2, 2, 2, 2)": (
        "batch_norm",
        [(2, 2, 2, 2)],
        norm_params(2),
        BN,
    ),
    "batch_norm 'n': parameter roles ['bias', 'weight'], but it takes weight, bias, running_mean, running_var": (
        "batch_norm",
        [VECTOR],
        {"weight": VECTOR, "bias": VECTOR},
        BN,
    ),
    "batch_norm 'n': epsilon 0.0 must be a number above 0": (
        "batch_norm",
        [VECTOR],
        norm_params(6),
        BN | {"epsilon": 0.0},
    ),
    "batch_norm 'n': epsilon 1e-50 must be": ("batch_norm", [VECTOR], norm_params(6), BN | {"epsilon": 1e-50}),
    "batch_norm 'n': momentum 1.5 must be": ("batch_norm", [VECTOR], norm_params(6), BN | {"momentum": 1.5}),
    "batch_norm 'n': momentum nan must be": ("batch_norm", [VECTOR], norm_params(6), BN | {"momentum": float("nan")}),
    "batch_norm 'n': frozen 2 must be": ("batch_norm", [VECTOR], norm_params(6), BN | {"frozen": 2}),
    "layer_norm 'n': dimensions 2 but the input (6,) has 1": ("layer_norm", [VECTOR], {}, LN | {"dimensions": 2}),
    "layer_norm 'n': weight (4,) but the last 1 dimensions of (4, 8)": (
        "layer_norm",
        [SIGNAL],
        {"weight": (4,), "bias": (8,)},
        LN,
    ),
    "layer_norm 'n': parameter roles ['weight'], but it takes none or weight, bias": (
        "layer_norm",
        [SIGNAL],
        {"weight": (8,)},
        LN,
    ),
    "leaky_relu 'n': slope inf must be a finite number of at least 0": (
        "leaky_relu",
        [VECTOR],
        {},
        {"slope": float("inf")},
    ),
    "leaky_relu 'n': slope 1e+39 must be": ("leaky_relu", [VECTOR], {}, {"slope": 1e39}),
    "leaky_relu 'n': slope -0.1 must be": ("leaky_relu", [VECTOR], {}, {"slope": -0.1}),
    "leaky_relu 'n': slope 1 must be": ("leaky_relu", [VECTOR], {}, {"slope": 1}),
    "gelu 'n': approximation 2 must be": ("gelu", [VECTOR], {}, {"approximation": 2}),
    "dropout 'n': probability 0.99999999999 must be": ("dropout", [VECTOR], {}, {"probability": 0.99999999999}),
    "dropout 'n': probability -0.1 must be": ("dropout", [VECTOR], {}, {"probability": -0.1}),
    "softmax 'n': an input of shape (4, 8); it works on samples of one dimension": ("softmax", [SIGNAL], {}, {}),
    "embedding 'n': weight (5, 3) and an input of shape (4, 8)": ("embedding", [SIGNAL], {"weight": (5, 3)}, {}),
    "embedding 'n': weight (5,) and": ("embedding", [VECTOR], {"weight": (5,)}, {}),
    "embedding 'n': 16777217 entries; samples are f32": ("embedding", [VECTOR], {"weight": (2**24 + 1, 3)}, {}),
    "reshape 'n': shape (5,) holds 5 elements": ("reshape", [VECTOR], {}, {"shape": (5,)}),
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_rule_is_named(text: str) -> None:
    op, shapes, params, attrs = BROKEN[text]
    node = Node(op, "n", (0,) * len(shapes), dict.fromkeys(params), attrs)  # type: ignore[arg-type]
    with pytest.raises(NetworkError) as caught:
        output_shape(node, shapes, params)
    assert text in str(caught.value)


def test_an_embedding_reads_the_networks_input_alone() -> None:
    with pytest.raises(NetworkError, match="embedding 'n': reads buffer 1; only the network's own input"):
        output_shape(Node("embedding", "n", (1,), {"weight": "w"}), [VECTOR], {"weight": (5, 3)})


def test_settings_at_the_edge_of_a_rule_are_allowed() -> None:
    edge = [
        ("conv", SIGNAL, W1, conv(SIGNAL, dilation=3, pad=3), (5, 11)),
        ("conv", (4, 4096), {"weight": (5, 4, 40)}, conv(SIGNAL, kernel=40, dilation=105), (5, 1)),
        ("max_pool", (1, 256), {}, slide(SIGNAL, kernel=256, stride=256), (1, 1)),
        ("leaky_relu", VECTOR, {}, {"slope": 0.0}, VECTOR),
        ("max_pool", IMAGE, {}, slide(IMAGE, kernel=3, pad=1, stride=4), (4, 2, 2)),
        ("max_pool", SIGNAL, {}, slide(SIGNAL, kernel=8), (4, 1)),
        ("avg_pool", SIGNAL, {}, slide(SIGNAL, pad=1) | {"count_include_pad": 0}, (4, 9)),
        ("batch_norm", VECTOR, norm_params(6), BN | {"momentum": 1.0}, VECTOR),
        ("layer_norm", IMAGE, {"weight": IMAGE, "bias": IMAGE}, LN | {"dimensions": 3}, IMAGE),
        ("dropout", VECTOR, {}, {"probability": 0.0}, VECTOR),
    ]
    for op, shape, params, attrs, expected in edge:
        node = Node(op, "n", (0,), dict.fromkeys(params), attrs)  # type: ignore[arg-type,call-overload]
        assert output_shape(node, [shape], params) == expected  # type: ignore[arg-type]


def test_limits_are_those_of_the_specification() -> None:
    assert (
        f"kernel, stride, dilation 1..{operators.MAX_KERNEL}, dilation (kernel - 1) + 1 <= {operators.MAX_REACH}"
        in FORMAT
    )
    assert f"kernel and stride 1..{operators.MAX_KERNEL};" in FORMAT
    assert f"| 2..{operators.MAX_CONCAT}, same rank |" in FORMAT
    assert "f32 slope (finite, >= 0)" in FORMAT


def test_f32_rounds_as_the_format_does() -> None:
    assert f32(0.1) == 13421773 / 2**27
    assert f32(1e39) == float("inf")
    assert f32(-1e39) == float("-inf")
    assert f32(1e-50) == 0.0
