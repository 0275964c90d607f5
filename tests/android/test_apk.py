"""The app's package, built as `make apk` builds it, and taken apart by Android's own tools; and the AAR.

Skips by name where a tool is not installed or Debian 11, which alone has the dexer, cannot be had.
"""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

import pytest

from examples.android import build_apk, packing, toolchain
from examples.android.build_apk import ABIS, LIBRARY, MIN_SDK, TARGET_SDK
from tests.android.test_views import assets
from tests.targets import builds

pytestmark = pytest.mark.slow
PAGE_BYTES = 16384
MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62}  # e_machine of ELF


@pytest.fixture(scope="module")
def packages() -> tuple[Path, Path]:
    with builds.locked("apk") as folder:
        folder.mkdir(exist_ok=True)
        try:
            return build_apk.build(assets(), folder)
        except toolchain.MissingToolError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def apk(packages: tuple[Path, Path]) -> Path:
    return packages[0]


def starts(path: Path) -> dict[str, tuple[int, bool]]:
    """Where the content of each entry begins, and whether it is stored as it is."""
    content = path.read_bytes()
    found = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name_bytes, extra_bytes = struct.unpack_from("<HH", content, entry.header_offset + 26)
            start = entry.header_offset + 30 + name_bytes + extra_bytes
            found[entry.filename] = (start, entry.compress_type == zipfile.ZIP_STORED)
    return found


def test_the_signature_verifies_by_schemes_2_and_3(apk: Path) -> None:
    told = builds.run(["apksigner", "verify", "--verbose", "--min-sdk-version", str(MIN_SDK), str(apk)])
    for scheme in ("v2", "v3"):
        assert re.search(rf"Verified using {scheme} scheme .*: true", told), told


def test_a_flipped_bit_breaks_the_signature(apk: Path, tmp_path: Path) -> None:
    content = bytearray(apk.read_bytes())
    content[starts(apk)["classes.dex"][0] + 100] ^= 1
    broken = tmp_path / "broken.apk"
    broken.write_bytes(content)
    builds.run(["apksigner", "verify", "--min-sdk-version", str(MIN_SDK), str(broken)], fails=True)


def test_what_is_mapped_lies_where_it_can_be_mapped(apk: Path) -> None:
    found = starts(apk)
    libraries = {name: place for name, place in found.items() if name.endswith(".so")}
    assert set(libraries) == {f"lib/{abi}/{LIBRARY}" for abi in ABIS}
    assert all(is_stored and start % PAGE_BYTES == 0 for start, is_stored in libraries.values())
    artifacts = [place for name, place in found.items() if name.endswith(".tkt")]
    assert len(artifacts) == 3
    assert all(is_stored and start % 8 == 0 for start, is_stored in artifacts)
    builds.run(["zipalign", "-c", "-p", "4", str(apk)])


