"""Writes a file or a directory whole or not at all: a temporary neighbour, fsync, rename, fsync of the folder.

Whenever the process or the machine dies, a reader finds the old content or the new one, never half of it. What a killed
process leaves is a hidden neighbour `.NAME-...`, safe to remove. Ordinary failures (OSError, Ctrl-C) leave nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Replaces `path`; makes its folder if needed. Raises OSError if the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(path)
    try:
        _write_and_sync(scratch, content)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Makes the new directory `path` with `files`; makes its parents if needed. Raises OSError if it holds anything."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(path)
    scratch.mkdir()
    try:
        for name, content in files.items():
            _write_and_sync(scratch / name, content)
        _sync_folder(scratch)
        os.rename(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _scratch(path: Path) -> Path:
    """On the same disk, or the rename would copy; hidden, so that nobody picks it up."""
    return path.with_name(f".{path.name}-{secrets.token_hex(8)}")


def _write_and_sync(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
