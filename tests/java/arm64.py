"""A JVM for 64-bit ARM under QEMU: Debian's packages, fetched by apt into a folder of their own and unpacked, not installed.

The Android library is used as it is. Its libc.so is the stand-in that it was linked with, which only names functions: glibc
comes first and answers. Skips by name where there is no apt, no QEMU, or nobody to fetch from.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

from tests.java import jvm
from tests.targets import builds

PACKAGES = ("openjdk-17-jre-headless", "libc6", "zlib1g", "libstdc++6", "libgcc-s1")
FETCH_SECONDS = 300


@functools.cache
def root() -> Path:
    """The unpacked packages."""
    missing = [name for name in ("qemu-aarch64", "apt-get", "dpkg-deb") if builds.find(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} (packages qemu-user, apt, dpkg) is not installed")
    with builds.locked("arm64-jvm") as folder:
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            fetch(folder)
            (folder / "complete").touch()
        return folder / "root"


def fetch(folder: Path) -> None:
    apt, debs = folder / "apt", folder / "debs"
    for place in (apt / "state/lists/partial", apt / "cache/archives/partial", debs, folder / "root"):
        place.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # it may not write here
        "Dir::State": f"{apt}/state",
        "Dir::State::status": f"{apt}/status",
        "Dir::Cache": f"{apt}/cache",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    offered([*command, "update"], debs)
    offered([*command, "download", *(f"{package}:arm64" for package in PACKAGES)], debs)
    for package in sorted(debs.glob("*.deb")):
        builds.run(["dpkg-deb", "-x", str(package), str(folder / "root")])


def offered(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"Debian's packages for arm64 did not come within {FETCH_SECONDS} seconds")
    if done.returncode != 0:
        pytest.skip(f"Debian's packages for arm64 cannot be had: {done.stderr.strip().splitlines()[-1:]}")


def command(main: str, *arguments: str) -> list[str]:
    """The command line that runs a class of the tests on the emulated JVM with the Android library."""
    system, native = root(), jvm.library(jvm.ARM64)
    (java,) = system.glob("usr/lib/jvm/java-17-openjdk-arm64/bin/java")
    emulator = ["qemu-aarch64", "-L", str(system), "-E", f"LD_LIBRARY_PATH={native.parent.parent}"]
    return [*emulator, str(java), *jvm.java_options(native), *jvm.CHECKS, "-Dkernels=NEON", main, *arguments]
