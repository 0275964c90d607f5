"""A checkpoint survives kills, full disks and flipped bits, and a run taken up from it is the run never interrupted."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_runtime import CheckpointWarning, CorruptArtifact, CorruptCheckpoint, InvalidInput, Trainer
from device_runtime import checkpoint as files
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import (
    ADAM,
    CHECKPOINT_MAGIC,
    SGD,
    Recipe,
    artifact,
    file,
    packed_artifact,
    seal,
    section,
)

NET = nets.small()
ARTIFACT = artifact(NET)
X, Y = nets.task(NET, 45)
STATE, VALUES, MOMENT1, MOMENT2 = 1, 2, 3, 4


@pytest.mark.parametrize("recipe", [Recipe(SGD, momentum=0.0), Recipe(SGD, momentum=0.9), Recipe(ADAM)])
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 13])
def test_a_run_taken_up_again_is_the_run_never_interrupted(recipe: Recipe, stop: int) -> None:
    content = artifact(replace(NET, recipe=recipe))
    with Trainer.open(content, seed=9) as trainer:
        whole, values = trainer.fit(X, Y, epochs=4).losses, trainer.values
    with Trainer.open(content, seed=9) as trainer:
        begun = trainer.fit(X, Y, steps=stop).losses
        saved = trainer.save()
    with Trainer.open(content) as trainer:  # the seed comes with the checkpoint
        assert trainer.restore(saved)
        assert trainer.save() == saved
        rest = trainer.fit(X, Y, epochs=4).losses
        assert trainer.values.tobytes() == values.tobytes()
    assert np.concatenate([begun, rest]).tobytes() == whole.tobytes()


def test_a_checkpoint_may_be_restored_at_another_batch() -> None:
    with Trainer.open(ARTIFACT, batch=8) as small, Trainer.open(ARTIFACT, batch=16) as large:
        small.fit(X, Y, steps=3)
        large.restore(small.save())
        assert large.values.tobytes() == small.values.tobytes()
        assert large.progress == small.progress


def test_a_checkpoint_of_another_optimizer_or_ticket_is_refused() -> None:
    other = artifact(replace(NET, ticket_hash=bytes(32)))
    with Trainer.open(ARTIFACT) as trainer:
        saved = trainer.save()
    with Trainer.open(ARTIFACT, optimizer="adam") as adam:
        before = adam.save()
        with pytest.raises(InvalidInput):
            adam.restore(saved)
        assert adam.save() == before
    with Trainer.open(ARTIFACT, momentum=0.0) as plain, pytest.raises(InvalidInput):
        plain.restore(saved)
    with Trainer.open(other) as stranger, pytest.raises(CorruptCheckpoint, match=r"(?s)(?=.*00010203)(?=.*00000000)"):
        stranger.restore(saved)


def test_every_truncation_and_every_flipped_bit_is_refused() -> None:
    net = nets.mlp((4, 3, 2), 0.5)
    with Trainer.open(artifact(net)) as trainer:
        saved = bytearray(trainer.save())
        before = bytes(saved)
        for size in range(len(saved)):
            with pytest.raises(CorruptCheckpoint):
                trainer.restore(before[:size])
        for bit in range(8 * len(saved)):
            saved[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CorruptCheckpoint):
                trainer.restore(bytes(saved))
            saved[bit // 8] ^= 1 << bit % 8
        assert trainer.save() == before
        trainer.restore(before)


def changed(saved: bytes, kind: int, offset: int, patch: bytes) -> bytes:
    content = bytearray(saved)
    start = section(saved, kind)[0] + offset
    content[start : start + len(patch)] = patch
    return seal(content)


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "an artifact": lambda saved: ARTIFACT,
    "empty": lambda saved: b"",
    "values NaN": lambda saved: changed(saved, VALUES, 0, bytes.fromhex("0000c07f")),
    "value_count": lambda saved: changed(saved, STATE, 52, bytes(4)),
    "layout": lambda saved: changed(saved, STATE, 56, b"\1\2\3\4"),
    "reserved": lambda saved: changed(saved, STATE, 60, b"\1"),
    "values missing": lambda saved: file(CHECKPOINT_MAGIC, [(1, saved[128:192])], NET.ticket_hash),
}


def test_a_checkpoint_knows_the_order_of_its_values() -> None:
    """Two exports of a ticket may have as many values in another order, such as a compacted one that fell into blocks."""
    wide = nets.mlp((6, 4, 3), 0.5)
    turned = replace(
        wide,
        params=tuple(
            replace(p, mask=p.mask[::-1].copy(), values=p.values[::-1].copy()) if p.mask is not None else p
            for p in wide.params
        ),
    )
    with Trainer.open(artifact(wide)) as one, Trainer.open(artifact(turned)) as other:
        saved, before = one.save(), other.save()
        with pytest.raises(CorruptCheckpoint, match="stores its values in another order"):
            other.restore(saved)
        assert other.save() == before
        other.restore(changed(saved, STATE, 56, bytes(4)))  # of a writer that did not know it


def test_the_packed_form_of_an_artifact_has_the_same_order() -> None:
    with Trainer.open(ARTIFACT) as plain, Trainer.open(packed_artifact(NET)) as packed:
        plain.fit(X, Y, steps=3)
        packed.restore(plain.save())
        assert packed.save() == plain.save()


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_checkpoints_are_refused(name: str) -> None:
    with Trainer.open(ARTIFACT) as trainer:
        trainer.fit(X, Y, steps=2)
        saved = trainer.save()
        with pytest.raises(CorruptCheckpoint):
            trainer.restore(MALFORMED[name](saved))
        assert trainer.save() == saved


def state(**fields: float) -> Callable[[bytes], bytes]:
    """Puts values into STATE."""
    places = {"step": (0, "<Q"), "position": (24, "<I"), "beta1_power": (32, "<d"), "beta2_power": (40, "<d")}

    def change(saved: bytes) -> bytes:
        for name, value in fields.items():
            offset, layout = places[name]
            saved = changed(saved, STATE, offset, struct.pack(layout, value))
        return saved

    return change


def moment(kind: int, value: float) -> Callable[[bytes], bytes]:
    """Puts a value at the end of a section."""
    return lambda saved: changed(saved, kind, section(saved, kind)[1] - 4, struct.pack("<f", value))


# Optimizer, steps made before, what is changed, what the refusal says. No training leaves any of it.
IMPOSSIBLE: dict[str, tuple[Recipe, int, Callable[[bytes], bytes], str]] = {
    "second moment below 0": (Recipe(ADAM), 3, moment(MOMENT2, -1e-30), r"second moment .* below 0"),
    "second moment just below 0": (Recipe(ADAM), 3, moment(MOMENT2, -1e-45), r"second moment .* below 0"),
    "first moment at step 0": (Recipe(ADAM), 0, moment(MOMENT1, 0.5), "section 3 that is not 0 at step 0"),
    "second moment at step 0": (Recipe(ADAM), 0, moment(MOMENT2, 0.5), "section 4 that is not 0 at step 0"),
    "velocity at step 0": (Recipe(SGD, momentum=0.9), 0, moment(MOMENT1, 0.5), "section 3 that is not 0 at step 0"),
    "back at step 0": (Recipe(ADAM), 3, state(step=0), "beta powers .* at step 0"),
    "beta1 power at step 0": (Recipe(ADAM), 0, state(beta1_power=0.9), "beta powers 0.9 and 1 at step 0"),
    "beta2 power at step 0": (Recipe(ADAM), 0, state(beta2_power=0.9), "beta powers 1 and 0.9 at step 0"),
    "beta1 power 1 later": (Recipe(ADAM), 3, state(beta1_power=1.0), "beta powers 1 and .* at step 3"),
    "beta2 power 1 later": (Recipe(ADAM), 3, state(beta2_power=1.0), "beta powers .* and 1 at step 3"),
    "beta power above 1": (Recipe(ADAM), 3, state(beta2_power=1.5), "beta powers .* and 1.5"),
    "beta power below 0": (Recipe(ADAM), 3, state(beta1_power=-0.5), "beta powers -0.5"),
    "beta power NaN": (Recipe(ADAM), 3, state(beta1_power=float("nan")), "beta powers NaN"),
    "a beta power of SGD": (Recipe(SGD), 3, state(beta1_power=0.9), "beta powers 0.9 and 1 at step 3"),
    "position": (Recipe(SGD), 3, state(position=2**32 - 1), "STATE"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_state_that_no_training_leaves_is_refused(name: str) -> None:
    recipe, steps, change, message = IMPOSSIBLE[name]
    with Trainer.open(artifact(replace(NET, recipe=recipe))) as trainer:
        trainer.fit(X, Y, steps=steps)
        saved = trainer.save()
        with pytest.raises(CorruptCheckpoint, match=message):
            trainer.restore(change(saved))
        assert trainer.save() == saved


def test_a_running_variance_below_0_is_refused() -> None:
    """The state comes last among the values, the variance last of it."""
    builder = nets.Builder(np.random.default_rng(0), (4,))
    builder.linear(5, None)
    builder.batch_norm()
    builder.linear(3, None)
    net = builder.net()
    with Trainer.open(artifact(net)) as trainer:
        saved = trainer.save()
        with pytest.raises(CorruptCheckpoint, match="running variance below 0"):
            trainer.restore(moment(VALUES, -0.5)(saved))
        assert trainer.save() == saved
    stored = net.stored.copy()
    stored[-1] = -0.5
    with pytest.raises(CorruptArtifact, match="INIT holds a running variance below 0"):
        Trainer.open(artifact(net, init=stored.tobytes()))


@pytest.mark.parametrize(
    "change", [moment(MOMENT1, -0.5), moment(MOMENT2, -0.0), state(position=2**32 - 2), state(beta1_power=0.0)]
)
def test_an_odd_state_that_training_could_leave_is_restored(change: Callable[[bytes], bytes]) -> None:
    with Trainer.open(artifact(replace(NET, recipe=Recipe(ADAM)))) as trainer:
        trainer.fit(X, Y, steps=3)
        odd = change(trainer.save())
        trainer.restore(odd)
        assert trainer.save() == odd
        trainer.fit(X, Y, steps=4)
        assert np.isfinite(trainer.values).all()


# Files


def test_two_generations_and_no_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "run.tkc"
    assert not files.exists(path)
    for content in (b"one", b"two", b"three"):
        files.save_generation(path, content)
    assert path.read_bytes() == b"three"
    assert files.previous_path(path).read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["run.tkc", "run.tkc.previous"]
    files.remove(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", None, "half", "bit"])
def test_restore_falls_back_to_the_generation_before_and_says_so(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "run.tkc"
    with Trainer.open(ARTIFACT) as trainer:
        trainer.fit(X, Y, steps=2)
        older = trainer.save(path)
        trainer.fit(X, Y, steps=4)
        newest = trainer.save(path)
        if damage is None:
            path.unlink()
        elif damage == "bit":
            path.write_bytes(newest[:-3] + bytes([newest[-3] ^ 4]) + newest[-2:])
        else:
            path.write_bytes(newest[: len(newest) // 2] if damage == "half" else b"")
        with pytest.warns(CheckpointWarning, match=r"run\.tkc\.previous"):
            trainer.restore(path)
        assert trainer.save() == older
        files.previous_path(path).write_bytes(b"bad")
        with pytest.raises(CorruptCheckpoint, match="previous"):
            trainer.restore(path)
        files.remove(path)
        with pytest.raises(FileNotFoundError):
            trainer.restore(path)
        assert not trainer.restore(path, missing_ok=True)


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


def save_until(path: Path, content: bytes, allowed: int, *, links: bool) -> bool:
    """Saves with only `allowed` of the calls that change a disk made before the kill; True if that was enough."""
    calls = 0

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **settings: object) -> object:
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise Killed
            return call(*arguments, **settings)

        return counting

    def no_links(*_: object) -> None:
        raise PermissionError(1, "no hard links here")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "fsync", "unlink"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(os, "link", counted(os.link if links else no_links))
        try:
            files.save_generation(path, content)
        except Killed:
            return False
    return True


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("newest", [b"good 2", b"broken"])
def test_a_kill_between_any_two_calls_leaves_a_good_generation(tmp_path: Path, newest: bytes, links: bool) -> None:
    """Also where the newest was damaged before: the write must not push out the only good one first."""
    path = tmp_path / "run.tkc"
    for allowed in range(20):
        files.remove(path)
        files.save_generation(path, b"good 1")
        files.save_generation(path, newest)
        finished = save_until(path, b"good 3", allowed, links=links)
        places = (path, tmp_path / "run.tkc.kept", files.previous_path(path))
        kept = [file.read_bytes() for file in places if file.exists()]
        assert any(content.startswith(b"good") for content in kept), (allowed, kept)
        if finished:
            assert kept == [b"good 3", newest]
            assert len(os.listdir(tmp_path)) == 2
            break
    assert finished
    assert allowed >= 4


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_loses_no_generation_but_the_oldest(tmp_path: Path, links: bool) -> None:
    """The newest may be damaged before the next save, which must not push out the one before it."""
    path = tmp_path / "run.tkc"
    for allowed in range(20):
        files.remove(path)
        for content in (b"good 1", b"good 2"):
            files.save_generation(path, content)
        finished = save_until(path, b"good 3", allowed, links=links)
        newest = path.read_bytes()
        path.write_bytes(b"broken")
        before = restored_from(path)
        assert before == b"good 2" or newest == b"good 2"
        for later in range(20):
            if save_until(path, b"good 4", later, links=links):
                break
            if path.read_bytes() == b"broken":
                assert restored_from(path) == before
        assert restored_from(path) == b"good 4"
        if finished:
            return
    raise AssertionError("no save came through")


def restored_from(path: Path) -> bytes:
    found: list[bytes] = []

    def restore(content: bytes) -> None:
        if content == b"broken":
            raise CorruptCheckpoint("broken")
        found.append(content)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        files.load_newest(path, restore)
    return found[0]


def syncing_directories(code: int) -> Callable[[int], None]:
    def sync(handle: int, sync: Callable[[int], None] = os.fsync) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    return sync


def test_where_a_folder_cannot_be_synced_no_generation_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.tkc"
    for content in (b"good 1", b"good 2"):
        files.save_generation(path, content)
    monkeypatch.setattr(os, "fsync", syncing_directories(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        files.save_generation(path, b"good 3")
    assert caught.value.filename == str(path)
    assert {file.name[8:]: file.read_bytes() for file in tmp_path.iterdir()} == {
        "": b"good 3",
        "kept": b"good 2",
        "previous": b"good 1",
    }
    with pytest.raises(OSError, match="Input/output error") as caught:
        files.write_file(tmp_path / "file", b"whole")
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whole"
    monkeypatch.setattr(os, "fsync", syncing_directories(errno.EINVAL))  # a file system that has no such thing
    files.save_generation(path, b"good 4")
    assert (path.read_bytes(), files.previous_path(path).read_bytes()) == (b"good 4", b"good 3")
    assert not (tmp_path / "run.tkc.kept").exists()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_generation_that_cannot_be_opened_does_not_count_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """But for a part of the disk that is."""
    path = tmp_path / "run.tkc"
    for content in (b"good 1", b"good 2"):
        files.save_generation(path, content)
    read = Path.read_bytes

    def refused(file: Path) -> bytes:
        if file in unreadable:
            raise OSError(code, os.strerror(code), str(file))
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refused)
    unreadable = {path}
    if code == errno.EIO:
        assert restored_from(path) == b"good 1"
    unreadable = {path, files.previous_path(path)} if code == errno.EIO else unreadable
    with pytest.raises(OSError, match=os.strerror(code)):
        restored_from(path)


def test_a_failed_write_names_the_file_and_leaves_the_good_one(tmp_path: Path) -> None:
    """A limit on file sizes stands for a full disk: the write fails after some bytes."""
    path = tmp_path / "run.tkc"
    (tmp_path / "net.tkt").write_bytes(artifact(nets.lenet()))
    script = f"""
