"""Packed artifacts on the device: the same bits as plain ones, nothing else in memory than the pattern, and every lie refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_runtime import CorruptArtifact, IncompatibleArtifact, Trainer, draw, inspect
from tests.device_runtime import nets, test_masked
from tests.device_runtime.nets import Builder
from tests.device_runtime.tkt_writer import (
    ARTIFACT_MAGIC,
    INIT,
    LINEAR,
    MSE,
    PACKED_INIT,
    PACKED_PATTERN,
    PARAMS,
    PATTERN,
    Net,
    Node,
    Param,
    artifact,
    file,
    packed_artifact,
    packed_values,
    seal,
    section,
)
from tests.golden.make_operators import images, packed, sequences

STEPS = 20
DENSITIES = (0.001, 0.01, 0.04, 0.3, 0.9, 1.0)
FORMS: dict[str, dict[str, Any]] = {
    "columns of 16 bits": {},
    "columns of 32 bits": {"wide": True},
    "blocks of 4": {"block": 4},
    "blocks of 8": {"block": 8},
    "masked": {"masked": True},
}
NET = test_masked.net()
MIXED = replace(
    NET, params=tuple(replace(p, line=line) for p, line in zip(NET.params, (9, 0, 5, 0, 37, 0, 2, 0), strict=True))
)
GOOD = packed_artifact(MIXED)


def matrix(rows: int, cols: int, density: float, seed: int, **form: Any) -> Param:
    """At random, with an empty row, or block of rows, and a full one where there are so many."""
    random, block = np.random.default_rng(seed), form.get("block", 1)
    live = random.random((rows // block, cols)) < density
    live[-1] = True
    live[: -1 if len(live) > 1 else 0][:1] = False
    mask = np.repeat(live, block, axis=0)
    values = np.where(mask, random.standard_normal(mask.shape), 0).astype(np.float32)
    return Param(values, mask, line=int(random.choice([0, 2, 3, cols, 1023]) if cols > 1 else 0), **form)


def layer(param: Param) -> Net:
    rows, cols = param.values.shape
    return Net(((cols,), (rows,)), (Node(LINEAR, (0,), (0,)),), (param,), loss=MSE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("density", DENSITIES)
def test_every_weight_is_in_its_place(density: float, form: str) -> None:
    for seed, (rows, cols) in enumerate([(8, 1), (16, 7), (24, 130), (8, 1000), (304, 33)]):
        net = layer(matrix(rows, cols, density, seed, **FORMS[form]))
        with Trainer.open(packed_artifact(net)) as trainer, Trainer.open(artifact(net)) as plain:
            assert trainer.values.tobytes() == plain.values.tobytes() == net.stored.tobytes()
            ones = np.eye(cols, dtype=np.float32)
            assert trainer.predict(ones).tobytes() == plain.predict(ones).tobytes()
            assert np.array_equal(plain.predict(ones).T, net.params[0].values)


NETS: dict[str, Callable[[], Net]] = {
    "masked": lambda: MIXED,
    "images": packed,
    "sequences": sequences,
    "dense": lambda: nets.mlp((5, 4), None),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 8])
def test_training_gives_the_same_bits(name: str, batch: int) -> None:
    net = NETS[name]()
    x, labels = nets.task(net, 40)
    targets: NDArray[Any] = labels
    if name == "sequences":
        x, targets = np.abs(x).astype(int).astype(np.float32) % 12, np.eye(3, dtype=np.float32)[labels]
    with Trainer.open(artifact(net), batch=batch) as plain, Trainer.open(packed_artifact(net), batch=batch) as trainer:
        losses = plain.fit(x, targets, steps=STEPS).losses
        assert trainer.fit(x, targets, steps=STEPS).losses.tobytes() == losses.tobytes()
        assert trainer.values.tobytes() == plain.values.tobytes()
        trainer.reset()
        assert trainer.values.tobytes() == net.stored.tobytes()
        assert trainer.fit(x, targets, steps=STEPS).losses.tobytes() == losses.tobytes()


@pytest.mark.parametrize("options", [{}, {"batch": 1}, {"optimizer": "adam"}, {"budget_bytes": 40_000}])
def test_the_arena_grows_by_the_pattern_alone(options: dict[str, Any]) -> None:
    plain, facts = inspect(artifact(MIXED), **options), inspect(GOOD, **options)
    pattern = plain["sections"]["pattern"]
    padding = -pattern % 64
    wanted = plain["memory"] | {
        "index": plain["memory"]["index"] + pattern,
        "bookkeeping": plain["memory"]["bookkeeping"] + padding,
        "total": plain["memory"]["total"] + pattern + padding,
    }
    assert facts["memory"] == wanted
    same = ("nnz", "density", "value_count", "dense_count", "has_trained", "operators", "card", "ticket_hash")
    assert [facts[key] for key in same] == [plain[key] for key in same]
    assert facts["sections"]["packed_init"] == 8 + 4 * sum(param.live.size for param in MIXED.params)


def test_half_floats_are_expanded_exactly() -> None:
    everything = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = everything[np.isfinite(everything)].astype(np.float32)
    net = layer(Param(finite.reshape(8, -1)))
    with Trainer.open(packed_artifact(net, "float16")) as trainer:
        assert trainer.values.tobytes() == finite.tobytes()
    with Trainer.open(packed_artifact(MIXED, "float16")) as trainer:
        assert trainer.values.tobytes() == MIXED.stored.astype(np.float16).astype(np.float32).tobytes()
        trainer.fit(*nets.task(MIXED, 9), steps=2)
        trainer.reset()
        assert trainer.values.tobytes() == MIXED.stored.astype(np.float16).astype(np.float32).tobytes()


def test_a_trained_artifact_stays_packed() -> None:
    x, y = nets.task(MIXED, 30)
    with Trainer.open(GOOD) as trainer:
        trainer.fit(x, y, steps=5)
        exported, values = trainer.export(), trainer.values.tobytes()
    facts = inspect(exported)["sections"]
    assert "trained" in facts
    assert {"packed_pattern", "packed_init"} <= set(facts)
    for kind in (PACKED_PATTERN, PACKED_INIT):
        assert body(exported, kind) == body(GOOD, kind)
    with Trainer.open(exported, start="trained") as trainer:
        assert trainer.values.tobytes() == values
        assert trainer.export() == exported
    with Trainer.open(exported) as trainer:
        assert trainer.values.tobytes() == MIXED.stored.tobytes()


def test_packed_trained_values_are_started_from_and_replaced() -> None:
    doubled = replace(MIXED, params=tuple(replace(p, values=2 * p.values) for p in MIXED.params))
    content = packed_artifact(MIXED, packed_trained=packed_values(doubled, "float16"))
    assert inspect(content)["has_trained"]
    with Trainer.open(content, start="trained") as trainer:
        assert trainer.values.tobytes() == doubled.stored.astype(np.float16).astype(np.float32).tobytes()
        names = inspect(trainer.export())["sections"]
        assert "trained" in names
        assert "packed_trained" not in names


def test_checkpoints_go_from_one_form_to_the_other(tmp_path: Path) -> None:
    x, y = nets.task(MIXED, 30)
    with Trainer.open(artifact(MIXED)) as plain, Trainer.open(GOOD) as trainer:
        plain.fit(x, y, steps=7)
        plain.save(tmp_path / "a.tkc")
        trainer.restore(tmp_path / "a.tkc")
        assert trainer.fit(x, y, steps=5).losses.tobytes() == plain.fit(x, y, steps=5).losses.tobytes()
        trainer.save(tmp_path / "b.tkc")
        plain.restore(tmp_path / "b.tkc")
        assert trainer.values.tobytes() == plain.values.tobytes()


def body(content: bytes, kind: int) -> bytes:
    start, size = section(content, kind)
    return content[start : start + size]


def patched(kind: int, offset: int, layout: str, *values: Any) -> bytes:
    content = bytearray(GOOD)
    start, _ = section(GOOD, kind)
    struct.pack_into(layout, content, start + offset, *values)
    return seal(content)


def with_pattern(content: bytes) -> bytes:
    kinds = (kind for kind, _ in section_table())
    return file(ARTIFACT_MAGIC, [(k, content if k == PACKED_PATTERN else body(GOOD, k)) for k in kinds], GOOD[24:56])


def section_table() -> Iterator[tuple[int, ...]]:
    """Kind and offset."""
    (count,) = struct.unpack_from("<I", GOOD, 16)
    return (struct.unpack_from("<2I", GOOD, 64 + 16 * index) for index in range(count))


def with_line(line: int) -> bytes:
    """Of a single weight, which every line would tell the same of."""
    content = packed_artifact(layer(Param(np.ones((1, 1), np.float32), np.ones((1, 1), bool))))
    with Trainer.open(content):
        start, _ = section(content, PACKED_PATTERN)
    changed = bytearray(content)
    struct.pack_into("<H", changed, start + 4, line)
    return seal(changed)


def normed() -> Net:
    """Its last parameter is a running variance."""
    b = Builder(np.random.default_rng(0), (3,))
    b.linear(40, 0.8, masked=True)
    b.batch_norm()
    b.linear(2, None)
    return b.net()


def with_variance(value: float) -> bytes:
    net = normed()
    net.params[-1].values[-1] = value
    return packed_artifact(net, "float16")


def with_drawn_variance(kind: int, least: float) -> bytes:
    net = normed()
    others = struct.pack("<I2f", 1, 0, 1) * (len(net.params) - 1)
    return packed_artifact(net, packed_init=DRAWN[:16] + others + struct.pack("<I2f", kind, least, 1))


PACKED = body(GOOD, PACKED_PATTERN)
LONGEST = struct.unpack_from("<I", PACKED)[0]
DRAWN = struct.pack("<2IQ", 3, 0, 7) + struct.pack("<I2f", 1, 0, 1) * len(MIXED.params)
PLAIN = artifact(MIXED)
TRAINED_PRUNED = np.where(MIXED.stored == 0, np.float32(1), MIXED.stored)


def patched_draw(at: int, form: str, value: float) -> bytes:
    """What is drawn with one number changed, counted from the first distribution."""
    changed = bytearray(DRAWN)
    struct.pack_into(form, changed, 16 + at, value)
    return packed_artifact(MIXED, packed_init=bytes(changed))


CORRUPT: dict[str, Callable[[], bytes]] = {
    "pattern plain and packed": lambda: packed_artifact(MIXED, pattern=body(PLAIN, PATTERN)),
    "init plain and packed": lambda: packed_artifact(MIXED, init=body(PLAIN, INIT)),
    "trained plain and packed": lambda: packed_artifact(
        MIXED, trained=body(PLAIN, INIT), packed_trained=body(GOOD, PACKED_INIT)
    ),
    "no pattern": lambda: packed_artifact(MIXED, packed_pattern=None),
    "no init": lambda: packed_artifact(MIXED, packed_init=None),
    "kind 0": lambda: patched(PACKED_INIT, 0, "<I", 0),
    "kind 4": lambda: patched(PACKED_INIT, 0, "<I", 4),
    "kind of other width": lambda: patched(PACKED_INIT, 0, "<I", 2),
    "reserved word": lambda: patched(PACKED_INIT, 4, "<I", 1),
    "init without a head": lambda: packed_artifact(MIXED, packed_init=bytes(7)),
    "init too short": lambda: packed_artifact(MIXED, packed_init=body(GOOD, PACKED_INIT)[:-4]),
    "init too long": lambda: packed_artifact(MIXED, packed_init=body(GOOD, PACKED_INIT) + bytes(4)),
    "init NaN": lambda: patched(PACKED_INIT, 8, "<f", float("nan")),
    "init infinite half": lambda: packed_artifact(
        MIXED, packed_init=packed_values(MIXED, "float16")[:-2] + struct.pack("<H", 0xFC00)
    ),
    "draw too short": lambda: packed_artifact(MIXED, packed_init=DRAWN[:-1]),
    "draw too long": lambda: packed_artifact(MIXED, packed_init=DRAWN + bytes(12)),
    "draw of no kind": lambda: patched_draw(0, "<I", 3),
    "draw of an infinite number": lambda: patched_draw(4, "<f", float("inf")),
    "draw from b to a": lambda: patched_draw(4, "<f", 2.0),
    "draw of a negative variance": lambda: with_drawn_variance(1, -0.5),
    "draw of a normal variance": lambda: with_drawn_variance(2, 9.0),
    "trained values drawn": lambda: packed_artifact(MIXED, packed_trained=DRAWN),
    "negative variance": lambda: with_variance(-0.5),
    "line 1": lambda: with_line(1),
    "line 1024": lambda: with_line(1024),
    "longest row too large": lambda: patched(PACKED_PATTERN, 0, "<I", LONGEST + 1),
    "longest row too small": lambda: patched(PACKED_PATTERN, 0, "<I", LONGEST - 1),
    "longest row beyond all": lambda: patched(PACKED_PATTERN, 0, "<I", 2**32 - 1),
    "no code": lambda: with_pattern(PACKED[: 4 + 2 * 4]),
    "code too long": lambda: with_pattern(PACKED + b"\0"),
    "no head": lambda: with_pattern(PACKED[:3]),
    "one weight more": lambda: patched(PARAMS, 20, "<I", int(MIXED.params[0].mask.sum()) + 1),  # type: ignore[union-attr]
    "more weights than places": lambda: patched(PARAMS, 20, "<I", 2**31),
    "row_ptr elsewhere": lambda: patched(PARAMS, 24, "<I", 4),
    "trained pruned weight": lambda: packed_artifact(MIXED, trained=TRAINED_PRUNED.tobytes()),
    "plain init, pruned weight": lambda: packed_artifact(MIXED, packed_init=None, init=TRAINED_PRUNED.tobytes()),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt(name: str) -> None:
    content = CORRUPT[name]()
    with pytest.raises(CorruptArtifact):
        Trainer.open(content)


def test_variances_may_be_drawn() -> None:
    with Trainer.open(with_drawn_variance(1, 0.5)) as trainer:
        assert (trainer.values[-40:] >= 0.5).all()


def test_variances_of_half_floats_are_read() -> None:
    with Trainer.open(with_variance(0.5)) as trainer:
        assert trainer.values[-1] == 0.5


def test_each_form_goes_without_the_other() -> None:
    values_plain = packed_artifact(MIXED, packed_init=None, init=body(PLAIN, INIT))
    pattern_plain = packed_artifact(MIXED, packed_pattern=None, pattern=body(PLAIN, PATTERN))
    for content in (values_plain, pattern_plain):
        with Trainer.open(content) as trainer:
            assert trainer.values.tobytes() == MIXED.stored.tobytes()


def drawn(net: Net) -> bytes:
    """What DRAWN means, by the generator's own door."""
    parts = []
    for stream, param in enumerate(net.params):
        rows, cols = param.values.shape
        parts.append(param.ordered(draw(7, stream, "uniform", 0.0, 1.0, rows * cols).reshape(rows, cols)))
    return b"".join(np.asarray(part, np.float32).tobytes() for part in parts)