def test_libraries_are_of_their_machines_and_for_pages_of_16_kilobytes(apk: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        for abi, machine in MACHINES.items():
            content = archive.read(f"lib/{abi}/{LIBRARY}")
            assert struct.unpack_from("<H", content, 18) == (machine,)
            (tmp_path / abi).write_bytes(content)
            loads = re.findall(
                r"^\s+LOAD .* (0x\w+)$", builds.run(["readelf", "-lW", str(tmp_path / abi)]), re.MULTILINE
            )
            assert loads
            assert all(int(alignment, 16) == PAGE_BYTES for alignment in loads)
            assert ".symtab" not in builds.run(["readelf", "-SW", str(tmp_path / abi)])


def test_the_dex_file_holds_every_class(apk: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(apk) as archive:
        archive.extract("classes.dex", tmp_path)
    told = builds.run(["dexdump", "-f", str(tmp_path / "classes.dex")])
    classes = {name.replace("/", ".") for name in re.findall(r"Class descriptor\s*: 'L([^;]+);'", told)}
    folder = apk.parent / "classes"
    assert classes == {".".join(p.relative_to(folder).with_suffix("").parts) for p in folder.rglob("*.class")}
    wanted = {"draw.DrawActivity", "draw.NightlyTraining", "android.TrainingJobService", "Trainer"}
    assert {f"io.pocketticket.{name}" for name in wanted} <= classes


def permissions(apk: Path) -> list[str]:
    told = builds.run(["aapt", "dump", "permissions", str(apk)])
    assert f"package: {build_apk.APP}" in told
    return [line for line in told.splitlines() if "permission" in line]


def test_no_permission_is_asked_for(apk: Path) -> None:
    assert permissions(apk) == []


def test_a_permission_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, apk: Path) -> None:
    asking = '<uses-permission android:name="android.permission.INTERNET" /><application'
    manifest = tmp_path / "asking.xml"
    manifest.write_text(build_apk.APP_MANIFEST.read_text("utf-8").replace("<application", asking, 1), "utf-8")
    monkeypatch.setattr(build_apk, "APP_MANIFEST", manifest)
    assert permissions(build_apk.link_resources(tmp_path / "linked.apk")) != []


def test_what_android_reads_of_it(apk: Path) -> None:
    told = builds.run(["aapt", "dump", "badging", str(apk)])
    assert f"sdkVersion:'{MIN_SDK}'" in told
    assert f"targetSdkVersion:'{TARGET_SDK}'" in told
    assert f"launchable-activity: name='{build_apk.APP}.DrawActivity'" in told
    assert "native-code: " + " ".join(f"'{abi}'" for abi in ABIS) in told
    tree = builds.run(["aapt", "dump", "xmltree", str(apk), "AndroidManifest.xml"])
    assert re.search(r"allowBackup\(\w+\)=\(type 0x12\)0x0", tree)
    assert re.search(r"extractNativeLibs\(\w+\)=\(type 0x12\)0x0", tree)
    service = tree[tree.index("E: service") :]
    assert '"android.permission.BIND_JOB_SERVICE"' in service
    assert re.search(r"exported\(\w+\)=\(type 0x12\)0x0", service)


def test_equal_sources_give_equal_bytes(apk: Path) -> None:
    unsigned = apk.with_name("unsigned.apk")
    before = unsigned.read_bytes()
    build_apk.build(assets(), apk.parent)
    assert unsigned.read_bytes() == before


def test_the_library_is_an_archive_that_gradle_takes(packages: tuple[Path, Path]) -> None:
    apk, aar = packages
    with zipfile.ZipFile(aar) as library, zipfile.ZipFile(apk) as app:
        assert library.testzip() is None
        names = {"AndroidManifest.xml", "R.txt", "classes.jar", "proguard.txt"}
        assert set(library.namelist()) == names | {f"jni/{abi}/{LIBRARY}" for abi in ABIS}
        for abi in ABIS:
            assert library.read(f"jni/{abi}/{LIBRARY}") == app.read(f"lib/{abi}/{LIBRARY}")
        manifest = library.read("AndroidManifest.xml").decode()
        assert f'package="{build_apk.LIBRARY_NAME}"' in manifest
        assert f'minSdkVersion="{MIN_SDK}"' in manifest
        assert "permission android:name" not in manifest
        (aar.parent / "of-aar.jar").write_bytes(library.read("classes.jar"))
    with zipfile.ZipFile(aar.parent / "of-aar.jar") as jar:
        assert jar.testzip() is None
        assert "io/pocketticket/android/PersonalModel.class" in jar.namelist()
        assert not [name for name in jar.namelist() if "/draw/" in name]


@pytest.mark.parametrize("alignment", [4, 8, PAGE_BYTES])
@pytest.mark.parametrize("before", range(0, 40, 7))
def test_stored_entries_are_aligned_wherever_they_come(tmp_path: Path, before: int, alignment: int) -> None:
    path = tmp_path / "a.zip"
    entries = {"x" * (before + 1): packing.Entry(b"y" * before), "b": packing.Entry(b"content", alignment)}
    packing.write_zip(path, entries)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("b") == b"content"
    assert starts(path)["b"][0] % alignment == 0