import resource, sys
from device_runtime import Trainer
trainer = Trainer.open({str(tmp_path / "net.tkt")!r})
good = trainer.save({str(path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) // 2, len(good) // 2))
for verb in (trainer.save, trainer.export):
    try:
        verb({str(path)!r})
    except OSError as error:
        print(error.filename, error.strerror, sep="|")
trainer.restore({str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{path}|File too large"] * 2
    assert sorted(os.listdir(tmp_path)) == ["net.tkt", "run.tkc"]


TRAINING = """
import sys
import numpy as np
from device_runtime import Trainer
artifact, data, checkpoint, output = sys.argv[1:]
with np.load(data) as arrays, Trainer.open(artifact, seed=4) as trainer:
    x, y = arrays["x"], arrays["y"]
    trainer.restore(checkpoint, missing_ok=True)
    print(trainer.progress.step, flush=True)
    trainer.fit(x, y, steps=400, checkpoint=checkpoint, checkpoint_every=1)
    trainer.export(output)
"""


def test_a_training_killed_at_random_moments_ends_with_the_same_values(tmp_path: Path) -> None:
    net = nets.lenet(0.05, recipe=Recipe(ADAM, 32, learning_rate=1e-3))
    x, y = nets.task(net, 300)
    (tmp_path / "net.tkt").write_bytes(artifact(net))
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=x, y=y)
    with Trainer.open(tmp_path / "net.tkt", seed=4) as trainer:
        trainer.fit(x, y, steps=400)
        wanted = trainer.export()
    moments = random.Random(11)
    command = [sys.executable, "-c", TRAINING, "net.tkt", "data.npz", "run.tkc", "trained.tkt"]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path}
    steps, killed = [], 0
    for attempt in range(7):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        with process.stdout:
            steps.append(int(process.stdout.readline()))
            if attempt < 6:
                time.sleep(moments.uniform(0.0, 0.15))
                process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 3
    assert steps == sorted(steps)
    assert steps[-1] > 0
    assert (tmp_path / "trained.tkt").read_bytes() == wanted
