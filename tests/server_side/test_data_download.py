"""Downloads, from a server of this test: once, checked, resumed, and each way to fail in one line."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.data import load_data
from server_side.find import main
from server_side.sources import download
from server_side.sources.download import SETS, KnownSet, Published
from server_side.sources.idx import read_idx
from tests.server_side.sources import refusal
from tests.server_side.test_data import idx_bytes

SHARED = Path(__file__).parents[3] / "shared" / "data"


class Server:
    """Serves `files`: whole or cut after `cut` bytes, with ranges or without, with a failure's `status`, or without end."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        self.ranges, self.status = True, 200
        self.endless, self.client_left = False, threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content, wanted = self.files.get(request.path[1:]), request.headers.get("Range")
        self.asked.append((request.path[1:], wanted))
        if content is None or self.status != 200:
            request.send_error(self.status if self.status != 200 else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        request.send_response(206 if start else 200)
        if not self.endless:
            request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:][: self.cut])
        try:
            for _ in range(200 if self.endless else 0):
                request.wfile.write(bytes(1 << 20))
        except ConnectionError:
            self.client_left.set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """With a small MNIST, and a cache that is empty."""
    server = Server()
    random, published = np.random.default_rng(4), []
    for name, shape in (("train-images-idx3", (40, 6, 6)), ("train-labels-idx1", (40,)), ("t10k-images-idx3", (10, 6, 6)),
                        ("t10k-labels-idx1", (10,))):  # fmt: skip
        array = random.integers(0, 256, shape) if len(shape) == 3 else np.arange(shape[0]) % 10
        content = gzip.compress(idx_bytes(array))
        server.files[f"{name}-ubyte.gz"] = content
        url = f"{server.base}/{name}-ubyte.gz"
        published.append(Published(url, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(download, "SETS", {"mnist": KnownSet(tuple(published), read_idx)})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


FIRST = "train-images-idx3-ubyte.gz"


def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pocket-ticket" / "mnist"


def test_a_set_is_fetched_once(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    data = load_data("download:mnist", 0, told.append)
    assert (data.name, data.input_shape, len(data.x_train), len(data.x_test)) == ("mnist", (6, 6), 40, 10)
    assert [name for name, _ in server.asked] == list(server.files)
    assert [line.split()[:2] for line in told] == [["fetching", f"{server.base}/{name}"] for name in server.files]
    assert load_data("download:mnist").fingerprint == data.fingerprint
    assert len(server.asked) == 4
    assert {path.name: path.read_bytes() for path in cache(tmp_path).iterdir()} == server.files


def test_the_cache_may_be_elsewhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # void, says its standard
    load_data("download:mnist")
    assert (tmp_path / "home/.cache/pocket-ticket/mnist" / FIRST).exists()
    load_data(f"download:mnist?cache={tmp_path}/here")
    assert (tmp_path / "here/mnist" / FIRST).exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_goes_on(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.cut, server.ranges = 100, ranges
    size = len(server.files[FIRST])
    assert f"broke off after 100 of {size:,} bytes; the same command goes on from there" in refusal("download:mnist")
    assert (cache(tmp_path) / f"{FIRST}.part").stat().st_size == 100
    assert not (cache(tmp_path) / FIRST).exists()
    server.cut = None
    load_data("download:mnist")
    assert server.asked[:2] == [(FIRST, None), (FIRST, "bytes=100-")]
    assert (cache(tmp_path) / FIRST).read_bytes() == server.files[FIRST]


def test_what_was_whole_but_not_yet_named_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    cache(tmp_path).mkdir(parents=True)
    (cache(tmp_path) / f"{FIRST}.part").write_bytes(server.files[FIRST])
    load_data("download:mnist")
    assert FIRST not in [name for name, _ in server.asked]


def flipped(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


@pytest.mark.parametrize("change", [flipped, lambda content: content + b"more", lambda content: content[::-1]])
def test_another_file_than_the_published_one_is_refused(change: Any, server: Server, tmp_path: Path) -> None:
    whole = server.files[FIRST]
    server.files[FIRST] = change(whole)
    assert "is not the published file (SHA-256 " in refusal("download:mnist")
    assert [path.stat().st_size for path in cache(tmp_path).iterdir()] == [0]
    server.files[FIRST] = whole
    assert load_data("download:mnist").name == "mnist"


def test_what_has_no_end_does_not_fill_the_disk(server: Server, tmp_path: Path) -> None:
    server.endless = True
    assert "is not the published file" in refusal("download:mnist")
    assert server.client_left.wait(30)
    assert [path.stat().st_size for path in cache(tmp_path).iterdir()] == [0]


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(server: Server, tmp_path: Path) -> None:
    before = load_data("download:mnist").fingerprint
    path = cache(tmp_path) / FIRST
    path.write_bytes(flipped(path.read_bytes()))
    assert load_data("download:mnist").fingerprint == before
    assert len(server.asked) == 5


def test_wrong_bytes_of_an_earlier_try_do_not_stay(server: Server, tmp_path: Path) -> None:
    cache(tmp_path).mkdir(parents=True)
    (cache(tmp_path) / f"{FIRST}.part").write_bytes(b"other")
    assert "is not the published file" in refusal("download:mnist")
    load_data("download:mnist")


def test_no_network_and_no_such_file_are_told(server: Server, tmp_path: Path) -> None:
    server.status = 503
    assert f"cannot fetch {server.base}/{FIRST}: Service Unavailable; where there is no network put the file into " in (
        refusal("download:mnist")
    )
    server.http.shutdown()
    server.http.server_close()
    assert "Connection refused; where there is no network put the file into" in refusal("download:mnist")
    for name, content in server.files.items():
        (cache(tmp_path) / name).write_bytes(content)
    assert load_data("download:mnist").name == "mnist"


def test_processes_at_the_same_time_fetch_once(server: Server) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load_data("download:mnist").fingerprint)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert len(server.asked) == 4


@pytest.mark.parametrize("quiet", [True, False])
def test_the_command_says_what_it_fetches(quiet: bool, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "download:mnist", "--model", "lenet-300-100", "--validation", "10", "--batch", "0"]
    assert main([*arguments, "--quiet"] if quiet else arguments) == 2
    assert main([*arguments[:-1], "8", "--steps", "nonsense", *(["--quiet"] if quiet else [])]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "fetching" in line]
    assert [line.startswith("find: fetching http://") for line in lines] == [] if quiet else [True] * 4


def test_a_set_that_is_not_known_is_refused() -> None:
    assert "no set 'imagenet'; expected one of mnist, fashion-mnist, cifar10, cifar100" in refusal("download:imagenet")


@pytest.mark.parametrize("name", SETS)
def test_known_sets_are_https_and_whole_sums(name: str) -> None:
    for file in SETS[name].files:
        assert file.url.startswith("https://")
        assert len(bytes.fromhex(file.sha256)) == 32


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_sums_are_those_of_the_files_beside_the_repository(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them the cache is full, so nothing is fetched."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} files beside the repository")
    nowhere = tuple(replace(file, url=f"file:///nowhere/{file.name}") for file in SETS[name].files)
    monkeypatch.setattr(download, "SETS", {name: replace(SETS[name], files=nowhere)})
    (tmp_path / name).symlink_to(SHARED / name)
    data = load_data(f"download:{name}?cache={tmp_path}")
    assert (data.name, len(data.x_train), len(data.x_test)) == (name, 60000, 10000)
    assert data.labels[0] == {"mnist": "0", "fashion-mnist": "T-shirt/top"}[name]
