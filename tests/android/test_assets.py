"""The recipe of the app's assets: the rivals share mask or weights as they are said to, and samples are dealt out once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_runtime import Trainer
from device_runtime.artifact import read_artifact, read_info
from examples.android import make_assets
from export.ticket import Ticket
from server_side.errors import UsageError
from server_side.sources.idx import read_idx
from server_side.sources.source import parse
from tests.android.digits import CARD
from tests.android.test_views import assets
from tests.export.tickets import small_ticket

SHORT = {"steps": "20it", "rounds": 1, "seeds": 1, "reinits": 0, "shuffles": 0, "evaluate_every": "20it"}


def test_the_search_gives_assets_and_again_the_same(tmp_path: Path) -> None:
    output, work = tmp_path / "assets", tmp_path / "search"
    sizes = make_assets.make_assets("digits", output, work, **SHORT)
    samples = {f"{name}-{kind}-ubyte" for name in ("replay", "shipped") for kind in ("images-idx3", "labels-idx1")}
    assert set(sizes) == {"ticket.tkt", "reinit.tkt", "dense.tkt"} | samples
    assert {path.name: path.stat().st_size for path in output.iterdir()} == sizes
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    make_assets.make_assets("digits", output, work, **SHORT)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (output / "ticket.tkt").write_bytes(b"another")
    with pytest.raises(UsageError, match="holds other assets; remove it"):
        make_assets.make_assets("digits", output, work, **SHORT)


def test_the_rivals_differ_from_the_ticket_in_one_thing_each() -> None:
    ticket = small_ticket()
    whole = {name: np.where(value == 0, np.float32(9), value) for name, value in ticket.init.items()}
    fresh = {name: np.full_like(value, 7) for name, value in ticket.init.items()}
    found = make_assets.rivals(ticket, whole, fresh)
    assert found["ticket"] is ticket
    mask = ticket.masks["a.weight"]
    reinit, dense = found["reinit"], found["dense"]
    assert np.array_equal(reinit.masks["a.weight"], mask)
    assert np.array_equal(reinit.init["a.weight"], np.where(mask, 7, 0))
    assert not dense.masks
    assert np.array_equal(dense.init["a.weight"][mask], ticket.init["a.weight"][mask])
    assert (dense.init["a.weight"][~mask] == 9).all()


def test_a_ticket_of_other_weights_is_refused() -> None:
    ticket = small_ticket()
    other = {name: value + np.float32(1) for name, value in ticket.init.items()}
    with pytest.raises(UsageError, match="does not start from its network's initial weights"):
        make_assets.rivals(ticket, other, other)
    assert isinstance(ticket, Ticket)


def test_samples_are_dealt_out_evenly_and_only_once() -> None:
    x, y, x_test, y_test = make_assets.digits()
    assert len(x) + len(x_test) == 1797
    assert len(y_test) == make_assets.SHIPPED
    chosen = make_assets.few_of_each(y, 10)
    assert len(set(chosen.tolist())) == 100
    assert np.bincount(y[chosen]).tolist() == [10] * 10
    with pytest.raises(UsageError, match="fewer than 10000 samples"):
        make_assets.few_of_each(y, 10000)


def test_idx_files_are_read_as_any_others(tmp_path: Path) -> None:
    x = np.arange(3 * 2 * 5, dtype=np.uint8).reshape(3, 2, 5)
    y = np.array([2, 0, 1])
    for name, other in (("train", "train"), ("t10k", "t10k")):
        for file, content in make_assets.idx_files(name, x, y).items():
            (tmp_path / file.replace(name, other)).write_bytes(content)
    found = read_idx(parse(f"idx:{tmp_path}", ()))
    assert np.array_equal(found.x, x)
    assert np.array_equal(found.y, y)


def test_artifacts_take_raw_pictures_and_know_their_labels() -> None:
    for name in ("ticket", "reinit", "dense"):
        path = assets() / f"{name}.tkt"
        info = read_info(read_artifact(path))
        assert info.input_shape == (8, 8)
        assert info.card["labels"] == CARD["labels"]
        assert not info.has_trained
        with Trainer.open(path, batch=16) as trainer:
            assert trainer.predict(np.zeros((1, 64), np.float32)).shape == (1, 10)


@pytest.mark.parametrize("data", ["csv:x", "mnist"])
def test_other_data_are_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(UsageError, match="give digits, or idx:DIR"):
        make_assets.make_assets(data, tmp_path / "a", tmp_path / "b")
