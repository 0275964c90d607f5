"""How many weights each round leaves: by layer, over all, with patterns, and without layers that are excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
