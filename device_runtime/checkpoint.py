"""Checkpoint files that outlive a kill, a full disk and a flipped bit: two generations, `NAME` and `NAME.previous`.

A new checkpoint is written beside (`NAME.partial`), synced, and renamed over `NAME`, whose old content lives on as
`NAME.previous`, and until that is safe as `NAME.kept`: where a kill left one, it is the newer of the two. Whatever subset of
those steps reached the disk, no generation that was good before is lost.
Knows nothing of what is inside; one writer a file at a time.
"""

from __future__ import annotations

import errno
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
    """Writes `path` whole or not at all. Raises OSError, and then `path` is as it was; where only its folder could not be synced
    it has the new content, whole."""
    with _named(path):
        _write_partial(path, content)
        os.replace(partial_path(path), path)
        _sync_directory(path)


def save_generation(path: PathLike, content: bytes) -> None:
    """Makes `content` the newest checkpoint at `path` and the present one the previous. Raises OSError, and then no generation
    is lost but, where `content` is in place already, the oldest of three."""
    with _named(path):
        _settle(path)
        try:
            if Path(path).exists():
                _keep(path)
            _write_partial(path, content)
            os.replace(partial_path(path), path)
        except OSError:
            if Path(path).exists():
                with suppress(OSError):
                    _kept_path(path).unlink()
            raise
        _sync_directory(path)  # the new one is safe before the previous one, perhaps the only good one, goes
        if _kept_path(path).exists():
            os.replace(_kept_path(path), previous_path(path))
            _sync_directory(path)


def load_newest(path: PathLike, restore: Callable[[bytes], None]) -> Path:
    """Hands the newest generation that `restore` accepts to it and returns its file.

    `restore` refuses by CorruptCheckpoint; a fall-back is told by a CheckpointWarning. Raises FileNotFoundError if
    there is no generation, CorruptCheckpoint if none is good, and OSError where one cannot be opened: it may be good.
    """
    refused: list[str] = []
    unreadable: OSError | None = None
    for candidate in _generations(path):
        try:
            restore(candidate.read_bytes())
        except FileNotFoundError as error:
            if candidate != _kept_path(path):
                refused.append(f"'{candidate}': {error.strerror}")
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            unreadable = error  # a part of the disk is damaged
            refused.append(f"'{candidate}': {error.strerror}")
        except CorruptCheckpoint as error:
            refused.append(f"'{candidate}': {error}")
        else:
            if refused:
                warnings.warn(f"{refused[0]}; went back to '{candidate}'", CheckpointWarning, stacklevel=3)
            return candidate
    if unreadable is not None:
        raise unreadable
    if not exists(path):
        raise FileNotFoundError(2, "no checkpoint there; train first", str(path))
    raise CorruptCheckpoint(f"{'; '.join(refused)}; remove them to start anew")


def exists(path: PathLike) -> bool:
    """Whether there is a generation to restore from, good or not."""
    return any(file.exists() for file in _generations(path))


def remove(path: PathLike) -> None:
    """Removes every generation and leftover."""
    for file in (*_generations(path), partial_path(path)):
        file.unlink(missing_ok=True)


def _beside(path: PathLike, suffix: str) -> Path:
    return Path(f"{os.fspath(path)}.{suffix}")


def _kept_path(path: PathLike) -> Path:
    return _beside(path, "kept")


def _generations(path: PathLike) -> tuple[Path, Path, Path]:
    """Where they may be, the newest first."""
    return Path(path), _kept_path(path), previous_path(path)


@contextmanager
def _named(path: PathLike) -> Iterator[None]:
    """Takes away half a file that a failed write left, and names the one that was meant."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            partial_path(path).unlink()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _settle(path: PathLike) -> None:
    """Ends what a save that was killed had begun: what it kept is the previous generation, if it came as far as the new one."""
    kept = _kept_path(path)
    if not (kept.exists() and Path(path).exists()):
        return
    if _are_equal(Path(path), kept):
        kept.unlink()
    else:
        _sync_directory(path)
        os.replace(kept, previous_path(path))


def _are_equal(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError:  # what cannot be read was not copied either
        return False


def _write_partial(path: PathLike, content: bytes) -> None:
    with open(partial_path(path), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: PathLike) -> None:
    """A second name for the present generation, so that renaming over it does not lose it."""
    try:
        os.link(path, _kept_path(path))
    except OSError:  # a file system without hard links, as on memory cards; what has the name is whole here too
        _write_partial(path, Path(path).read_bytes())
        os.replace(partial_path(path), _kept_path(path))


def _sync_directory(path: PathLike) -> None:
    if os.name != "posix":
        return
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that has no such thing
            raise
    finally:
        os.close(directory)