@pytest.mark.parametrize("form", FORMS)
def test_every_encoding_is_drawn(form: str) -> None:
    for density in (0.04, 0.9):
        net = layer(matrix(24, 130, density, 0, **FORMS[form]))
        with Trainer.open(packed_artifact(net, packed_init=DRAWN[: 16 + 12])) as trainer:
            assert trainer.values.tobytes() == drawn(net)


def test_values_from_a_seed_are_drawn_place_by_place() -> None:
    """By the generator's own door, of every encoding; and again by a reset."""
    wanted = drawn(MIXED)
    with Trainer.open(packed_artifact(MIXED, packed_init=DRAWN)) as trainer:
        assert trainer.values.tobytes() == wanted
        x, y = nets.task(MIXED, 4)
        trainer.train_step(x, y)
        assert trainer.values.tobytes() != wanted
        trainer.reset()
        assert trainer.values.tobytes() == wanted
        again = trainer.export()
    with Trainer.open(again) as trainer:
        assert trainer.values.tobytes() == wanted


def test_every_truncation_of_the_code_is_refused() -> None:
    for size in range(len(PACKED)):
        with pytest.raises(CorruptArtifact):
            Trainer.open(with_pattern(PACKED[:size]))
    assert with_pattern(PACKED) == GOOD


