"""Deltas: the new artifact bit for bit, what a user taught carried over as whole parameters say, and nothing else let in."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from device_runtime import (
    CorruptArtifact,
    CorruptCheckpoint,
    CorruptDelta,
    IncompatibleDelta,
    InvalidInput,
    Trainer,
    apply_delta,
    update,
)
from device_runtime.__main__ import main as device
from device_runtime.simulator import split
from export.__main__ import main as export
from export.compact import compact
from export.delta import to_delta_bytes
from export.layout import stored_values, whole_values
from export.ticket import Floats, Ticket, TicketError
from export.to_native import file_of, to_native_bytes, to_packed_bytes
from tests.export import tkd_reader
from tests.export.tickets import CARD, FLOATS, MILD_FLOATS, RECIPE, Builder, norm_params, small_ticket, tickets, window
from tests.golden import make_delta

ADAM = {"card": CARD | {"recipe": RECIPE | {"batch": 4}}}
FORMS: dict[str, Callable[[Any, bool], bytes]] = {
    "plain": lambda source, trained: to_native_bytes(source),
    "packed": lambda source, trained: to_packed_bytes(source, trained=trained),
}


@st.composite
def successors(draw: st.DrawFn, old: Ticket, values: st.SearchStrategy[float]) -> Ticket:
    """A ticket of the same network: other values, and perhaps other masks or nothing else."""
    shapes = old.network.parameter_shapes
    masks = dict(old.masks)
    if draw(st.booleans()):
        masks = {name: draw(npst.arrays(np.bool_, shapes[name])) for name in old.network.prunable}
        masks = {name: mask for name, mask in masks.items() if mask.any()}

    def near(arrays: Any) -> dict[str, Floats]:
        found = {}
        for name, array in arrays.items():
            other = draw(npst.arrays(np.float32, array.shape, elements=values))
            if name.endswith("_var"):
                other = np.clip(np.abs(other), np.float32(0.25), None)
            other = np.where(draw(npst.arrays(np.bool_, array.shape)), array, other)
            found[name] = np.where(masks[name], other, np.float32(0)) if name in masks else other
        return found

    init = near(old.init)
    trained = near(old.trained) if old.trained is not None else None
    return Ticket(old.network, init, masks, trained, old.card)


pairs = tickets(FLOATS).flatmap(lambda old: st.tuples(st.just(old), successors(old, FLOATS)))
mild_pairs = tickets(MILD_FLOATS).flatmap(lambda old: st.tuples(st.just(old), successors(old, MILD_FLOATS)))


@settings(deadline=None, max_examples=60)
@given(pairs, st.booleans(), st.sampled_from(sorted(FORMS)))
def test_the_old_artifact_and_a_delta_give_the_new_one_bit_for_bit(
    pair: tuple[Ticket, Ticket], whole: bool, form: str
) -> None:
    sources = pair if whole else (compact(pair[0]), compact(pair[1]))
    old, new = (FORMS[form](source, pair[0].trained is not None) for source in sources)
    delta = to_delta_bytes(old, new, pair)
    assert apply_delta(old, delta) == new
    assert tkd_reader.apply(old, delta) == new
    assert update(old, delta) == new  # nothing was taught


@settings(deadline=None, max_examples=50)
@given(mild_pairs, st.integers(0, 2**32 - 1), st.sampled_from(("init", "trained")))
def test_a_checkpoint_is_carried_over_as_whole_parameters_say(
    pair: tuple[Ticket, Ticket], seed: int, start: str
) -> None:
    before, after = pair
    if before.trained is None:
        start = "init"
    old, new = to_native_bytes(compact(before)), to_native_bytes(compact(after))
    delta = to_delta_bytes(old, new, pair)
    saved, user, moments = taught(compact(before).ticket, old, start, seed)
    carried = update(saved, delta, base=old, start=start)
    with Trainer.open(new, batch=4) as trainer, Trainer.open(old, batch=4) as teacher:
        trainer.restore(carried)
        teacher.restore(saved)
        assert trainer.progress == teacher.progress
        assert trainer.values.tobytes() == expected(compact(before), compact(after), user, start).tobytes()
        trainer.fit(*samples(after, seed), steps=trainer.progress.step + 3)  # it goes on
    for number, moment in moments.items():
        old_state, new_state = (state_count(compact(ticket).ticket) for ticket in pair)
        found = moved(compact(before), compact(after), np.concatenate([moment, np.zeros(old_state, np.float32)]))
        assert section(carried, number) == found[: len(found) - new_state].tobytes()


def state_count(ticket: Ticket) -> int:
    return sum(parameter.size for parameter in ticket.network.parameters if parameter.state)


def taught(ticket: Ticket, old: bytes, start: str, seed: int) -> tuple[bytes, Floats, dict[int, Floats]]:
    with Trainer.open(old, batch=4, start=start, seed=seed) as trainer:
        trainer.fit(*samples(ticket, seed), steps=4)
        saved = trainer.save()
        return saved, trainer.values, {kind: np.frombuffer(section(saved, kind), "<f4") for kind in (3, 4)}


def samples(ticket: Ticket, seed: int) -> tuple[Floats, Any]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(9, *ticket.network.input_shape)).astype(np.float32)
    return x, random.integers(0, ticket.network.output_shape[0], 9)


def section(content: bytes, wanted: int) -> bytes:
    (count,) = struct.unpack_from("<I", content, 16)
    table = [struct.unpack_from("<4I", content, 64 + 16 * index) for index in range(count)]
    return next((content[at : at + size] for kind, at, size, _ in table if kind == wanted), b"")


def spread(compaction: Any, stored: Floats) -> dict[str, tuple[Floats, Any]]:
    """Every whole parameter, and which of its values the artifact holds."""
    found = {}
    part = whole_values(compaction.ticket.network, compaction.ticket.masks, stored)
    for name, shape in compaction.original.network.parameter_shapes.items():
        values, held = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        place = np.ix_(*compaction.kept[name])
        values[place] = part[name]
        held[place] = compaction.ticket.masks.get(name, True)
        found[name] = (values, held)
    return found


def gathered(compaction: Any, whole: dict[str, Floats]) -> Floats:
    ticket = compaction.ticket
    part = {name: whole[name][np.ix_(*compaction.kept[name])] for name in whole}
    return stored_values(ticket.network, ticket.masks, part)


def expected(before: Any, after: Any, user: Floats, start: str) -> Floats:
    """new + (user - old) where both hold the weight, else new: in whole parameters, without artifacts."""
    found = {}
    for name, (mine, held) in spread(before, user).items():
        old, new = (getattr(c.original, start)[name].astype(np.float64) for c in (before, after))
        total = (new + (mine - old)).astype(np.float32)
        if name.endswith("running_var"):
            total = np.maximum(total, np.minimum(mine, new.astype(np.float32)))
        total = np.where(mine == old, new.astype(np.float32), total)
        kept = np.ix_(*after.kept[name])
        stays = np.zeros(held.shape, np.bool_)
        stays[kept] = after.ticket.masks.get(name, True)
        found[name] = np.where(stays, np.where(held, total, new.astype(np.float32)), np.float32(0))
    return gathered(after, found)


def moved(before: Any, after: Any, stored: Floats) -> Floats:
    whole = {name: np.where(held, values, np.float32(0)) for name, (values, held) in spread(before, stored).items()}
    masks = after.original.masks
    return gathered(after, {n: np.where(masks.get(n, True), v, np.float32(0)) for n, v in whole.items()})


def test_a_channel_with_running_statistics_may_come_and_go() -> None:
    """With a mask that lets nothing read it, compaction leaves it out, and its state too."""
    builder = Builder((2, 3))
    builder.add("conv", params={"weight": (2, 2, 1)}, groups=1, **window((2, 3), kernel=1, stride=1, pad=0, dilation=1))
    builder.add("batch_norm", params=norm_params(2), epsilon=0.01, momentum=0.5, frozen=0)
    builder.add("reshape", shape=(6,))
    builder.add("linear", params={"weight": (3, 6)})
    network, random = builder.network(), np.random.default_rng(0)
    shapes = network.parameter_shapes
    init = {name: random.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    half = np.zeros((3, 6), np.bool_)
    half[:, :3] = True
    found = []
    for mask in (half, np.ones((3, 6), np.bool_)):
        values = init | {"linear3.weight": np.where(mask, init["linear3.weight"], np.float32(0))}
        found.append(Ticket(network, values, {"linear3.weight": mask}, None, ADAM["card"]))
    assert [state_count(compact(ticket).ticket) for ticket in found] == [2, 4]
    for before, after in (found, found[::-1]):
        old, new = to_native_bytes(compact(before)), to_native_bytes(compact(after))
        saved, user, _ = taught(compact(before).ticket, old, "init", 0)
        with Trainer.open(new, batch=4) as trainer:
            trainer.restore(update(saved, to_delta_bytes(old, new, (before, after)), base=old))
            assert trainer.values.tobytes() == expected(compact(before), compact(after), user, "init").tobytes()


def pair_of_adam(**changes: Any) -> tuple[Ticket, Ticket]:
    """The small ticket with trained values, and its successor with others."""
    old = small_ticket(**ADAM)
    trained = {name: values * np.float32(1.25) for name, values in old.init.items()}
    old = replace(old, trained=trained)
    newer = {name: values * np.float32(1.5) for name, values in old.init.items()}
    return old, replace(old, trained=newer, **changes)


def test_without_new_values_a_delta_is_a_few_hundred_bytes() -> None:
    old, new = pair_of_adam()
    a, b = to_native_bytes(old), to_native_bytes(new)
    assert len(to_delta_bytes(a, b)) < 600 < len(b)


def test_sections_longer_than_deflate_looks_back_are_whole() -> None:
    random = np.random.default_rng(3)
    builder = Builder((300,))
    builder.add("linear", params={"weight": (300, 300)})
    found = []
    for flips in (0, 40):
        mask = np.random.default_rng(4).random((300, 300)) < 0.3
        mask.ravel()[random.integers(0, mask.size, flips)] ^= True
        init = {"linear0.weight": np.where(mask, random.normal(size=mask.shape), 0).astype(np.float32)}
        found.append(Ticket(builder.network(), init, {"linear0.weight": mask}, None, CARD))
    old, new = (to_native_bytes(ticket) for ticket in found)
    delta = to_delta_bytes(old, new, (found[0], found[1]))
    assert len(section(old, 6)) > 50000
    assert tkd_reader.apply(old, delta) == apply_delta(old, delta) == new


def test_an_exported_artifact_is_carried_over_too() -> None:
    old, new = pair_of_adam()
    a, b = to_native_bytes(old), to_native_bytes(new)
    delta = to_delta_bytes(a, b)
    with Trainer.open(a, batch=4, start="trained") as trainer:
        trainer.fit(*samples(old, 1), steps=5)
        user, mine = trainer.values, trainer.export()
    with pytest.raises(InvalidInput, match=r"server's trained values are not in it any more; give .* as base"):
        update(mine, delta, start="trained")
    with pytest.raises(InvalidInput, match="give start, which of them training began from"):
        update(mine, delta, base=a)
    carried = update(mine, delta, base=a, start="trained")
    with Trainer.open(carried, start="trained") as trainer:
        assert trainer.values.tobytes() == expected(whole(old), whole(new), user, "trained").tobytes()
        assert trainer.info.ticket_hash == new.hash
    with Trainer.open(carried, start="init") as trainer, Trainer.open(b, start="init") as server:
        assert trainer.values.tobytes() == server.values.tobytes()


def test_an_exported_artifact_of_a_base_without_trained_values_is_enough() -> None:
    old = small_ticket(**ADAM)
    new = replace(old, init={name: values * np.float32(1.5) for name, values in old.init.items()})
    a, b = to_native_bytes(old), to_native_bytes(new)
    delta = to_delta_bytes(a, b)
    with Trainer.open(a, batch=4) as trainer:
        trainer.fit(*samples(old, 1), steps=5)
        user, mine = trainer.values, trainer.export()
    with Trainer.open(update(mine, delta), start="trained") as trainer:
        assert trainer.values.tobytes() == expected(whole(old), whole(new), user, "init").tobytes()
    with pytest.raises(InvalidInput, match="start 'trained': the base artifact holds no trained values"):
        update(mine, delta, start="trained")


def whole(ticket: Ticket) -> Any:
    found = compact(ticket)
    assert found.ticket is ticket
    return found


def test_a_variance_never_falls_below_both() -> None:
    builder = Builder((2, 4))
    builder.add("batch_norm", params=norm_params(2), epsilon=0.01, momentum=0.5, frozen=0)
    builder.add("reshape", shape=(8,))
    builder.add("linear", params={"weight": (3, 8)})
    network = builder.network()
    init = {name: np.full(shape, 2, np.float32) for name, shape in network.parameter_shapes.items()}
    old = Ticket(network, init, {}, None, ADAM["card"])
    lower = init | {name: np.full(2, 0.5, np.float32) for name in init if name.endswith("running_var")}
    a, b = (to_native_bytes(ticket) for ticket in (old, replace(old, init=lower)))
    with Trainer.open(a, batch=4) as trainer:
        trainer.fit(0.1 * samples(old, 0)[0], samples(old, 0)[1], steps=20)  # of little variance
        saved, user = trainer.save(), trainer.values
    with Trainer.open(b, batch=4) as trainer:
        trainer.restore(update(saved, to_delta_bytes(a, b), base=a))
        assert (user[-2:] < 0.5).all()
        assert trainer.values[-2:].tolist() == user[-2:].tolist()  # not 0.5 + (user - 2)


def test_the_golden_delta_is_that_of_the_format() -> None:
    delta, new = make_delta.golden()
    golden = Path(make_delta.__file__).parent
    assert (golden / "tiny.tkd").read_bytes() == delta
    assert apply_delta(golden / "tiny.tkt", golden / "tiny.tkd") == new
    assert tkd_reader.apply((golden / "tiny.tkt").read_bytes(), delta) == new


def resealed(delta: bytes, **changed: bytes) -> bytes:
    """With other sections, BASE, SECTIONS, CODES or PLACES, under sound checksums."""
    names = ("BASE", "SECTIONS", "CODES", "PLACES")
    sections = {number: changed.get(name, section(delta, number)) for number, name in enumerate(names, start=1)}
    return file_of(sections, delta[24:56], delta[:8])


def test_sound_checksums_do_not_make_a_sound_delta() -> None:
    delta, _ = make_delta.golden()
    base = Path(make_delta.__file__).parent / "tiny.tkt"
    codes = section(delta, 3)
    with pytest.raises(CorruptDelta, match="another size or SHA-256"):
        apply_delta(base, resealed(delta, CODES=codes.replace(b"the next one", b"the worse 1!")))
    count = struct.unpack_from("<3I", section(delta, 1), 96)[2]
    for last, fits in ((count - 1, True), (count, False)):
        words = [2 * last + 1] + [0] * (count - 1)  # of the first value alone, folded
        code = struct.pack("<I", count) + make_delta.stored_block(make_delta.planes(words))
        why = "SHA-256" if fits else "points behind the values"
        with pytest.raises(CorruptDelta, match=why):
            apply_delta(base, resealed(delta, PLACES=code))


@pytest.fixture(scope="module")
def small() -> tuple[bytes, bytes, bytes]:
    old, new = pair_of_adam()
    a, b = to_native_bytes(old), to_native_bytes(new)
    return a, b, to_delta_bytes(a, b)


def test_every_truncation_and_every_flipped_bit_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, delta = small
    for size in range(len(delta)):
        with pytest.raises(CorruptDelta):
            apply_delta(old, delta[:size])
    flipped = bytearray(delta)
    for bit in range(8 * len(delta)):
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptDelta, IncompatibleDelta)):
            apply_delta(old, bytes(flipped))
        flipped[bit // 8] ^= 1 << bit % 8


def test_a_small_delta_cannot_ask_for_much_memory(
    small: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is announced is held against the rest before anything is inflated."""
    old, _, delta = small
    inflated: list[int] = []

    def counted(code: bytes, size: int, dictionary: bytes = b"") -> bytes:
        inflated.append(size)
        raise CorruptDelta("inflated")

    monkeypatch.setattr("device_runtime.delta.inflated", counted)
    sections = {kind: section(delta, kind) for kind in (1, 2, 3)}
    values = sum(size for kind, _, _, size, _ in struct.iter_unpack("<5I", sections[2]) if kind in (7, 8))
    many = struct.pack("<I", values) + b"any code"
    with pytest.raises(CorruptDelta, match="PLACES has too many values"):
        apply_delta(old, file_of({**sections, 4: many}, delta[24:56], delta[:8]))
    for new_bytes, message in ((2**31, "a field of BASE"), (100, "larger than the artifact they make")):
        base = sections[1][:96] + struct.pack("<I", new_bytes) + sections[1][100:]
        with pytest.raises(CorruptDelta, match=message):
            apply_delta(old, file_of({**sections, 1: base}, delta[24:56], delta[:8]))
    assert inflated == []


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_content_under_sound_checksums_does_harm(data: st.DataObject) -> None:
    """What is let through is the new artifact, or values of a checkpoint that places misled, which the core found sound."""
    masks = {"a.weight": np.array([[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]], np.bool_)}
    old = small_ticket(**ADAM)
    new = small_ticket(masks=masks, init={**old.init, "a.weight": masks["a.weight"] * np.float32(2)}, **ADAM)
    a, b = to_native_bytes(old), to_native_bytes(new)
    delta = to_delta_bytes(a, b, (old, new))
    sections = {kind: bytearray(section(delta, kind)) for kind in (1, 2, 3, 4)}
    for _ in range(data.draw(st.integers(1, 4))):
        content = sections[data.draw(st.sampled_from((1, 2, 3, 4)))]
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    spoilt = file_of({kind: bytes(content) for kind, content in sections.items()}, delta[24:56], delta[:8])
    saved, _, _ = taught(old, a, "init", 0)
    try:
        assert apply_delta(a, spoilt) == b
        carried = update(saved, spoilt, base=a)
    except (CorruptDelta, IncompatibleDelta, CorruptCheckpoint, InvalidInput):
        return
    with Trainer.open(b, batch=4) as trainer:
        trainer.restore(carried)


