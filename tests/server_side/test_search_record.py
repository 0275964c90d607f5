"""What benchmarks keep of searches, and the smaller pictures that some are run on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import half_pictures, search_record
from server_side.find import main
from tests.server_side.searches import SMALL


def test_the_figures_of_every_seed_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept.json"
    main([*SMALL, "--rounds", "1", "--output-dir", str(run), "--rewind-step", "auto", "--quiet"])
    result = json.loads((run / "results.json").read_text())
    assert search_record.main([str(run), "--json", str(kept)]) == 0
    (search,) = json.loads(kept.read_text())["searches"]
    assert search["options"]["data"] == "tests.server_side.searches:blobs"
    assert search["rewinds"] == result["rewinds"]
    assert search["verdict"] == result["verdict"]
    dense, pruned = search["rounds"]
    assert dense.keys() == {"round", "density", "dense"}
    assert pruned.keys() == {"round", "density", "ticket", "reinit", "shuffle"}
    assert pruned["ticket"]["accuracy"] == result["rounds"][1]["ticket"]["accuracy_by_seed"]
    assert len(pruned["ticket"]["early_stop_step"]) == 3

    (run / "results.json").write_text(json.dumps({**result, "complete": False}))
    assert search_record.main([str(run), "--json", str(tmp_path / "none.json")]) == 2
    assert "is not finished; give its command again" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_half_pictures_are_means_of_four_pixels(tmp_path: Path) -> None:
    pictures = np.arange(2 * 3 * 4 * 6, dtype=np.uint8).reshape(2, 3, 4, 6)
    np.savez(tmp_path / "whole.npz", x_train=pictures, y_train=np.array([1, 0]))
    assert half_pictures.main([str(tmp_path / "whole.npz"), str(tmp_path / "half.npz")]) == 0
    with np.load(tmp_path / "half.npz") as half:
        assert half["x_train"].shape == (2, 3, 2, 3)
        assert half["x_train"].dtype == np.uint8
        assert half["x_train"][1, 2, 1, 0] == np.rint(pictures[1, 2, 2:4, 0:2].mean())
        assert half["y_train"].tolist() == [1, 0]
