"""Rows of cells as aligned text, for what commands print."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line a row: the first column to the left, the last one as it is, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = []
    for first, *between, last in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(between, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells, last]).rstrip())
    return lines
