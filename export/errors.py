"""What a command of export tells its user in one line."""

from __future__ import annotations


class UsageError(ValueError):
    """A bad option or a missing package, in one line."""
