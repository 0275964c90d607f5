"""The jar: equal bytes from equal sources, classes of Java 8, and nothing that Android 24 lacks or that could reach a network."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from device_runtime.java.build import build
from tests.java import jvm

JAVA_8 = 52
# invokedynamic needs Android 26 or a rewriter; the others came later than 24, or open sockets, or run other programs.
ABSENT = (
    *(b"LambdaMetafactory", b"java/nio/file", b"java/util/Base64", b"java/util/stream", b"java/util/function"),
    *(b"java/net/", b"javax/net", b"java/lang/ProcessBuilder", b"java/lang/Runtime\x01", b"android/", b"sun/misc"),
)


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    jvm.need()
    assert build(tmp_path / "again.jar").read_bytes() == jvm.jar().read_bytes()


def test_every_class_runs_on_android_24_without_a_network() -> None:
    with zipfile.ZipFile(jvm.jar()) as jar:
        assert len(jar.namelist()) > 30
        for name in jar.namelist():
            content = jar.read(name)
            assert name.startswith("io/pocketticket/"), name
            assert struct.unpack_from(">IHH", content)[2] == JAVA_8, name
            assert [word for word in ABSENT if word in content] == [], name