def test_a_flipped_bit_is_refused_or_another_pattern() -> None:
    """With all checksums right the code may mean another pattern; whatever opens also trains, and its rows are in order."""
    start, size = section(GOOD, PACKED_PATTERN)
    x, y = nets.task(MIXED, 4)
    refused = 0
    for bit in range(0, 8 * size, 3):
        content = bytearray(GOOD)
        content[start + bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptArtifact):
            inspect(bytes(content))
        try:
            with Trainer.open(seal(content)) as trainer:
                assert np.isfinite(trainer.fit(x, y, steps=1).losses).all()
                assert trainer.values.size == MIXED.stored.size
        except CorruptArtifact:
            refused += 1
    assert refused > 4 * size / 3


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x80"])
def test_a_few_bytes_do_not_hold_millions_of_weights(fill: bytes) -> None:
    """What is declared is more than the code can hold, and so found out as soon as it ends."""
    rows, cols = 1 << 12, 1 << 16
    net = layer(Param(np.ones((1, 1), np.float32), np.ones((1, 1), bool)))
    params = struct.pack("<2I6I", 1, 0, 1, rows, cols, 2, 0, 4 * (rows + 1))
    net = replace(net, shapes=((cols,), (rows,)))
    content = packed_artifact(
        net,
        params=params,
        packed_pattern=struct.pack("<IH", 2, 0) + fill * 200,
        packed_init=struct.pack("<2I2f", 1, 0, 1, 1),
    )
    with pytest.raises(CorruptArtifact):
        Trainer.open(content, batch=1)


def test_the_images_have_every_kind_of_record() -> None:
    encodings = set()
    for net in (images(), MIXED):
        params = body(artifact(net), PARAMS)
        encodings |= {struct.unpack_from("<I", params, 8 + 24 * i)[0] for i in range(len(net.params))}
    assert encodings == {0, 1, 2, 3, 4, 5}


def test_a_runtime_before_would_have_refused_it() -> None:
    """Kinds rise, and those of packed sections are none that may be skipped."""
    kinds = [kind for kind, _ in section_table()]
    assert all(a < b < 0x8000 for a, b in pairwise(kinds))
    with pytest.raises(IncompatibleArtifact, match="section kind 14"):
        inspect(file(GOOD[:8], [(1, b"{}"), (14, b"")], GOOD[24:56]))
