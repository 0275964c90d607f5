"""What the commands share on the terminal: a progress line on stderr, results on stdout, Ctrl-C at a step boundary.

The line is drawn only where a person watches (stderr is a terminal) and is gone when the work is done.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_REDRAW_SECONDS = 0.1


class ProgressLine:
    """`train 120/500  loss 0.3123`, drawn over itself at most ten times a second. `total` 0 is not shown."""

    def __init__(self, verb: str, total: int, quiet: bool) -> None:
        self.total = total
        self._verb = verb
        self._shown = not quiet and sys.stderr.isatty()
        self._drawn_at = 0.0

    def show(self, done: int, text: str) -> None:
        now = time.monotonic()
        if not self._shown or now - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = now
        of = f"/{self.total}" if self.total else ""
        self._draw(f"{self._verb} {done}{of}  {text}")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn_at:
            self._draw("")

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed, so that a step is finished first; twice raises."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def print_json(result: dict[str, Any]) -> None:
    """One object on one line; a value that JSON cannot hold, such as NaN, is an error here and not at the reader's."""
    print(json.dumps(result, ensure_ascii=False, allow_nan=False))


def print_sizes(title: str, sizes: dict[str, int]) -> None:
    print(f"\n{title}")
    for name, size in sizes.items():
        print(f"  {name:<14} {size:>12,}")


def print_training(result: dict[str, Any]) -> None:
    verb = "interrupted" if result["interrupted"] else "trained"
    rate = result["steps"] / result["seconds"] if result["seconds"] else 0.0
    print(f"{verb} at step {result['step']}, epoch {result['epoch']}: {result['steps']} steps, {rate:.0f} a second")
    if result["steps"]:
        arena = "" if result["arena_bytes"] is None else f", arena {result['arena_bytes']:,} bytes"
        print(f"loss {result['first_loss']:.4f} -> {result['last_loss']:.4f}{arena}")
    for split in ("train", "test"):
        if split in result:
            print(f"accuracy {result[split]['accuracy']:.4f} on {result[split]['count']} samples ({split})")
    for kind in ("checkpoint", "output"):
        if result[kind] is not None:
            print(f"{kind} '{result[kind]}'")


def print_devices(report: dict[str, Any]) -> None:
    """The table of `simulate`, a line a device, and what they come to."""
    titles = ["user", "before", "after", "samples", "held_out", "steps", "redone", "died", "arena", "checkpoint"]
    keys = ["user", "before", "after", "samples", "held_out", "steps", "steps_redone", "interruptions"]
    keys += ["arena_bytes", "checkpoint_bytes"]
    if "updated" in report["users"][0]:
        titles, keys = [*titles, "updated", "replaced"], [*keys, "updated", "replaced"]
    rows = [[_cell(d[k]) for k in keys] for d in report["users"]]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    summary = report["summary"]
    print(f"\n{summary['devices']} devices, {summary['users_with_too_few']} users with too few samples left out")
    for name in (name for name in ("before", "after", "updated", "replaced") if f"{name}_mean" in summary):
        spread = summary[f"{name}_sd"]
        deviation = "" if spread is None else f" +- {spread:.4f} (sd)"
        print(f"accuracy {name:<8} {summary[f'{name}_mean']:.4f}{deviation}")
    done = f"{summary['steps']} steps, {summary['interruptions']} interruptions"
    print(f"{done}: {summary['steps_redone']} steps done again")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
