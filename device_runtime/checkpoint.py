"""Checkpoint files that outlive a kill, a full disk and a flipped bit: two generations, `NAME` and `NAME.previous`.

A new checkpoint is written beside (`NAME.partial`), synced, and renamed over `NAME`, whose old content lives on as
`NAME.previous`. Whatever subset of those steps reached the disk, no generation that was good before is lost.
Knows nothing of what is inside; one writer a file at a time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from device_runtime.errors import CheckpointWarning, CorruptCheckpoint

PathLike = str | os.PathLike[str]


def previous_path(path: PathLike) -> Path:
    return _beside(path, "previous")


def partial_path(path: PathLike) -> Path:
    """What a write that was killed leaves behind; never read, overwritten by the next one."""
    return _beside(path, "partial")


def write_file(path: PathLike, content: bytes) -> None:
    """Writes `path` whole or not at all. Raises OSError, and then `path` is as it was."""
    with _leaving_nothing(path):
        _write_partial(path, content)
        os.replace(partial_path(path), path)
    _sync_directory(path)


def save_generation(path: PathLike, content: bytes) -> None:
    """Makes `content` the newest checkpoint at `path` and the present one the previous, or raises OSError."""
    with _leaving_nothing(path):
        _write_partial(path, content)
        if Path(path).exists():
            _keep(path)
            os.replace(partial_path(path), path)
            _sync_directory(path)  # the new one is safe before the previous one, perhaps the only good one, goes
            os.replace(_kept_path(path), previous_path(path))
        else:
            os.replace(partial_path(path), path)
    _sync_directory(path)


def load_newest(path: PathLike, restore: Callable[[bytes], None]) -> Path:
    """Hands the newest generation that `restore` accepts to it and returns its file.

    `restore` refuses by CorruptCheckpoint; a fall-back is told by a CheckpointWarning. Raises FileNotFoundError if
    there is no generation, CorruptCheckpoint if none is good.
    """
    refused: list[str] = []
    for candidate in (Path(path), previous_path(path)):
        try:
            restore(candidate.read_bytes())
        except OSError as error:  # missing, or a part of the disk that cannot be read
            refused.append(f"'{candidate}': {error.strerror}")
        except CorruptCheckpoint as error:
            refused.append(f"'{candidate}': {error}")
        else:
            if refused:
                warnings.warn(f"{refused[0]}; went back to '{candidate}'", CheckpointWarning, stacklevel=3)
            return candidate
    if not exists(path):
        raise FileNotFoundError(2, "no checkpoint there; train first", str(path))
    raise CorruptCheckpoint(f"{'; '.join(refused)}; remove them to start anew")


def exists(path: PathLike) -> bool:
    """Whether there is a generation to restore from, good or not."""
    return Path(path).exists() or previous_path(path).exists()


def remove(path: PathLike) -> None:
    """Removes every generation and leftover."""
    for file in (Path(path), previous_path(path), partial_path(path), _kept_path(path)):
        file.unlink(missing_ok=True)


def _beside(path: PathLike, suffix: str) -> Path:
    return Path(f"{os.fspath(path)}.{suffix}")


def _kept_path(path: PathLike) -> Path:
    return _beside(path, "kept")


@contextmanager
def _leaving_nothing(path: PathLike) -> Iterator[None]:
    """Takes away what a failed write left, and names the file that was meant."""
    try:
        yield
    except OSError as error:
        for leftover in (partial_path(path), _kept_path(path)):
            with suppress(OSError):
                leftover.unlink()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _write_partial(path: PathLike, content: bytes) -> None:
    with open(partial_path(path), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: PathLike) -> None:
    """A second name for the present generation, so that renaming over it does not lose it."""
    kept = _kept_path(path)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links, as on memory cards
        with open(kept, "wb") as file:
            file.write(Path(path).read_bytes())
            file.flush()
            os.fsync(file.fileno())


def _sync_directory(path: PathLike) -> None:
    if os.name != "posix":
        return
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
