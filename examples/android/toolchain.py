"""The tools of an Android build without Android's SDK, NDK and Gradle: Debian's packages.

Two of them only Debian 11 has: the dexer, and android.jar of API 23 to compile against. They are fetched by apt-get, which
checks their signatures, into a folder of their own; nothing is installed. Says by name what cannot be had.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # of this environment first: its cmake
DEBIAN_11_FOLDER = Path(__file__).parents[2] / "build/debian-11"

PROGRAMS = {
    "aapt2": "aapt",
    "apksigner": "apksigner",
    "cmake": "cmake",
    "clang++-14": "clang-14",
    "ld.lld-14": "lld-14",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "keytool": "default-jdk-headless",
    "ninja": "ninja-build",
}
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
DEBIAN_11 = {"dalvik-exchange": "10.0.0+r36-1", "libandroid-23-java": "6.0.1+r72-6"}
DX = "usr/lib/android-sdk/build-tools/debian/lib/dx.jar"
ANDROID_JAR = "usr/lib/android-sdk/platforms/android-23/android.jar"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class MissingToolError(RuntimeError):
    """Names what is missing and the package that has it."""


def check() -> None:
    """Raises MissingToolError unless everything but the two of Debian 11 is installed."""
    missing = [
        f"{program} (package {package})"
        for program, package in PROGRAMS.items()
        if not shutil.which(program, path=PATH)
    ]
    if not FRAMEWORK.is_file():
        missing.append(f"{FRAMEWORK.name} (package android-framework-res)")
    if missing:
        raise MissingToolError(f"{', '.join(missing)} is not installed")


def run(command: list[str], **environment: str) -> str:
    """What the command printed. Raises RuntimeError with all of it where the command fails."""
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": PATH, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stdout}")
    return done.stdout


@functools.cache
def debian_11(folder: Path = DEBIAN_11_FOLDER) -> tuple[Path, Path]:
    """The dexer's jar and android.jar, fetched into `folder` where they are not. Raises MissingToolError."""
    root = folder / "root"
    if not (root / DX).is_file() or not (root / ANDROID_JAR).is_file():
        _fetch(folder)
        for name in DEBIAN_11:
            (deb,) = folder.glob(f"{name}_*.deb")
            run(["dpkg-deb", "-x", str(deb), str(root)])
    return root / DX, root / ANDROID_JAR


def _fetch(folder: Path) -> None:
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    try:
        (folder / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {_archive()} bullseye main\n", encoding="utf-8"
        )
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/nonexistent",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": 2,
        }
        apt = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        run([*apt, "update"])
        wanted = " ".join(f"{name}={version}" for name, version in DEBIAN_11.items())
        run(["sh", "-c", f'cd "$1" && shift && exec "$@" {wanted}', "sh", str(folder), *apt, "download"])
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise MissingToolError(f"{' and '.join(DEBIAN_11)} of Debian 11 cannot be had: {reason}") from error


def _archive() -> str:
    """Where this machine has Debian's packages from."""
    targets = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)"])
    for line in targets.splitlines():
        origin, component, address = line.split("|")
        if origin == "Debian" and component == "main" and "security" not in address:
            return address.rstrip("/")
    raise RuntimeError("no archive of Debian in this machine's list of sources")