def test_a_delta_of_another_artifact_is_refused_by_its_hash(small: tuple[bytes, bytes, bytes]) -> None:
    old, new, delta = small
    first, second = (content[24:56].hex()[:12] for content in (old, new))
    with pytest.raises(IncompatibleDelta, match=f"is of ticket {first}, but the artifact is of ticket {second}; fetch"):
        apply_delta(new, delta)
    with Trainer.open(old, start="trained") as trainer:
        trained_since = trainer.export()
    assert trained_since == old
    with Trainer.open(old, start="init") as trainer:
        other_file = trainer.export()
    wanted = hashlib.sha256(old).hexdigest()[:12]
    with pytest.raises(IncompatibleDelta, match=rf"not the file that was published \(SHA-256 \w{{12}}, not {wanted}\)"):
        apply_delta(other_file, delta)
    with pytest.raises(CorruptArtifact):
        apply_delta(old[:-1], delta)


def test_what_cannot_be_carried_over_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, new, delta = small
    with Trainer.open(old) as trainer:
        saved = trainer.save()
    with pytest.raises(InvalidInput, match="a checkpoint holds no pattern"):
        update(saved, delta)
    with pytest.raises(CorruptCheckpoint):
        update(saved[:-1], delta, base=old, start="init")
    with Trainer.open(new) as trainer:
        stranger = trainer.save()
    with pytest.raises(CorruptCheckpoint, match="was made from ticket"):
        update(stranger, delta, base=old, start="init")
    with pytest.raises(InvalidInput, match=r"neither an artifact nor a checkpoint; give MINE.tkt"):
        update(b"PK", delta)
    with pytest.raises(IncompatibleDelta):
        update(new, delta)
    with pytest.raises(InvalidInput, match="more than its trained values differs"):
        update(new, delta, base=old, start="init")
    with pytest.raises(InvalidInput, match="start 'middle' is not known"):
        update(saved, delta, base=old, start="middle")
    newer = bytearray(delta)
    struct.pack_into("<H", newer, 8, 2)
    with pytest.raises(IncompatibleDelta, match="version 2"):
        apply_delta(old, bytes(newer))


