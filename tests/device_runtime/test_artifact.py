"""What an artifact may be: every rule of FORMAT.md broken once, by name; every truncation; every flipped bit.

The rules of single nodes are in test_nodes.py.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_runtime import (
    CorruptArtifact,
    IncompatibleArtifact,
    PocketTicketError,
    Trainer,
    UnsupportedOp,
    inspect,
)
from tests.device_runtime import nets
from tests.device_runtime.nets import Builder
from tests.device_runtime.tkt_writer import (
    ARTIFACT_MAGIC,
    GRAPH,
    INIT,
    INPUT,
    PARAMS,
    PATTERN,
    RECIPE,
    RELU,
    Net,
    Node,
    Param,
    Recipe,
    artifact,
    file,
    seal,
    section,
)
from tests.golden.make_operators import CONTENTS, FILES

NET = nets.small()
GOOD = artifact(NET)
DENSE = sum(param.values.size for param in NET.params)
PRUNED = sum(param.values.size for param in NET.params if param.mask is not None)
GOLDEN = Path(__file__).parents[1] / "golden"


def test_inspect_tells_what_was_written() -> None:
    facts = inspect(GOOD, batch=5, optimizer="adam")
    live = sum(int(param.mask.sum()) for param in NET.params if param.mask is not None)
    weights = sum(param.mask.size for param in NET.params if param.mask is not None)
    assert facts["operators"] == ["reshape", "linear", "relu", "linear", "relu", "add", "linear"]
    assert facts["nnz"] == live
    assert facts["density"] == pytest.approx(live / weights)
    assert facts["value_count"] == NET.stored.size
    assert facts["dense_count"] == sum(param.values.size for param in NET.params)
    assert facts["artifact_bytes"] == len(GOOD)
    assert facts["sections"]["init"] == 4 * NET.stored.size
    assert facts["ticket_hash"] == NET.ticket_hash.hex()
    assert facts["card"] == NET.card
    assert (facts["batch"], facts["optimizer"], facts["epochs"]) == (5, "adam", 3)
    assert (facts["input_shape"], facts["class_count"], facts["has_trained"]) == ([3, 2, 2], 4, False)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_files_are_read(path: Path) -> None:
    """Written by a third writer, from a description in JSON."""
    wanted = json.loads(path.read_text(encoding="utf-8"))
    facts = inspect(path.with_suffix(".tkt"))
    assert facts["operators"] == [node["op"] for node in wanted["nodes"]]
    assert (facts["ticket_hash"], facts["card"]) == (wanted["ticket_hash"], wanted["card"])
    for start in ("init", "trained"):
        if start in wanted["parameters"][0]:
            with Trainer.open(path.with_suffix(".tkt"), start=start) as trainer:
                values = np.concatenate([stored(p, start) for p in wanted["parameters"]])
                assert trainer.values.tobytes() == values.tobytes()


def stored(parameter: dict[str, Any], start: str) -> NDArray[np.float32]:
    """The values of a description, among zeros where it is masked."""
    values = np.array(parameter[start], np.float32)
    if not parameter.get("masked"):
        return values
    whole = np.zeros((parameter["shape"][0], int(np.prod(parameter["shape"][1:]))), np.float32)
    whole[tuple(np.transpose(parameter["live"]))] = values
    return whole.ravel()


def test_an_unpruned_network_has_density_one() -> None:
    facts = inspect(artifact(nets.mlp((6, 5, 3), None)))
    assert (facts["nnz"], facts["density"]) == (0, 1.0)


@pytest.mark.parametrize("origin", [(DENSE, PRUNED), (DENSE + 9, PRUNED + 5), (2**40, PRUNED)])
def test_density_is_that_of_the_origin(origin: tuple[int, int]) -> None:
    plain, facts = inspect(GOOD), inspect(artifact(replace(NET, origin=origin)))
    assert (facts["nnz"], facts["value_count"]) == (plain["nnz"], plain["value_count"])
    assert (facts["dense_count"], facts["density"]) == (origin[0], plain["nnz"] / origin[1])
    assert facts["sections"]["origin"] == 16


def test_labels_fall_back_to_numbers() -> None:
    with Trainer.open(GOOD) as named, Trainer.open(artifact(replace(NET, card={"labels": ["one"]}))) as numbered:
        assert named.info.labels == ("red", "green", "blue", "grey")
        assert numbered.info.labels == ("0", "1", "2", "3")


def test_every_truncation_is_refused() -> None:
    for size in range(len(GOOD)):
        with pytest.raises((CorruptArtifact, IncompatibleArtifact)):
            inspect(GOOD[:size])
    with pytest.raises(CorruptArtifact):
        inspect(GOOD + b"\0")


def test_the_files_of_the_c_tests_are_what_their_script_writes() -> None:
    for name, content in CONTENTS.items():
        assert (GOLDEN / name).read_bytes() == content, f"run python -m tests.golden.make_operators for {name}"
    found = {operator for name in FILES for operator in inspect(GOLDEN / name)["operators"]}
    table = Path(__file__).parents[2] / "export" / "FORMAT.md"
    rows = re.findall(
        r"^\| (\d+) \| (\w+) \| .* \| .* \| .* \| .* \|$", table.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == 21
    assert found == {name for _, name in rows}


def test_every_flipped_bit_is_refused() -> None:
    content = bytearray(artifact(nets.mlp((4, 3, 2), 0.5)))
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PocketTicketError):
            inspect(bytes(content))
        content[bit // 8] ^= 1 << bit % 8
    inspect(bytes(content))


def patched(kind: int, offset: int, layout: str, *values: float, of: bytes = GOOD) -> bytes:
    """GOOD with some fields of a section changed and all checksums right."""
    content = bytearray(of)
    struct.pack_into(layout, content, section(of, kind)[0] + offset, *values)
    return seal(content)


def header(offset: int, layout: str, *values: int) -> bytes:
    content = bytearray(GOOD)
    struct.pack_into(layout, content, offset, *values)
    return seal(content)


def sections(*change: tuple[int, bytes | None]) -> bytes:
    """GOOD's sections with some replaced, added or left out, in order of kind."""
    found = {}
    for kind in range(1, 8):
        offset, size = section(GOOD, kind)
        found[kind] = GOOD[offset : offset + size]
    found |= dict(change)  # type: ignore[arg-type]
    return file(ARTIFACT_MAGIC, sorted((k, body) for k, body in found.items() if body is not None), NET.ticket_hash)


