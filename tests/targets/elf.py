"""What a shared library shows of itself: its symbols, and whether it suits a device. By binutils' readelf."""

from __future__ import annotations

import re
from pathlib import Path

from tests.targets import builds


def readelf(library: Path, option: str) -> str:
    return builds.run(["readelf", "--wide", option, str(library)])


def dynamic_symbols(library: Path) -> tuple[set[str], set[str]]:
    """Exported and imported."""
    rows = re.findall(r"(\S+)\s+(?:DEFAULT|PROTECTED)\s+(\S+) (\w+)$", readelf(library, "--dyn-syms"), re.MULTILINE)
    assert all(binding in ("GLOBAL", "WEAK") for binding, _, _ in rows)
    exported = {name for _, section, name in rows if section != "UND"}
    return exported, {name for _, _, name in rows} - exported


def check_segments(library: Path, needed: list[str]) -> None:
    """Pages of 16 KB; nothing both written and executed, everything resolved at once; no other library than these."""
    segments = readelf(library, "--segments")
    alignments = re.findall(r"^\s+LOAD .* (0x\w+)$", segments, re.MULTILINE)
    assert len(alignments) >= 3
    assert all(int(alignment, 16) == 16384 for alignment in alignments)
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK .* RW ", segments)
    assert " RWE " not in segments
    dynamic = readelf(library, "--dynamic")
    assert "BIND_NOW" in dynamic
    assert "TEXTREL" not in dynamic
    assert f"[{library.name}]" in dynamic
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic) == needed
