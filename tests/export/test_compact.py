"""Which units and channels vanish at export, which must stay, and the way back to the whole network.

That nothing changes for what stays is shown on the device's runtime, in tests/test_compaction_on_device.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from export.compact import compact
from export.layout import layouts, stored_values
from export.network import Node, Parameter
from export.operators import Shape
from export.ticket import Bits, Ticket
from tests.export.tickets import CARD, Builder, golden_ticket, norm_params, small_ticket, window

CONV = {"kernel": 3, "stride": 1, "pad": 1, "dilation": 1}
POOL = {"kernel": 2, "stride": 2, "pad": 0}


def ticket_of(builder: Builder, masks: Mapping[str, Bits] | None = None, *, whole: tuple[str, ...] = ()) -> Ticket:
    """Every weight pruned, by its mask or by one with all weights live, but those in `whole`."""
    network = builder.network()
    shapes = network.parameter_shapes
    random = np.random.default_rng(0)
    live = {name: np.ones(shapes[name], np.bool_) for name in network.prunable if name not in whole} | dict(masks or {})
    init = {name: random.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    init |= {name: np.where(mask, init[name], np.float32(0)) for name, mask in live.items()}
    return Ticket(network, init, live, card=CARD)


def linear(builder: Builder, out: int, *, bias: bool = True) -> int:
    params: dict[str, Shape] = {"weight": (out, builder.shape[0])}
    return builder.add("linear", params=params | ({"bias": (out,)} if bias else {}))


def conv(builder: Builder, out: int, *, groups: int = 1, bias: bool = True) -> int:
    kernels = (3,) * (len(builder.shape) - 1)
    params: dict[str, Shape] = {"weight": (out, builder.shape[0] // groups, *kernels)}
    params |= {"bias": (out,)} if bias else {}
    return builder.add("conv", params=params, groups=groups, **window(builder.shape, **CONV))


def without(shape: Shape, *, rows: tuple[int, ...] = (), columns: tuple[int, ...] = ()) -> Bits:
    """All live but some rows, and some columns of the second axis."""
    mask = np.ones(shape, np.bool_)
    mask[list(rows)] = False
    mask[:, list(columns)] = False
    return mask


def kept(ticket: Ticket, *, keep_bits: bool = False) -> dict[str, list[list[int]]]:
    """Of each parameter that became smaller the indices that stay."""
    found, shapes = compact(ticket, keep_bits=keep_bits).kept, ticket.network.parameter_shapes
    smaller = {name: axes for name, axes in found.items() if tuple(map(len, axes)) < shapes[name]}
    return {name: [axis.tolist() for axis in axes] for name, axes in smaller.items()}


def mlp(*sizes: int, bias: bool = True, op: str = "relu") -> Builder:
    builder = Builder((sizes[0],))
    for out in sizes[1:-1]:
        linear(builder, out, bias=bias)
        settings: dict[str, dict[str, Any]] = {"leaky_relu": {"slope": 0.5}, "gelu": {"approximation": 0}}
        builder.add(op, **settings.get(op, {}))
    linear(builder, sizes[-1])
    return builder


def test_a_unit_that_nothing_reads_vanishes_with_its_row_bias_and_column() -> None:
    ticket = ticket_of(mlp(3, 4, 2), {"linear2.weight": without((2, 4), columns=(0, 2))})
    assert kept(ticket) == {
        "linear0.weight": [[1, 3], [0, 1, 2]],
        "linear0.bias": [[1, 3]],
        "linear2.weight": [[0, 1], [1, 3]],
    }
    (vanished,) = compact(ticket).vanished
    assert (vanished.layer, vanished.unit, vanished.count, vanished.of) == ("linear0", "units", 2, 4)


def test_a_column_that_is_not_pruned_keeps_its_unit() -> None:
    assert kept(ticket_of(mlp(3, 4, 2), whole=("linear2.weight",))) == {}
    assert compact(golden_ticket("wide")).ticket == golden_ticket("wide")


def test_one_death_is_another_one() -> None:
    """Unit 2 of the first layer is read by the last unit of the second alone, which nothing reads."""
    second = without((4, 3), columns=(2,))
    second[3, 2] = True
    ticket = ticket_of(mlp(3, 3, 4, 2), {"linear2.weight": second, "linear4.weight": without((2, 4), columns=(3,))})
    assert kept(ticket)["linear0.bias"] == [[0, 1]]
    assert kept(ticket)["linear2.weight"] == [[0, 1, 2], [0, 1]]
    assert [v.count for v in compact(ticket).vanished] == [1, 1]


def image(after: Callable[[Builder], object]) -> Builder:
    """conv0 of 3 channels, `after`, then a linear layer over what is left."""
    builder = Builder((2, 4, 4))
    conv(builder, 3)
    after(builder)
    if len(builder.shape) > 1:
        builder.add("reshape", shape=(int(np.prod(builder.shape)),))
    linear(builder, 2)
    return builder


def normalise(builder: Builder, frozen: int = 0) -> None:
    builder.add("batch_norm", params=norm_params(builder.shape[0]), epsilon=0.01, momentum=0.1, frozen=frozen)


PASSED: dict[str, Callable[[Builder], object]] = {
    "reshape": lambda b: None,
    "relu": lambda b: b.add("relu"),
    "sigmoid": lambda b: b.add("sigmoid"),
    "batch_norm": normalise,
    "max_pool": lambda b: b.add("max_pool", **window(b.shape, **POOL)),
    "avg_pool": lambda b: b.add("avg_pool", count_include_pad=0, **window(b.shape, **POOL)),
    "global_avg_pool": lambda b: b.add("global_avg_pool"),
    "add": lambda b: (b.add("tanh"), b.add("add", 1)),
    "mul": lambda b: (b.add("tanh"), b.add("mul", 1)),
    "depthwise": lambda b: conv(b, 6, groups=3),
}


@pytest.mark.parametrize("name", PASSED)
def test_a_channel_vanishes_through(name: str) -> None:
    """The middle one of three: its block of columns in the last layer is pruned."""
    builder = image(PASSED[name])
    weight = builder.parameters[-2]
    assert weight.name.startswith("linear")
    columns = weight.shape[1]
    middle = tuple(range(columns // 3, 2 * columns // 3))
    ticket = ticket_of(builder, {weight.name: without(weight.shape, columns=middle)})
    found = kept(ticket)
    assert found["conv0.weight"] == [[0, 2], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert found["conv0.bias"] == [[0, 2]]
    assert found[weight.name][1] == [c for c in range(columns) if c not in middle]
    norm = {n: axes for n, axes in found.items() if n.startswith("batch_norm")}
    assert list(norm.values()) == [[[0, 2]]] * (4 if name == "batch_norm" else 0)
    if name == "depthwise":
        assert found["conv1.weight"][0] == [0, 1, 4, 5]
        assert compact(ticket).ticket.network.nodes[1].attrs["groups"] == 2
    every = without(weight.shape, columns=middle)
    every[0, middle[0]] = True  # one live weight is enough
    assert kept(ticket_of(builder, {weight.name: every})) == {}


def test_a_channel_vanishes_through_concat() -> None:
    builder = Builder((3,))
    linear(builder, 4)
    builder.add("relu")
    builder.add("concat", 1)  # relu, then what it read
    linear(builder, 2)
    dead = {"linear3.weight": without((2, 8), columns=(1, 2, 5))}
    assert kept(ticket_of(builder, dead))["linear0.bias"] == [[0, 2, 3]]
    assert kept(ticket_of(builder, dead))["linear3.weight"][1] == [0, 2, 3, 4, 6, 7]


def test_a_unit_that_is_always_0_vanishes_from_a_convolution() -> None:
    builder = Builder((2, 4, 4))
    conv(builder, 3, bias=False)
    builder.add("relu")
    conv(builder, 2)
    builder.add("global_avg_pool")
    linear(builder, 2)
    found = kept(ticket_of(builder, {"conv0.weight": without((3, 2, 3, 3), rows=(1,))}))
    assert found["conv0.weight"][0] == [0, 2]
    assert found["conv2.weight"][1] == [0, 2]


@pytest.mark.parametrize("op", ["relu", "leaky_relu", "relu6", "hardswish", "tanh", "gelu"])
def test_a_unit_that_is_always_0_vanishes(op: str) -> None:
    last = ticket_of(mlp(3, 4, 2, bias=False, op=op), {"linear0.weight": without((4, 3), rows=(3,))})
    assert kept(last)["linear2.weight"] == [[0, 1], [0, 1, 2]]
    first = ticket_of(mlp(3, 4, 2, bias=False, op=op), {"linear0.weight": without((4, 3), rows=(0,))})
    assert kept(first)["linear2.weight"] == [[0, 1], [1, 2, 3]]
    assert kept(first, keep_bits=True) == {}  # the entries behind it would change chains


@pytest.mark.parametrize(("op", "dead", "units"), [("add", 0, 4), ("add", 1, 3), ("mul", 0, 3), ("mul", 1, 3)])
def test_what_is_made_of_0_is_0(op: str, dead: int, units: int) -> None:
    """The last unit of one layer is always 0, with `dead` that of the other too: so is their product, but not each sum."""
    builder = Builder((3,))
    linear(builder, 4, bias=False)
    builder.add("tanh")
    builder.nodes.append(Node("linear", "other", (0,), {"weight": "other"}))
    builder.parameters.append(Parameter("other", (4, 3), prunable=True))
    builder.shapes.append((4,))
    builder.add(op, 2)
    linear(builder, 2)
    rows = without((4, 3), rows=(3,))
    ticket = ticket_of(builder, {"linear0.weight": rows} | ({"other": rows} if dead else {}))
    assert len(compact(ticket).kept["other"][0]) == units


def test_a_constant_that_is_not_0_stays() -> None:
    dead = {"linear0.weight": without((4, 3), rows=(3,))}
    assert kept(ticket_of(mlp(3, 4, 2, bias=False, op="sigmoid"), dead)) == {}
    assert kept(ticket_of(mlp(3, 4, 2, bias=True), dead)) == {}
    builder = Builder((3,))
    linear(builder, 4, bias=False)
    normalise(builder)
    linear(builder, 2)
    assert kept(ticket_of(builder, dead)) == {}


def test_where_bits_are_kept_a_row_stays_if_an_entry_behind_it_would_change_chains() -> None:
    """Of the second layer's units 0 and 3, which nothing reads, the last one vanishes; of the first layer's all do."""
    unread = {"linear4.weight": without((2, 4), columns=(0, 3))}
    assert kept(ticket_of(mlp(3, 5, 4, 2), unread))["linear2.bias"] == [[1, 2]]
    assert kept(ticket_of(mlp(3, 5, 4, 2), unread), keep_bits=True)["linear2.bias"] == [[0, 1, 2]]
    alone = without((4, 5), rows=(0,))
    alone[:, 4], alone[0, 4] = False, True  # shares no column with the others, and takes unit 4 along
    found = kept(ticket_of(mlp(3, 5, 4, 2), unread | {"linear2.weight": alone}), keep_bits=True)
    assert (found["linear2.bias"], found["linear0.bias"]) == ([[1, 2]], [[0, 1, 2, 3]])
    empty = without((4, 5), rows=(0,))
    dead_and_empty = ticket_of(mlp(3, 5, 4, 2), unread | {"linear2.weight": empty})
    assert kept(dead_and_empty, keep_bits=True)["linear2.bias"] == [[1, 2]]
    reshaped = Builder((1, 3))
    reshaped.add("reshape", shape=(3,))
    linear(reshaped, 4)
    reshaped.add("relu")
    linear(reshaped, 2)
    dead = {"linear3.weight": without((2, 4), columns=(0, 3))}
    assert kept(ticket_of(reshaped, dead), keep_bits=True)["linear1.bias"] == [
        [1, 2]
    ]  # nobody needs the input's gradient


REFUSED: dict[str, dict[str, Any]] = {
    "softmax": {},
    "layer_norm": {"epsilon": 0.25, "dimensions": 1},
    "dropout": {"probability": 0.5},
}


@pytest.mark.parametrize("op", REFUSED)
def test_nothing_vanishes_through(op: str) -> None:
    builder = Builder((3,))
    linear(builder, 4)
    builder.add(op, **REFUSED[op])
    linear(builder, 2)
    assert kept(ticket_of(builder, {"linear2.weight": without((2, 4), columns=(3,))})) == {}


def test_a_sum_stays_while_one_of_its_terms_is_read_elsewhere() -> None:
    builder = Builder((3,))
    linear(builder, 4)
    builder.add("relu")
    builder.add("add", 1)
    builder.add("concat", 1)
    linear(builder, 2)
    sums, terms = without((2, 8), columns=(3,)), without((2, 8), columns=(3, 7))
    assert kept(ticket_of(builder, {"linear4.weight": sums})) == {}
    assert kept(ticket_of(builder, {"linear4.weight": terms}))["linear0.bias"] == [[0, 1, 2]]


def test_a_group_of_a_convolution_stays_or_goes_whole() -> None:
    builder = Builder((2, 4, 4))
    conv(builder, 4)
    builder.add("tanh")
    conv(builder, 6, groups=2)
    builder.add("global_avg_pool")
    linear(builder, 2)
    for columns, stays in (((3, 4), 6), ((3, 4, 5), 3)):
        compaction = compact(ticket_of(builder, {"linear4.weight": without((2, 6), columns=columns)}))
        network = compaction.ticket.network
        assert network.parameter_shapes["conv2.weight"] == (stays, 2, 3, 3)
        assert network.parameter_shapes["conv0.weight"] == (2 * stays // 3, 2, 3, 3)
        assert network.nodes[2].attrs["groups"] == stays // 3


def test_a_reshape_that_cuts_through_channels_ties_them() -> None:
    builder = Builder((2, 2, 2))
    conv(builder, 6)  # (6, 2, 2)
    builder.add("reshape", shape=(4, 6))
    builder.add("global_avg_pool")
    linear(builder, 2)
    assert kept(ticket_of(builder, {"linear3.weight": without((2, 4), columns=(3,))})) == {}
    assert kept(ticket_of(builder, {"linear3.weight": without((2, 4), columns=(2, 3))}))["conv0.bias"] == [[0, 1, 2]]


def test_inputs_and_outputs_stay() -> None:
    dead = {"linear0.weight": without((2, 3), rows=(1,), columns=(2,))}
    assert kept(ticket_of(mlp(3, 2), dead)) == {}


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_running_statistics_see_stays(frozen: int) -> None:
    """Channel 1 of conv1 stays with its group though nothing reads it; its mean depends on what it reads."""
    builder = Builder((2, 4, 4))
    conv(builder, 3, bias=False)
    conv(builder, 4, bias=False)
    normalise(builder, frozen)
    conv(builder, 2, groups=2)
    builder.add("global_avg_pool")
    linear(builder, 2)
    reads = without((4, 3, 3, 3), columns=(2,))
    reads[1, 2] = True
    masks = {"conv1.weight": reads, "conv3.weight": without((2, 2, 3, 3))}
    masks["conv3.weight"][0, 1] = False
    assert kept(ticket_of(builder, masks)).get("conv0.weight", [None])[0] == ([0, 1] if frozen else None)


def test_a_layer_keeps_a_live_weight() -> None:
    """Nothing that the input says reaches the output: one unit a layer stays, and one weight to it."""
    second = np.zeros((3, 4), np.bool_)
    second[1, 2] = True
    third = np.zeros((2, 3), np.bool_)
    third[0, 0] = True  # reads a unit that has a bias alone
    compaction = compact(ticket_of(mlp(3, 4, 3, 2), {"linear2.weight": second, "linear4.weight": third}))
    assert compaction.ticket.network.parameter_shapes["linear0.weight"] == (1, 3)
    assert compaction.ticket.network.parameter_shapes["linear2.weight"] == (2, 1)
    assert all(mask.any() for mask in compaction.ticket.masks.values())
    assert compaction.kept["linear0.bias"][0].tolist() == [2]


def test_the_card_tells_what_vanished() -> None:
    ticket = ticket_of(mlp(3, 6, 2), {"linear2.weight": without((2, 6), columns=(0, 2, 3, 5))})
    found = compact(ticket).ticket.card["compaction"]
    assert found == {
        "linear0.weight": {"shape": [6, 3], "removed": [[[0, 1], [2, 4], [5, 6]], []]},
        "linear0.bias": {"shape": [6], "removed": [[[0, 1], [2, 4], [5, 6]]]},
        "linear2.weight": {"shape": [2, 6], "removed": [[], [[0, 1], [2, 4], [5, 6]]]},
    }
    assert "compaction" not in compact(small_ticket()).ticket.card


def test_stored_values_go_back_into_the_whole_network() -> None:
    second = without((2, 4), columns=(0, 2))
    second[1, 3] = False
    compaction = compact(ticket_of(mlp(3, 4, 2), {"linear2.weight": second}))
    small = compaction.ticket
    assert layouts(small.network, small.masks)["linear2.weight"].masked  # a pruned weight is stored too
    count = len(stored_values(small.network, small.masks, small.init))
    assert count == 6 + 2 + 4 + 2
    whole = compaction.restore(np.arange(1, count + 1, dtype=np.float32))
    init = compaction.original.init
    assert whole["linear0.weight"][[1, 3]].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (whole["linear0.weight"][[0, 2]] == init["linear0.weight"][[0, 2]]).all()
    assert whole["linear0.bias"].tolist() == [init["linear0.bias"][0], 7, init["linear0.bias"][2], 8]
    assert whole["linear2.weight"].tolist() == [[0, 9, 0, 10], [0, 11, 0, 0]]
    assert whole["linear2.bias"].tolist() == [13, 14]