def graph(
    *nodes: Node, shapes: tuple[tuple[int, ...], ...] | None = None, params: tuple[Param, ...] = NET.params
) -> bytes:
    return artifact(replace(NET, nodes=nodes, shapes=shapes or NET.shapes, params=params))


NODES = 16 + 20 * len(NET.shapes)  # where the nodes of GOOD's GRAPH begin
COLUMNS = 4 * (NET.params[0].values.shape[0] + 1)  # where the first columns of GOOD's PATTERN begin
TINY = nets.mlp((4, 3, 2), 0.5)

CORRUPT: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a text": lambda: b"hello",
    "magic": lambda: seal(bytearray(b"\x89TKC" + GOOD[4:])),
    "file_bytes": lambda: header(12, "<I", len(GOOD) - 1),
    "no sections": lambda: header(16, "<I", 0),
    "33 sections": lambda: header(16, "<I", 33),
    "reserved header": lambda: header(56, "<Q", 1),
    "section offset": lambda: header(64 + 4, "<I", 256),
    "section beyond the end": lambda: header(64 + 6 * 16 + 8, "<I", 2**31),
    "kinds not rising": lambda: header(64 + 16, "<I", 1),
    "padding": lambda: seal(
        bytearray(GOOD[: section(GOOD, RECIPE)[0] + 72] + b"\1" + GOOD[section(GOOD, RECIPE)[0] + 73 :])
    ),
    "no card": lambda: sections((1, None)),
    "no recipe": lambda: sections((RECIPE, None)),
    "no init": lambda: sections((INIT, None)),
    "short recipe": lambda: sections((RECIPE, bytes(36))),
    "batch 0": lambda: patched(RECIPE, 4, "<I", 0),
    "batch 65537": lambda: patched(RECIPE, 4, "<I", 65537),
    "learning rate NaN": lambda: patched(RECIPE, 8, "<f", float("nan")),
    "momentum 1": lambda: patched(RECIPE, 12, "<f", 1.0),
    "epsilon 0": lambda: patched(RECIPE, 28, "<f", 0.0),
    "nesterov 2": lambda: patched(RECIPE, 36, "<I", 2),
    "nesterov without momentum": lambda: artifact(replace(NET, recipe=Recipe(momentum=0.0, nesterov=True))),
    "label smoothing 1": lambda: patched(RECIPE, 40, "<f", 1.0),
    "clip_norm below 0": lambda: patched(RECIPE, 44, "<f", -1.0),
    "a schedule without steps": lambda: artifact(replace(NET, recipe=Recipe(schedule=2))),
    "steps without a schedule": lambda: artifact(replace(NET, recipe=Recipe(schedule_steps=9))),
    "schedule_factor above 1": lambda: patched(RECIPE, 60, "<f", 1.5),
    "reserved recipe": lambda: patched(RECIPE, 64, "<I", 1),
    "reserved recipe, last": lambda: patched(RECIPE, 68, "<I", 1),
    "class weights of mse": lambda: artifact(replace(NET, loss=2, class_weights=(1.0, 1.0, 1.0, 1.0))),
    "a class weight too few": lambda: artifact(replace(NET, class_weights=(1.0, 1.0, 1.0))),
    "a class weight below 0": lambda: artifact(replace(NET, class_weights=(1.0, 1.0, 1.0, -1.0))),
    "origin too long": lambda: sections((10, struct.pack("<2Qx", DENSE, PRUNED))),
    "origin of fewer floats": lambda: artifact(replace(NET, origin=(DENSE - 1, PRUNED))),
    "origin of fewer weights": lambda: artifact(replace(NET, origin=(DENSE, PRUNED - 1))),
    "origin of fewer dense parameters": lambda: artifact(replace(NET, origin=(DENSE, PRUNED + 1))),
    "origin of more weights than floats": lambda: artifact(replace(NET, origin=(DENSE, 2**64 - 1))),
    "origin beyond every network": lambda: artifact(replace(NET, origin=(2**40 + 1, PRUNED))),
    "class weights all 0": lambda: artifact(replace(NET, class_weights=(0.0, 0.0, 0.0, 0.0))),
    "rank 0": lambda: patched(INPUT, 0, "<I", 0),
    "rank 5": lambda: patched(INPUT, 0, "<I", 5),
    "unused extent 2": lambda: patched(INPUT, 16, "<I", 2),
    "2 channels of 3": lambda: artifact(replace(NET, mean=(0.0, 0.0), inverse_std=(1.0, 1.0))),
    "mean infinite": lambda: patched(INPUT, 24, "<f", float("inf")),
    "inverse_std 0": lambda: patched(INPUT, 36, "<f", 0.0),
    "buffer_count": lambda: patched(GRAPH, 0, "<I", len(NET.shapes) + 1),
    "no nodes": lambda: patched(GRAPH, 4, "<I", 0),
    "reserved graph": lambda: patched(GRAPH, 12, "<I", 1),
    "buffer 0 is not the input": lambda: patched(GRAPH, 20, "<I", 12),
    "graph goes on": lambda: sections((GRAPH, GOOD[slice(*_span(GRAPH))] + bytes(4))),
    "graph is cut short": lambda: sections((GRAPH, GOOD[slice(*_span(GRAPH))][:-4])),
    "input of a later buffer": lambda: patched(GRAPH, NODES + 8, "<I", 5),
    "unread buffer": lambda: patched(GRAPH, _node_at(5) + 12, "<I", 3),
    "relu changes the shape": lambda: graph(Node(RELU, (0,)), *NET.nodes[1:]),
    "one class": lambda: artifact(nets.mlp((4, 3, 1), None)),
    "output of rank 2": lambda: patched(GRAPH, NODES - 20, "<I", 2),
    "attributes of relu": lambda: graph(*NET.nodes[:2], Node(RELU, (2,), attrs=(1,)), *NET.nodes[3:]),
    "two inputs of relu": lambda: graph(*NET.nodes[:2], Node(RELU, (2, 2)), *NET.nodes[3:]),
    "a parameter used twice": lambda: patched(GRAPH, _node_at(3) + 12, "<I", 0),
    "a parameter that is not there": lambda: patched(GRAPH, _node_at(1) + 12, "<I", 99),
    "no parameters": lambda: patched(PARAMS, 0, "<I", 0),
    "reserved params": lambda: patched(PARAMS, 4, "<I", 1),
    "encoding 6": lambda: patched(PARAMS, 8, "<I", 6),
    "live weights listed as pruned ones": lambda: patched(PARAMS, 8, "<I", 5),
    "blocks that are none": lambda: patched(PARAMS, 8, "<I", 3),
    "rows 0": lambda: patched(PARAMS, 12, "<I", 0),
    "rows times cols": lambda: patched(PARAMS, 12, "<2I", 2**20, 2**20),
    "nnz": lambda: patched(PARAMS, 20, "<I", 1),
    "row_ptr elsewhere": lambda: patched(PARAMS, 24, "<I", 4),
    "row_ptr misaligned": lambda: patched(PARAMS, 24, "<I", 2),
    "col_idx elsewhere": lambda: patched(PARAMS, 28, "<I", 0),
    "row_ptr starts at 1": lambda: patched(PATTERN, 0, "<I", 1),
    "row_ptr falls": lambda: patched(PATTERN, 4, "<I", 2**31),
    "row_ptr ends early": lambda: patched(PATTERN, COLUMNS - 4, "<I", 0),
    "columns do not rise": lambda: patched(PATTERN, COLUMNS, "<2H", 3, 3),
    "column too large": lambda: patched(PATTERN, COLUMNS + 22, "<H", 12),
    "pattern too long": lambda: sections((PATTERN, GOOD[slice(*_span(PATTERN))] + bytes(4))),
    "init too short": lambda: sections((INIT, bytes(4))),
    "init NaN": lambda: patched(INIT, 0, "<f", float("nan")),
    "no live weight": lambda: artifact(
        replace(TINY, params=(Param(TINY.params[0].values, np.zeros((3, 4), bool)), *TINY.params[1:]))
    ),
    "trained NaN": lambda: artifact(replace(NET, trained=(np.full(NET.stored.size, np.nan, np.float32),))),
    "trained too short": lambda: artifact(replace(NET, trained=(np.zeros(3, np.float32),))),
    "card not an object": lambda: artifact(NET, card=b"[1]"),
    "card not JSON": lambda: artifact(NET, card=b"\xff"),
}

