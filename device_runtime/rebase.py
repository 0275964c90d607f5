"""Carries what a user taught a ticket over to the server's update of it: the server's new values, and on top of them what the
training on the device had added to the old ones.

    value = new server value + (user's value - old server value)        where the weight is live in both
    value = new server value                                            where it is live in the new ticket alone

What the new mask lacks is dropped. Running variances stay at or above the lower of both. In a checkpoint the optimizer's state stays
with its weight (0 for a new one), and so do step, epoch, seed and position: training goes on where it was, its schedule too, instead of
starting anew.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.artifact import OPTIMIZERS, STARTS, Source, read_artifact, read_info
from device_runtime.container import ARTIFACT, CHECKPOINT, Container, read, type_of, write
from device_runtime.delta import NOWHERE, Delta, Places, applied, check_base, read_delta
from device_runtime.errors import IncompatibleDelta, InvalidInput
from device_runtime.trainer import Trainer

Floats = NDArray[np.float32]

GRAPH, PARAMS, INIT, TRAINED, PACKED_INIT, PACKED_TRAINED = 4, 5, 7, 8, 12, 13
STATE, VALUES, MOMENT1, MOMENT2 = range(1, 5)
STATE_LAYOUT = struct.Struct("<3Q2I2d4I")
MASKED, BATCH_NORM = 5, 8


def update(mine: Source, delta: Source, *, base: Source | None = None, start: str | None = None) -> bytes:
    """What the user has, under the updated ticket: of a checkpoint a checkpoint, of an artifact that `Trainer.export` wrote an
    artifact, of the server's own artifact the new one, bit for bit.

    `base` is the server's artifact that `mine` was trained from, needed unless `mine` itself still holds all of it: a
    checkpoint never does, an artifact where the server's had no trained values. `start` is what the training began from, init or
    trained; needed where the server's artifact holds both. The new artifact for a checkpoint is `apply_delta(base, delta)`.
    Raises CorruptDelta, IncompatibleDelta, CorruptCheckpoint, CorruptArtifact, InvalidInput, OSError.
    """
    content, change = read_artifact(mine), read_delta(delta)
    kind = type_of(content)
    if kind not in (ARTIFACT, CHECKPOINT):
        raise InvalidInput("it is neither an artifact nor a checkpoint; give MINE.tkt or MINE.tkc")
    old = _base(content, None if base is None else read_artifact(base), change)
    new = applied(old, change)
    if content == old:
        return new
    before, after = _server_values(old, new, change, start)
    if kind is CHECKPOINT:
        return _checkpoint(content, old, new, change, before, after)
    mine_file, old_file, new_file = (read(artifact, ARTIFACT) for artifact in (content, old, new))
    if _without_trained(mine_file) != _without_trained(old_file):
        raise InvalidInput("the artifact was not trained from the base: more than its trained values differs")
    taught = _rebased(_values(content, "trained"), before, after, change.places, new_file)
    sections = {**_without_trained(new_file).sections, TRAINED: taught.astype("<f4").tobytes()}
    updated = write(replace(new_file, sections=sections), ARTIFACT)
    read_info(updated)
    return updated


def _base(mine: bytes, base: bytes | None, delta: Delta) -> bytes:
    """The artifact that the delta is of. Raises IncompatibleDelta, InvalidInput where it has to be given."""
    if base is not None:
        check_base(base, delta)
        return base
    if type_of(mine) is CHECKPOINT:
        raise InvalidInput("a checkpoint holds no pattern of weights; give the artifact it was trained from as base")
    for candidate in (mine, write(_without_trained(read(mine, ARTIFACT)), ARTIFACT)):
        try:
            check_base(candidate, delta)
        except IncompatibleDelta as error:
            refused = error
        else:
            return candidate
    if read(mine, ARTIFACT).ticket_hash == delta.base_ticket_hash:
        raise InvalidInput(
            "the server's trained values are not in it any more; give the artifact it was trained from as base"
        )
    raise refused


def _without_trained(file: Container) -> Container:
    kept = {kind: section for kind, section in file.sections.items() if kind not in (TRAINED, PACKED_TRAINED)}
    return replace(file, sections=kept)


def _server_values(old: bytes, new: bytes, delta: Delta, start: str | None) -> tuple[Floats, Floats]:
    """The values that training began from, of the old artifact and of the new one."""
    if start is not None and start not in STARTS:
        raise InvalidInput(f"start {start!r} is not known; choose {', '.join(STARTS)}")
    both = read_info(old).has_trained
    if start is None and both:
        raise InvalidInput("the base holds initial and trained values; give start, which of them training began from")
    start = start or "init"
    for which, artifact in (("base", old), ("new", new)):
        if start == "trained" and not read_info(artifact).has_trained:
            raise InvalidInput(f"start 'trained': the {which} artifact holds no trained values; give start 'init'")
    before, after = _values(old, start), _values(new, start)
    in_base = len(before) if delta.places is None else delta.base_value_count
    if len(before) != in_base or len(after) != (len(before) if delta.places is None else len(delta.places)):
        raise IncompatibleDelta(
            "the delta's places are of artifacts with other numbers of values; fetch the new one whole"
        )
    return before, after


def _values(artifact: bytes, start: str) -> Floats:
    with Trainer.open(artifact, batch=1, start=start) as trainer:
        return trainer.values


def _rebased(user: Floats, before: Floats, after: Floats, places: Places | None, new: Container) -> Floats:
    """The user's values under the new ticket, in its order; the server's, to the bit, where the user's are the old server's."""
    user, before = _moved(user, places), _moved(before, places)
    with np.errstate(over="ignore"):
        moved = (after.astype(np.float64) + (user.astype(np.float64) - before)).astype(np.float32)
    found = np.where(user == before, after, moved).astype(np.float32)
    for _, part in _running(new):
        found[part] = np.maximum(found[part], np.minimum(user[part], after[part]))
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise InvalidInput(f"value {place} would be {found[place]}; start from the new artifact instead")
    return found


def _moved(values: Floats, places: Places | None) -> Floats:
    """In the order of the new artifact; 0 where the old one had none."""
    if places is None:
        return values
    return np.where(places == NOWHERE, np.float32(0), values[places])


def _running(artifact: Container) -> list[tuple[slice, slice]]:
    """Where the running means and variances stand among the stored values."""
    params, graph = artifact.sections[PARAMS], artifact.sections[GRAPH]
    sizes = [
        rows * cols if encoding == MASKED else nnz
        for encoding, rows, cols, nnz, _, _ in struct.iter_unpack("<6I", params[8:])
    ]
    ends = np.cumsum(sizes).tolist()
    buffer_count, node_count = struct.unpack_from("<2I", graph)
    at, found = 16 + 20 * buffer_count, []
    for _ in range(node_count):
        operator, inputs, parameters, attributes = struct.unpack_from("<4H", graph, at)
        if operator == BATCH_NORM:
            numbers = struct.unpack_from("<2I", graph, at + 8 + 4 * (inputs + 2))
            mean, variance = (slice(ends[number] - sizes[number], ends[number]) for number in numbers)
            found.append((mean, variance))
        at += 8 + 4 * (inputs + parameters + attributes)
    return found


def _checkpoint(mine: bytes, old: bytes, new: bytes, delta: Delta, before: Floats, after: Floats) -> bytes:
    """The same moment of the same training, of the new ticket. The core checks what comes in and what goes out."""
    file = read(mine, CHECKPOINT)
    options = _options(file.sections)
    with Trainer.open(old, **options) as trainer:
        trainer.restore(mine)
        user = trainer.values
    with Trainer.open(new, **options) as trainer:
        made = STATE_LAYOUT.unpack(read(trainer.save(), CHECKPOINT).sections[STATE])
    state = (*STATE_LAYOUT.unpack(file.sections[STATE])[:-3], *made[-3:])  # what tells the new artifact's values
    new_file = read(new, ARTIFACT)
    values = _rebased(user, before, after, delta.places, new_file)
    sections = {STATE: STATE_LAYOUT.pack(*state), VALUES: values.astype("<f4").tobytes()}
    for kind in (MOMENT1, MOMENT2):
        if kind in file.sections:
            moment = np.frombuffer(file.sections[kind], "<f4")
            sections[kind] = _moved_moment(moment, len(user), delta.places, new_file)
    updated = write(Container(delta.ticket_hash, sections, file.minor), CHECKPOINT)
    with Trainer.open(new, **options) as trainer:
        trainer.restore(updated)
    return updated


def _moved_moment(moment: Floats, value_count: int, places: Places | None, new: Container) -> bytes:
    """State comes last and has no moment; a channel that an export left out, and the next one does not, has state too."""
    whole = _moved(np.concatenate([moment, np.zeros(value_count - len(moment), np.float32)]), places)
    state_count = sum(part.stop - part.start for parts in _running(new) for part in parts)
    return whole[: len(whole) - state_count].astype("<f4").tobytes()


def _options(sections: Mapping[int, bytes]) -> dict[str, Any]:
    """Those of a trainer, as small as can be, that takes such a checkpoint; what it holds is the core's to judge."""
    state = sections.get(STATE, b"")
    if len(state) != STATE_LAYOUT.size:
        return {"batch": 1}
    code, moments = STATE_LAYOUT.unpack(state)[4], STATE_LAYOUT.unpack(state)[7]
    optimizer = next((name for name, number in OPTIMIZERS.items() if number == code), None)
    return {"batch": 1, "optimizer": optimizer, "momentum": 0.5 if moments else 0.0, "nesterov": False}
