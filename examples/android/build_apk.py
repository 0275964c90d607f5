"""Builds the app, and the library as an AAR, by Debian's tools alone: no Gradle, no SDK, no NDK.

    python -m examples.android.build_apk [--assets build/android/assets] [--output build/android]

Native code by clang for three ABIs, Java by javac and dx, one zip with libraries that are mapped as they lie, signed with a
debug key made on the fly. Equal sources give equal bytes but for the key. Not for a store: give a release its own key.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import zipfile
from pathlib import Path

from examples.android import toolchain
from examples.android.packing import Entry, alignment_of, write_zip
from examples.android.toolchain import MissingToolError, run

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "device_runtime"
OUTPUT = Path("build/android")

# The Gradle and CMake files for users of Android Studio say the same, and a test holds them to it.
ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64")
MIN_SDK = 24
TARGET_SDK = 35
VERSION_CODE = 1
VERSION = "0.1.0"
APP = "io.pocketticket.draw"
LIBRARY_NAME = "io.pocketticket.android"
LIBRARY = "libticket_runtime_jni.so"
CMAKE_ARGUMENTS = ("-DTKT_JNI=ON", "-DTKT_SMALL=ON")
LIBRARY_JAVA = (RUNTIME / "java", RUNTIME / "android/java")
APP_JAVA = (ROOT / "examples/android/java",)
LIBRARY_MANIFEST = RUNTIME / "android/AndroidManifest.xml"
APP_MANIFEST = ROOT / "examples/android/AndroidManifest.xml"


def build(assets: Path, output: Path) -> tuple[Path, Path]:
    """The signed APK, and the AAR. Raises MissingToolError, RuntimeError with what a tool printed."""
    toolchain.check()
    dx, android_jar = toolchain.debian_11()
    libraries = {abi: native(abi, output / abi) for abi in ABIS}
    compiled = compile_java([*LIBRARY_JAVA, *APP_JAVA], android_jar, output / "classes")
    dex = output / "classes.dex"
    run(["java", "-cp", str(dx), "com.android.dx.command.Main", *dex_arguments(dex, compiled)])
    unsigned = output / "unsigned.apk"
    write_zip(unsigned, apk_entries(link_resources(output / "linked.apk"), dex, libraries, assets))
    library_classes = compile_java(list(LIBRARY_JAVA), android_jar, output / "library-classes")
    aar = output / "pocket-ticket.aar"
    write_zip(aar, aar_entries(library_classes, libraries, output / "classes.jar"))
    return sign(unsigned, output), aar


def native(abi: str, folder: Path) -> bytes:
    """The stripped library for one ABI, from the sources and flags of every other target."""
    configure = ["cmake", "-S", str(RUNTIME), "-B", str(folder), "-G", "Ninja", "--log-level=WARNING"]
    options = [f"-DCMAKE_TOOLCHAIN_FILE={RUNTIME}/cmake/android-{abi}.cmake", "-DCMAKE_BUILD_TYPE=Release"]
    run([*configure, *options, *CMAKE_ARGUMENTS], LDFLAGS="-Wl,--strip-all")
    run(["cmake", "--build", str(folder), "--target", LIBRARY.removeprefix("lib").removesuffix(".so")])
    (library,) = folder.rglob(LIBRARY)
    return library.read_bytes()


def compile_java(sources: list[Path], android_jar: Path, folder: Path) -> Path:
    """For Java 8 without lambdas, against Android's own classes of API 23, so that nothing newer is called unseen."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = [str(path) for source in sources for path in sorted(source.rglob("*.java"))]
    language = ["-source", "8", "-target", "8", "-bootclasspath", str(android_jar), "-encoding", "UTF-8"]
    run(["javac", "-Xlint:all,-options", "-Werror", *language, "-d", str(folder), *files])
    return folder


def dex_arguments(dex: Path, classes: Path) -> list[str]:
    return ["--dex", f"--min-sdk-version={MIN_SDK}", f"--output={dex}", str(classes)]


