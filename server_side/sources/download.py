"""`download:NAME`: a well-known set, fetched once over https into a cache folder and checked by SHA-256 at every use.

The cache is $XDG_CACHE_HOME/pocket-ticket, by default ~/.cache/pocket-ticket, or `?cache=DIR`. A download that broke off
goes on where it was. Refuses any file that is not, byte for byte, the one its authors published.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from server_side.errors import UsageError
from server_side.sources.cifar import read_cifar10, read_cifar100
from server_side.sources.idx import read_idx
from server_side.sources.source import Samples, Source

DOWNLOAD_OPTIONS = ("cache",)
SECONDS = 60.0  # without a byte, after which a server counts as gone
CHUNK = 1 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """One file as its authors published it."""

    url: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class KnownSet:
    files: tuple[Published, ...]
    read: Callable[[Source], Samples]
    labels: tuple[str, ...] | None = None

    @property
    def is_archive(self) -> bool:
        return len(self.files) == 1


def _idx_files(base: str, *sums: tuple[str, int, str]) -> tuple[Published, ...]:
    return tuple(Published(f"{base}/{name}-ubyte.gz", size_bytes, sha256) for name, size_bytes, sha256 in sums)


# MNIST by the mirror that PyTorch keeps, as the authors' own page asks for a password; the sums are of files whose MD5 are
# the published ones. Fashion-MNIST by its authors' repository, sums likewise. CIFAR by its author; MD5 of the first archive
# on that page c58f30108f718f92721af3b95e74349a, of the second eb9058c3a382ffc7106e4002c42a8d85, SHA-256 as Keras has them.
SETS: Mapping[str, KnownSet] = {
    "mnist": KnownSet(
        _idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            ("train-images-idx3", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            ("train-labels-idx1", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            ("t10k-images-idx3", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            ("t10k-labels-idx1", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        read_idx,
    ),
    "fashion-mnist": KnownSet(
        _idx_files(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            ("train-images-idx3", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        read_idx,
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "cifar10": KnownSet(
        (
            Published(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                170498071,
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        read_cifar10,
    ),
    "cifar100": KnownSet(
        (
            Published(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                169001437,
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        read_cifar100,
    ),
}


def read_download(source: Source, tell: Tell) -> Samples:
    """`tell` hears a line for each file that is fetched."""
    if source.path not in SETS:
        raise source.error(f"no set '{source.path}'; expected one of {', '.join(SETS)}")
    known = SETS[source.path]
    folder = _cache(source) / source.path
    files = [_fetched(source, file, folder, tell) for file in known.files]
    samples = known.read(Source(source.text, str(files[0] if known.is_archive else folder), {}))
    return replace(samples, name=source.path, labels=samples.labels or known.labels)


def _cache(source: Source) -> Path:
    if "cache" in source.options:
        return Path(source.options["cache"])
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "pocket-ticket"  # a relative one is void


def _fetched(source: Source, file: Published, folder: Path, tell: Tell) -> Path:
    """The file in the cache, whole. One process fetches it; others wait for that one."""
    import fcntl

    target = folder / file.name
    if _is_whole(target, file):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{file.name}.part", "ab") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        if not _is_whole(target, file):
            tell(f"fetching {file.url} ({file.size_bytes / 1e6:.1f} MB) into {folder}")
            _receive(source, file, part)
            os.fsync(part.fileno())
            os.replace(part.name, target)
        else:
            Path(part.name).unlink(missing_ok=True)
    return target


def _is_whole(path: Path, file: Published) -> bool:
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _receive(source: Source, file: Published, part: IO[bytes]) -> None:
    """Fills `part`, from where it ends; leaves there what came if the network fails, and nothing if it is wrong."""
    try:
        _append(source, file, part)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer, too
        reason = getattr(error, "reason", None) or error
        raise source.error(
            f"cannot fetch {file.url}: {reason}; where there is no network put the file into {Path(part.name).parent}"
        ) from error
    finally:
        part.flush()
    have = part.tell()
    if have < file.size_bytes:
        raise source.error(
            f"{file.url} broke off after {have:,} of {file.size_bytes:,} bytes; the same command goes on from there"
        )
    if not _is_whole(Path(part.name), file):
        raise _wrong(source, file, part)


def _append(source: Source, file: Published, part: IO[bytes]) -> None:
    have = part.seek(0, os.SEEK_END)
    if have >= file.size_bytes:  # killed before it was renamed
        return
    headers = {"User-Agent": "pocket-ticket"} | ({"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=SECONDS) as answer:
        if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:  # it sends the whole file again
            part.truncate(0)
            have = 0
        while chunk := answer.read(CHUNK):
            have += len(chunk)
            if have > file.size_bytes:
                raise _wrong(source, file, part)
            part.write(chunk)


def _wrong(source: Source, file: Published, part: IO[bytes]) -> UsageError:
    part.truncate(0)
    return source.error(
        f"{file.url} is not the published file (SHA-256 {file.sha256}); try again, or name it by a path"
    )