def test_what_is_no_update_is_refused_when_it_is_made() -> None:
    old, new = pair_of_adam()
    other = small_ticket(masks={"a.weight": np.ones((3, 4), np.bool_)}, init=dict(old.init), **ADAM)
    a, b, c = (to_native_bytes(ticket) for ticket in (old, new, other))
    with pytest.raises(TicketError, match="give the tickets of both"):
        to_delta_bytes(a, c)
    with pytest.raises(TicketError, match=f"is of ticket {other.hash[:12]}, but the ticket given is {new.hash[:12]}"):
        to_delta_bytes(a, c, (old, new))
    with pytest.raises(TicketError, match="damaged; copy it again"):
        to_delta_bytes(a, b[:-1] + bytes([b[-1] ^ 1]))
    builder = Builder((2, 2))
    builder.add("reshape", shape=(4,))
    builder.add("linear", params={"weight": (2, 4)})
    network = builder.network()
    strange = Ticket(network, {"linear1.weight": np.ones((2, 4), np.float32)}, {}, None, old.card)
    with pytest.raises(TicketError, match="different networks"):
        to_delta_bytes(a, to_native_bytes(strange), (old, strange))


def test_the_commands_do_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = pair_of_adam(masks={"a.weight": np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], np.bool_)})
    for name, ticket in (("one", old), ("two", new)):
        ticket.save(tmp_path / name)
        (tmp_path / f"{name}.tkt").write_bytes(to_native_bytes(ticket))
    one, two, out = (str(tmp_path / name) for name in ("one.tkt", "two.tkt", "out"))
    assert export(["delta", one, two, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(tmp_path / "two.tkd")
    assert told["bytes"] == (tmp_path / "two.tkd").stat().st_size
    assert told["same_masks"]
    assert device(["update", one, "--delta", told["path"], "--output", out]) == 0
    assert Path(out).read_bytes() == Path(two).read_bytes()
    with Trainer.open(one, start="trained", batch=4) as trainer:
        trainer.fit(*samples(old, 1), steps=3, checkpoint=tmp_path / "mine.tkc")
    mine = ["update", str(tmp_path / "mine.tkc"), "--delta", told["path"], "--output", out]
    capsys.readouterr()
    assert device(mine) == 2
    assert "give the artifact it was trained from as base" in capsys.readouterr().err
    assert device([*mine, "--base", one, "--start", "trained", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kind"], result["ticket_hash"]) == ("checkpoint", new.hash)
    assert result["kept_values"] == result["value_count"] == result["base_value_count"] == 14
    with Trainer.open(two, batch=4) as trainer:
        assert trainer.restore(out)
        assert trainer.progress.step == 3


def test_the_command_finds_the_tickets_of_other_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = small_ticket(**ADAM)
    live = np.ones((3, 4), np.bool_)
    new = small_ticket(masks={"a.weight": live}, init={**old.init, "a.weight": live * np.float32(1)}, **ADAM)
    for name, ticket in (("one", old), ("two", new)):
        ticket.save(tmp_path / name)
        (tmp_path / f"{name}.packed.tkt").write_bytes(to_packed_bytes(ticket))
    one, two = (str(tmp_path / f"{name}.packed.tkt") for name in ("one", "two"))
    assert export(["delta", one, two]) == 0
    delta = tmp_path / "two.packed.tkd"
    assert apply_delta(one, delta) == Path(two).read_bytes()
    assert f"{delta.stat().st_size:,} bytes" in capsys.readouterr().out
    Path(one).rename(tmp_path / "moved.tkt")
    assert export(["delta", str(tmp_path / "moved.tkt"), two]) == 2
    assert "the masks differ, so both tickets are needed" in capsys.readouterr().err
    folders = ["--tickets", str(tmp_path / "one"), str(tmp_path / "two")]
    assert export(["delta", str(tmp_path / "moved.tkt"), two, *folders]) == 0
    assert export(["delta", two, two, *folders]) == 2
    assert "these agree, leave it out" in capsys.readouterr().err


def test_simulated_devices_take_an_update_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = pair_of_adam()
    random = np.random.default_rng(0)
    x, user = random.normal(size=(60, 2, 2)).astype(np.float32), np.repeat([0, 1], 30)
    y = (x[:, 0, 0] > 0).astype(np.int64) ^ user
    np.savez(tmp_path / "people.npz", x=x, y=y, user=user)
    for name, content in (("one.tkt", to_native_bytes(old)), ("two.tkt", to_native_bytes(new))):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "two.tkd").write_bytes(
        to_delta_bytes((tmp_path / "one.tkt").read_bytes(), (tmp_path / "two.tkt").read_bytes())
    )
    people, out = f"npz:{tmp_path / 'people.npz'}", tmp_path / "out"
    words = ["--data", people, "--start", "trained", "--batch", "4", "--epochs", "20", "--output-dir", str(out)]
    delta = str(tmp_path / "two.tkd")
    assert device(["simulate", str(tmp_path / "one.tkt"), *words, "--delta", delta, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert device(["simulate", str(tmp_path / "two.tkt"), *words[:-2], "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert [d["replaced"] for d in report["users"]] == [d["before"] for d in alone["users"]]
    assert "updated" not in alone["users"][0]
    assert "updated_mean" not in alone["summary"]
    for index, one in enumerate(report["users"]):
        folder = out / f"device-{index:04d}"
        carried = update(folder / "checkpoint.tkc", delta, base=tmp_path / "one.tkt", start="trained")
        assert carried == (folder / "updated.tkc").read_bytes()
        rows = np.flatnonzero(user == index)
        _, apart = split(y[rows], 0.3, np.random.default_rng([0, index]))
        with Trainer.open(tmp_path / "two.tkt", batch=4) as trainer:
            trainer.restore(carried)
            assert one["updated"] == trainer.evaluate(x[rows[apart]], y[rows[apart]]).accuracy
    assert report["summary"]["updated_mean"] == np.mean([d["updated"] for d in report["users"]])
    assert device(["simulate", str(tmp_path / "one.tkt"), *words, "--delta", delta]) == 0
    assert "accuracy updated" in capsys.readouterr().out


def test_a_signed_delta_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cryptography")
    old, new = pair_of_adam()
    a, b = to_native_bytes(old), to_native_bytes(new)
    (tmp_path / "one.tkt").write_bytes(a)
    (tmp_path / "d.tkd").write_bytes(to_delta_bytes(a, b))
    assert export(["keygen", str(tmp_path / "keys")]) == 0
    assert export(["sign", str(tmp_path / "d.tkd"), "--key", str(tmp_path / "keys/private.pem")]) == 0
    words = ["update", str(tmp_path / "one.tkt"), "--delta", str(tmp_path / "d.tkd"), "--output", str(tmp_path / "out")]
    words += ["--public-key", str(tmp_path / "keys/public.pem")]
    assert device(words) == 0
    (tmp_path / "d.tkd").write_bytes(b"something else")
    assert device(words) == 2
    assert "signature does not fit" in capsys.readouterr().err


def test_a_device_updates_without_torch(tmp_path: Path, small: tuple[bytes, bytes, bytes]) -> None:
    old, new, delta = small
    (tmp_path / "old.tkt").write_bytes(old)
    (tmp_path / "d.tkd").write_bytes(delta)
    script = """
import sys
for name in ("torch", "safetensors", "export", "onnx"):
    sys.modules[name] = None
from device_runtime.__main__ import main
sys.exit(main(["update", "old.tkt", "--delta", "d.tkd", "--output", "new.tkt"]))
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "new.tkt").read_bytes() == new