INCOMPATIBLE: dict[str, Callable[[], bytes]] = {
    "version 2": lambda: header(8, "<H", 2),
    "section kind 14": lambda: sections((14, b"new")),
}

UNSUPPORTED: dict[str, Callable[[], bytes]] = {
    "operator 77": lambda: patched(GRAPH, NODES, "<H", 77),
    "loss 4": lambda: patched(GRAPH, 8, "<I", 4),
    "optimizer 4": lambda: artifact(replace(NET, recipe=Recipe(optimizer=4))),
    "schedule 4": lambda: artifact(replace(NET, recipe=Recipe(schedule=4, schedule_steps=1))),
}


def _span(kind: int) -> tuple[int, int]:
    offset, size = section(GOOD, kind)
    return offset, offset + size


def _node_at(index: int) -> int:
    """Offset of a node in GOOD's GRAPH."""
    return NODES + sum(8 + 4 * (len(n.inputs) + len(n.params) + len(n.attrs)) for n in NET.nodes[:index])


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt(name: str) -> None:
    with pytest.raises(CorruptArtifact):
        inspect(CORRUPT[name]())


def norm_net() -> Net:
    b = Builder(np.random.default_rng(0), (3,))
    b.linear(4, None)
    b.batch_norm()
    b.linear(2, None)
    return b.net()