def link_resources(linked: Path) -> Path:
    """The manifest in Android's binary form, with what a Gradle file says in its place."""
    manifest = linked.with_name("AndroidManifest.xml")
    text = named(APP_MANIFEST, APP).replace("<application", '<application android:extractNativeLibs="false"', 1)
    manifest.write_text(text, encoding="utf-8")
    versions = ["--min-sdk-version", MIN_SDK, "--target-sdk-version", TARGET_SDK, "--version-code", VERSION_CODE]
    words = [str(word) for word in (*versions, "--version-name", VERSION)]
    run(["aapt2", "link", "-o", str(linked), "--manifest", str(manifest), "-I", str(toolchain.FRAMEWORK), *words])
    return linked


def named(manifest: Path, package: str) -> str:
    return manifest.read_text(encoding="utf-8").replace("<manifest", f'<manifest package="{package}"', 1)


def apk_entries(linked: Path, dex: Path, libraries: dict[str, bytes], assets: Path) -> dict[str, Entry]:
    with zipfile.ZipFile(linked) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["classes.dex"] = dex.read_bytes()
    contents |= {f"lib/{abi}/{LIBRARY}": library for abi, library in libraries.items()}
    contents |= {f"assets/{path.name}": path.read_bytes() for path in sorted(assets.iterdir())}
    return {name: Entry(contents[name], alignment_of(name)) for name in sorted(contents)}


def aar_entries(classes: Path, libraries: dict[str, bytes], jar: Path) -> dict[str, Entry]:
    """What Gradle takes for a library: manifest, classes, native libraries, rules for ProGuard and R8."""
    names = {path.relative_to(classes).as_posix(): path for path in sorted(classes.rglob("*.class"))}
    write_zip(jar, {name: Entry(path.read_bytes()) for name, path in names.items()})
    minimum = f'<uses-sdk android:minSdkVersion="{MIN_SDK}" />'
    library_manifest = named(LIBRARY_MANIFEST, LIBRARY_NAME).replace(" />", f">{minimum}</manifest>", 1)
    contents = {
        "AndroidManifest.xml": library_manifest.encode(),
        "R.txt": b"",
        "classes.jar": jar.read_bytes(),
        "proguard.txt": (RUNTIME / "android/consumer-rules.pro").read_bytes(),
    }
    contents |= {f"jni/{abi}/{LIBRARY}": library for abi, library in libraries.items()}
    return {name: Entry(content) for name, content in sorted(contents.items())}


def sign(unsigned: Path, output: Path) -> Path:
    """Signs by schemes 2 and 3, which every Android from MIN_SDK on checks, and verifies the result."""
    key, apk = output / "debug.keystore", output / "draw.apk"
    password = "android"  # of debug keys everywhere
    if not key.exists():
        who = [
            "-alias",
            "debug",
            "-dname",
            "CN=Debug",
            "-keyalg",
            "EC",
            "-groupname",
            "secp256r1",
            "-validity",
            "10000",
        ]
        run(["keytool", "-genkeypair", "-keystore", str(key), "-storepass", password, "-keypass", password, *who])
    given = ["--ks", str(key), "--ks-pass", f"pass:{password}", "--min-sdk-version", str(MIN_SDK)]
    run(["apksigner", "sign", *given, "--v1-signing-enabled", "false", "--out", str(apk), str(unsigned)])
    verified = run(["apksigner", "verify", "--verbose", "--min-sdk-version", str(MIN_SDK), str(apk)])
    if not re.search(r"Verified using v2 scheme .*: true", verified):
        raise RuntimeError(f"{apk}: the signature does not verify\n{verified}")
    return apk


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--assets", type=Path, default=OUTPUT / "assets", help="of make_assets.py")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    if not (given.assets / "ticket.tkt").is_file():
        print(
            f"build_apk: '{given.assets}' holds no ticket.tkt; run python -m examples.android.make_assets",
            file=sys.stderr,
        )
        return 2
    try:
        files = build(given.assets, given.output)
    except MissingToolError as error:
        print(f"build_apk: {error}", file=sys.stderr)
        return 2
    for path in files:
        print(f"{path} {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
