"""Keeps of finished searches what a table is made of: options, the figures of every seed in every round, the verdict.

    python -m benchmarks.search_record RUN_DIR [RUN_DIR ...] --json benchmarks/results/NAME.json

Run it on the machine and at the commit of the searches: both are recorded as they are now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.circumstances import circumstances

BY_SEED = "_by_seed"


def record(run: Path) -> dict[str, Any]:
    """Of one run directory. Raises ValueError where its search is not finished."""
    result = json.loads((run / "results.json").read_text())
    if not result["complete"]:
        raise ValueError(f"'{run}' is not finished; give its command again")
    options = json.loads((run / "config.json").read_text())
    kind, colon, place = options["data"].partition(":")
    options["data"] = kind + colon + Path(place).name
    kept = ("rewinds", "round", "verdict")
    return {
        "options": options,
        "rounds": [_round(told) for told in result["rounds"]],
        **{name: result[name] for name in kept if name in result},
    }


def _round(told: Mapping[str, Any]) -> dict[str, Any]:
    """Its density and, of each kind of network, a value a seed."""
    kinds = {name: of for name, of in told.items() if isinstance(of, dict) and f"accuracy{BY_SEED}" in of}
    by_kind = {
        kind: {name.removesuffix(BY_SEED): values for name, values in of.items() if name.endswith(BY_SEED)}
        for kind, of in kinds.items()
    }
    return {"round": told["round"], "density": told["density"], **by_kind}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_record", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="--output-dir of a search")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the result goes")
    arguments = parser.parse_args(argv)
    try:
        searches = [record(run) for run in arguments.runs]
    except (OSError, ValueError, KeyError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    arguments.json.write_text(json.dumps({**circumstances(), "searches": searches}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