def test_state_comes_last_and_variances_are_not_negative() -> None:
    net = norm_net()
    inspect(artifact(net))
    early = (net.params[6], *net.params[:6], net.params[7])
    moved = {old: new for new, old in enumerate((6, 0, 1, 2, 3, 4, 5, 7))}
    nodes = tuple(replace(n, params=tuple(moved[p] for p in n.params)) for n in net.nodes)
    with pytest.raises(CorruptArtifact, match="comes after a state parameter"):
        inspect(artifact(replace(net, params=early, nodes=nodes)))
    net.params[-1].values[2] = -0.5
    with pytest.raises(CorruptArtifact, match="variance below 0"):
        inspect(artifact(net))


@pytest.mark.parametrize("name", INCOMPATIBLE)
def test_incompatible(name: str) -> None:
    with pytest.raises(IncompatibleArtifact):
        inspect(INCOMPATIBLE[name]())


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedOp, match=name.split()[1]):
        inspect(UNSUPPORTED[name]())


def test_what_a_newer_minor_version_may_add_is_skipped() -> None:
    newer = bytearray(sections((0x8000, b"of the future")))
    struct.pack_into("<H", newer, 10, 7)
    facts = inspect(seal(newer))
    assert facts["sections"]["0x8000"] == 13
    with Trainer.open(seal(newer)) as trainer:
        assert trainer.values.tobytes() == NET.stored.tobytes()


@pytest.mark.parametrize("wide", [False, True])
def test_columns_of_both_widths_give_the_same_bits(wide: bool) -> None:
    params = tuple(replace(param, wide=wide and param.mask is not None) for param in NET.params)
    x, y = nets.task(NET, 16)
    with Trainer.open(artifact(replace(NET, params=params))) as trainer, Trainer.open(GOOD) as plain:
        assert trainer.fit(x, y, steps=5).losses.tobytes() == plain.fit(x, y, steps=5).losses.tobytes()


def test_a_row_of_65536_columns_needs_only_two_bytes_a_column() -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((2, 65536), bool)
    mask[0, 65535] = mask[1, 0] = True
    values = np.where(mask, random.standard_normal(mask.shape), 0).astype(np.float32)
    net = Net(((65536,), (2,)), (Node(1, (0,), (0,)),), (Param(values, mask),))
    x = random.standard_normal((3, 65536)).astype(np.float32)
    with Trainer.open(artifact(net)) as trainer:
        scores = x @ values.T
        assert trainer.predict(x).argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()
