"""How many weights each round leaves: by layer, over all, with patterns, and without layers that are excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from server_side.errors import UsageError
from tests.server_side.searches import search


def test_patterns_give_layers_shares_of_their_own(tmp_path: Path) -> None:
    small = search(tmp_path, prune_fractions={"fc1": 0.5, "fc*": 0.25}, prune_fraction=0.1, rounds=1)
    assert dict(small.ladder.rungs[1]) == {"fc1.weight": 160, "fc2.weight": 96, "out.weight": 29}
    first = small.run()[1]
    assert {name: int(mask.sum()) for name, mask in first.masks[0].items()} == dict(small.ladder.rungs[1])


def test_excluded_layers_count_in_no_quota_and_are_never_pruned(tmp_path: Path) -> None:
    for scope in ("layerwise", "global"):
        small = search(tmp_path / scope, exclude=["out"], scope=scope, rounds=3, prune_fraction=0.5)
        assert small.ladder.live == [480, 256, 144, 88]  # 448 of fc1 and fc2 halved, and the 32 of out
        last = small.run()[-1]
        assert sum(int(mask.sum()) for mask in last.masks[0].values()) == 56
        assert last.density == 88 / 480
        assert "out.weight" not in last.masks[0]
        ticket = small.ticket(last, {})
        assert np.count_nonzero(ticket.init["out.weight"]) == 32
        assert "out.weight" not in ticket.masks


def test_the_output_layer_follows_the_units_it_reads(tmp_path: Path) -> None:
    """Its own rows are the classes, so it is in no quota; excluded it reads all units."""
    small = search(tmp_path / "units", structure="rows", rounds=2, prune_fraction=0.5)
    assert small.ladder.followers == {"out.weight": (4, 8)}
    assert [dict(rung) for rung in small.ladder.rungs] == [
        {"fc1.weight": 320 // part, "fc2.weight": 128 // part} for part in (1, 2, 4)
    ]
    assert small.ladder.live == [480, 256, 144]  # at most: fc2 and out lose weights with the units they read
    assert small.keeper.all_live()["out.weight"].all()
    kept = search(tmp_path / "kept", structure="rows", rounds=1, exclude=["out"])
    assert kept.ladder.followers == {}
    assert "out.weight" not in kept.run()[1].masks[0]
    with pytest.raises(UsageError, match="structure rows: layer 'out' is the only one, and its rows are the classes"):
        search(tmp_path / "one", structure="rows", exclude=["fc1", "fc2"])
