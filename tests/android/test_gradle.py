"""The Gradle and CMake files for Android Studio say what build_apk.py does: sources, ABIs, versions, flags.

Gradle itself is not run here: there is no Android plugin for it on this machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from examples.android import build_apk
from tests.targets.builds import ROOT, RUNTIME

APP = ROOT / "examples/android/build.gradle"
LIBRARY = RUNTIME / "android/build.gradle"
SETTINGS = ROOT / "examples/android/settings.gradle"
MANIFESTS = (build_apk.APP_MANIFEST, build_apk.LIBRARY_MANIFEST)


def said(path: Path, name: str) -> list[str]:
    """The values of a line `name value, value` or `name = [value]`; fails unless there is exactly one such line."""
    lines = re.findall(rf"^\s*{re.escape(name)}\b[ =(\[]*(.*?)[\])]*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 1, f"{path.name}: {name} is there {len(lines)} times"
    return [value.strip().strip("'") for value in lines[0].split(",")]


def folders(path: Path, name: str) -> list[Path]:
    return [(path.parent / value).resolve() for value in said(path, name)]


def test_sources_are_the_same() -> None:
    assert folders(LIBRARY, "java.srcDirs") == list(build_apk.LIBRARY_JAVA)
    assert folders(APP, "java.srcDirs") == list(build_apk.APP_JAVA)
    assert folders(APP, "manifest.srcFile") == [build_apk.APP_MANIFEST]
    assert folders(LIBRARY, "manifest.srcFile") == [build_apk.LIBRARY_MANIFEST]
    assert folders(APP, "assets.srcDirs") == [ROOT / build_apk.OUTPUT / "assets"]
    assert folders(LIBRARY, "externalNativeBuild.cmake.path") == [RUNTIME / "CMakeLists.txt"]
    assert folders(LIBRARY, "consumerProguardFiles") == [RUNTIME / "android/consumer-rules.pro"]
    assert folders(SETTINGS, "project(':pocket-ticket').projectDir = file") == [LIBRARY.parent]


def test_versions_and_names_are_the_same() -> None:
    for path in (APP, LIBRARY):
        assert said(path, "minSdk") == [str(build_apk.MIN_SDK)]
        assert said(path, "compileSdk") == [str(build_apk.TARGET_SDK)]
        for name in ("sourceCompatibility", "targetCompatibility"):
            assert said(path, name) == ["JavaVersion.VERSION_1_8"]
    assert said(APP, "targetSdk") == [str(build_apk.TARGET_SDK)]
    assert said(APP, "versionCode") == [str(build_apk.VERSION_CODE)]
    assert said(APP, "versionName") == [build_apk.VERSION]
    assert said(APP, "namespace") == [build_apk.APP]
    assert said(LIBRARY, "namespace") == [build_apk.LIBRARY_NAME]


def test_native_code_is_built_the_same() -> None:
    assert said(LIBRARY, "ndk.abiFilters") == list(build_apk.ABIS)
    assert said(LIBRARY, "arguments") == [*build_apk.CMAKE_ARGUMENTS, "-DANDROID_STL=none"]
    assert f"lib{said(LIBRARY, 'targets')[0]}.so" == build_apk.LIBRARY
    toolchain = (RUNTIME / "cmake/android-armeabi-v7a.cmake").read_text(encoding="utf-8")
    cmake = (RUNTIME / "CMakeLists.txt").read_text(encoding="utf-8")
    (fpu,) = re.findall(r"-mfpu=[\w-]+", toolchain)
    assert re.findall(r"-mfpu=[\w-]+", cmake) == [fpu]
    for path in (RUNTIME / "cmake").glob("android-*.cmake"):
        assert re.search(rf"TKT_ANDROID_TRIPLE \S+-linux-android(eabi)?{build_apk.MIN_SDK}\)", path.read_text("utf-8"))
    assert {path.stem.removeprefix("android-") for path in (RUNTIME / "cmake").glob("android-*.cmake")} == {
        *build_apk.ABIS
    }


def test_manifests_leave_to_gradle_what_gradle_says() -> None:
    for path in MANIFESTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"package=|uses-sdk|versionCode|extractNativeLibs", text), path


def test_artifacts_are_mapped_as_they_lie() -> None:
    assert said(APP, "androidResources.noCompress") == ["tkt"]
