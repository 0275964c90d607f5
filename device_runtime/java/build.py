"""Builds the Java part of the SDK, package io.pocketticket, into one jar: javac for Java 8, then a zip with fixed dates.

    python device_runtime/java/build.py [--output build/java/pocket-ticket.jar]

Equal sources give equal bytes. The native library beside it comes from CMake (-DTKT_JNI=ON), one for each ABI.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent
RELEASE = "8"  # what every Android since 24 runs
DATE = (1980, 1, 1, 0, 0, 0)
STRICT = ("-Xlint:all,-options", "-Werror", "-encoding", "UTF-8")


def compile_java(sources: Iterable[Path], classes: Path, class_path: Iterable[Path] = ()) -> None:
    """Raises CalledProcessError, with the compiler's words on stderr, and FileNotFoundError where there is no javac."""
    command = ["javac", "--release", RELEASE, *STRICT, "-d", str(classes)]
    if paths := [str(path) for path in class_path]:
        command += ["-classpath", ":".join(paths)]
    subprocess.run([*command, *(str(source) for source in sources)], check=True)


def build(jar: Path) -> Path:
    jar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        classes = Path(folder)
        compile_java(sorted((SOURCES / "io").rglob("*.java")), classes)
        partial = jar.with_suffix(".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(classes.rglob("*.class")):
                entry = zipfile.ZipInfo(path.relative_to(classes).as_posix(), DATE)
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    partial.replace(jar)
    return jar


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/java/pocket-ticket.jar"), metavar="JAR")
    arguments = parser.parse_args(argv)
    try:
        print(build(arguments.output))
    except FileNotFoundError as error:
        print(f"{error.filename} is not installed; install a JDK (package default-jdk-headless)", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError:
        return 2  # javac has said why
    return 0


if __name__ == "__main__":
    sys.exit(main())
