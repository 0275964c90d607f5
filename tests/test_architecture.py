"""The direction of every import and #include, held against the rule; a wrong arrow fails here, with file and line.

    server_side -> export.{network, ticket, lower} -> numpy, safetensors      device_runtime -> nothing of ours
    inside device_runtime: core <- c_api <- {python, jni}; the bindings see ticket_runtime.h alone

Also: no network module on the device side, no build flag that changes arithmetic or ties a binary to one machine.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("server_side", "export", "device_runtime")

# Which of our modules a part may import besides its own.
OURS = {
    "server_side": ("export.network", "export.ticket", "export.lower", "export.atomic", "export.drawn"),
    "export": (),
    "device_runtime": (),
}
# The files that train on the device's runtime, draw weights by it or ask it what a ticket takes, through the door of devices.
ENGINE = {
    "export/gate.py": ("device_runtime.Trainer",),
    "export/delta.py": ("device_runtime.PocketTicketError", "device_runtime.apply_delta", "device_runtime.inspect"),
    "export/formats.py": ("device_runtime.Trainer",),
    "export/to_ort.py": ("device_runtime.backends.silence",),
    "export/to_executorch.py": ("device_runtime.backends.silence",),
    "export/measure.py": ("device_runtime.Trainer", "device_runtime.backends"),
    "server_side/drawn.py": ("device_runtime.draw",),
    "server_side/device_engine.py": (
        "export.layout",
        "export.to_native",
        "device_runtime.NonFiniteLoss",
        "device_runtime.Trainer",
    ),
    "server_side/fit.py": (
        "export.compact",
        "export.to_native",
        "device_runtime.Trainer",
        "device_runtime.inspect",
    ),
}
# Which packages of others; the server side may use any.
THIRD_PARTY = {"export": {"numpy", "safetensors", "onnx"}, "device_runtime": {"numpy"}}
FURTHER = {  # and which files alone
    "export/lower.py": {"torch"},
    "export/reference.py": {"torch"},
    "export/gate.py": {"torch"},
    "export/kinks.py": {"torch"},
    "export/torch_operators.py": {"torch"},
    "export/torch_modules.py": {"torch"},
    "export/to_executorch.py": {"torch", "executorch"},
    "export/to_ort.py": {"onnxruntime"},
    "export/sign.py": {"cryptography"},
    "device_runtime/signature.py": {"cryptography"},
    "device_runtime/backends/onnxruntime.py": {"onnxruntime"},
    "device_runtime/backends/executorch.py": {"torch", "executorch"},
}
NETWORK_MODULES = {
    *("asyncio", "email", "ftplib", "http", "imaplib", "nntplib", "poplib", "select", "selectors", "smtplib", "socket"),
    *("socketserver", "ssl", "telnetlib", "urllib", "webbrowser", "wsgiref", "xmlrpc"),
}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
C_SUFFIXES = {".c", ".cc", ".cpp", ".h", ".hpp", ".inc", ".inl"}
# Which layers a layer may include besides itself.
LAYERS: dict[str, set[str]] = {
    "include": set(),
    "core": {"include"},
    "c_api": {"core", "include"},
    "python": {"include"},
    "jni": {"include"},
}
NETWORK_HEADERS = re.compile(
    r"^(sys/(socket|un)|netinet/.*|arpa/.*|netdb|winsock2?|ws2tcpip|curl/.*|linux/.*sock.*)\.h$"
)

BUILD_FILES = ("CMakeLists.txt", "*.cmake", "Makefile", "*.mk", "pyproject.toml", "*.gradle", "*.gradle.kts", ".ci/*")
FORBIDDEN_FLAGS = re.compile(r"-ffast-math|-Ofast|-funsafe-math|-fassociative-math|-m(arch|tune|cpu)=native")
NOT_OURS = {".git", ".venv", "build", "node_modules"}


def ours(root: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(root.rglob(pattern)):
        if path.is_file() and not NOT_OURS & set(path.relative_to(root).parts):
            yield path


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of each import, those inside functions and type checks too."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def python_violations(root: Path) -> list[str]:
    found = []
    for part in PARTS:
        for path in ours(root / part, "*.py"):
            place = path.relative_to(root).as_posix()
            for line, name in imports(path, root):
                if reason := wrong_import(part, place, name):
                    found.append(f"{place}:{line}: imports {name}: {reason}")
    return found


def wrong_import(part: str, place: str, name: str) -> str | None:
    top = name.partition(".")[0]
    if top == part or top == "__future__":
        return None
    if top in PARTS:
        allowed = (*OURS[part], *ENGINE.get(place, ()))
        fits = any(name == module or name.startswith(f"{module}.") for module in allowed)
        return None if fits else f"{part} may import {', '.join(allowed) or 'nothing'} of ours"
    if part == "device_runtime" and top in NETWORK_MODULES:
        return "the device side has no network"
    if top in sys.stdlib_module_names or part not in THIRD_PARTY or top in FURTHER.get(place, ()):
        return None
    return None if top in THIRD_PARTY[part] else f"{part} may use {', '.join(sorted(THIRD_PARTY[part]))}"


def layer_of(path: Path, root: Path) -> str | None:
    """Of a C or C++ file below device_runtime; None for what is no part of the library (mcu and android examples)."""
    first = path.relative_to(root / "device_runtime").parts[0]
    first = first.partition(".")[0]
    return first if first in LAYERS else None


def include_violations(root: Path) -> list[str]:
    files = [path for path in ours(root / "device_runtime", "*") if path.suffix in C_SUFFIXES]
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = INCLUDE.match(line)
            if match and (reason := wrong_include(path, match[2], match[1] == "<", files, root)):
                found.append(f"{path.relative_to(root).as_posix()}:{number}: includes {match[2]}: {reason}")
    return found


def wrong_include(path: Path, name: str, angled: bool, files: list[Path], root: Path) -> str | None:
    if NETWORK_HEADERS.match(name):
        return "the device side has no network"
    own = layer_of(path, root)
    places = [root / "device_runtime" / name, root / "device_runtime/include" / name]  # of what < > could find of ours
    ending = "/" + re.sub(r"^(\.\./)+", "", name)
    targets = [file for file in files if (file in places if angled else file.as_posix().endswith(ending))]
    if own is None or (angled and not targets):
        is_cpp_library = own == "core" and not name.endswith(".h")
        return "the core uses no C++ library" if is_cpp_library else None
    if not targets:
        return "no such file of ours; another library is included by < >"
    for layer in {layer_of(target, root) for target in targets}:
        if layer != own and layer not in LAYERS[own]:
            return f"{own} may include {', '.join(sorted({own, *LAYERS[own]}))}"
    return None


def build_violations(root: Path) -> list[str]:
    paths = {path for pattern in BUILD_FILES for path in ours(root, pattern)}
    sources = {path for path in ours(root / "device_runtime", "*") if path.suffix in C_SUFFIXES}
    found = []
    for path in sorted(paths | sources):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            code = line.partition("//" if path in sources else "#")[0]
            if match := FORBIDDEN_FLAGS.search(code):
                found.append(f"{path.relative_to(root).as_posix()}:{number}: {match[0]}")
    return found


def test_python_imports_point_one_way() -> None:
    assert python_violations(ROOT) == []


def test_includes_point_one_way() -> None:
    assert include_violations(ROOT) == []


def test_no_build_file_changes_arithmetic_or_ties_to_one_machine() -> None:
    assert build_violations(ROOT) == []


def test_there_is_something_to_check() -> None:
    for part in PARTS:
        assert list(ours(ROOT / part, "*.py"))
    assert {path.name for path in ours(ROOT, "CMakeLists.txt")}
    assert (ROOT / "device_runtime/include/ticket_runtime.h").exists()


WRONG_PYTHON = {
    "server_side/a.py": ("import device_runtime", "server_side may import export.network"),
    "server_side/b.py": ("from export import to_native", "server_side may import"),
    "server_side/c.py": ("from export.to_native import to_native_bytes", "server_side may import"),
    "server_side/d.py": ("import export", "server_side may import"),
    "export/a.py": ("def f():\n    import server_side.find", "export may import nothing of ours"),
    "export/b.py": ("import torch", "export may use numpy, onnx, safetensors"),
    "export/c.py": ("from device_runtime.trainer import Trainer", "export may import nothing of ours"),
    "device_runtime/a.py": ("import torch.nn", "device_runtime may use numpy"),
    "device_runtime/b.py": ("from export.network import Network", "device_runtime may import nothing of ours"),
    "device_runtime/c.py": ("if TYPE_CHECKING:\n    import socket", "the device side has no network"),
    "device_runtime/d.py": ("from urllib.request import urlopen", "the device side has no network"),
    "device_runtime/e.py": ("from ..export import ticket", "device_runtime may import nothing of ours"),
    "device_runtime/f.py": ("import safetensors", "device_runtime may use numpy"),
    "device_runtime/g.py": ("from onnxruntime.training.api import Module", "device_runtime may use numpy"),
}
RIGHT_PYTHON = {
    "server_side/ok.py": "import os\nimport torch\nfrom export.ticket import Ticket\nfrom export import network",
    "export/lower.py": "import torch\nfrom torch import nn\nfrom .ticket import Ticket\nfrom . import network",
    "export/ok.py": "import numpy as np\nfrom safetensors.numpy import load\nimport urllib.parse",
    "device_runtime/backends/onnxruntime.py": "import onnxruntime",
    "device_runtime/ok.py": "import numpy as np\nimport json\nfrom device_runtime import _core",
}


def write(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("place", WRONG_PYTHON)
def test_a_wrong_import_is_found(tmp_path: Path, place: str) -> None:
    text, reason = WRONG_PYTHON[place]
    for right, right_text in RIGHT_PYTHON.items():
        write(tmp_path, right, right_text)
    assert python_violations(tmp_path) == []
    write(tmp_path, place, text)
    (violation,) = python_violations(tmp_path)
    assert violation.startswith(f"{place}:{1 + text.count(chr(10))}: imports ")
    assert reason in violation


WRONG_INCLUDES = {
    "include/bad.h": ('#include "core/plan.h"', "include may include include"),
    "core/bad.cpp": ('#include "c_api.h"', "core may include core, include"),
    "core/binding.cpp": ('#include "../python/cast.h"', "core may include core, include"),
    "core/library.h": ("#include <vector>", "the core uses no C++ library"),
    "core/lost.h": ('#include "vector.h"', "no such file of ours"),
    "c_api.cpp": ('#  include "python/cast.h"', "c_api may include c_api, core, include"),
    "python/bad.cpp": ('#include "core/plan.h"', "python may include include, python"),
    "python/angled.cpp": ("#include <core/plan.h>", "python may include include, python"),
    "jni/bad.cpp": ('#include "cast.h"', "jni may include include, jni"),
    "core/net.cpp": ("#include <sys/socket.h>", "the device side has no network"),
    "android/net.c": ("#include <netinet/in.h>", "the device side has no network"),
}
RIGHT_INCLUDES = {
    "include/ticket_runtime.h": "#include <stdint.h>",
    "core/math.h": "",
    "core/plan.h": '#include <math.h>\n#include "ticket_runtime.h"',
    "core/plan.cpp": '#include "core/plan.h"\n#include "plan.h"\n#include <immintrin.h>',
    "c_api.h": '#include "core/plan.h"',
    "python/cast.h": '#include <math.h>\n#include <nanobind/nanobind.h>\n#include "ticket_runtime.h"',
    "jni/ok.cpp": '#include <jni.h>\n#include "ticket_runtime.h"',
    "mcu/main.c": '#include "board.h"\n#include <stdio.h>',
}


@pytest.mark.parametrize("place", WRONG_INCLUDES)
def test_a_wrong_include_is_found(tmp_path: Path, place: str) -> None:
    text, reason = WRONG_INCLUDES[place]
    for right, right_text in RIGHT_INCLUDES.items():
        write(tmp_path / "device_runtime", right, right_text)
    assert include_violations(tmp_path) == []
    write(tmp_path / "device_runtime", place, text)
    (violation,) = include_violations(tmp_path)
    assert violation.startswith(f"device_runtime/{place}:1: includes ")
    assert reason in violation


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("CMakeLists.txt", "add_compile_options(-O3 -ffast-math)"),
        ("device_runtime/CMakeLists.txt", "set(X -march=native)"),
        ("Makefile", "CFLAGS = -Ofast"),
        ("device_runtime/android/build.gradle", 'cppFlags "-mtune=native"'),
        ("device_runtime/core/a.cpp", '#pragma GCC optimize("-ffast-math")'),
    ],
)
def test_a_forbidden_flag_is_found(tmp_path: Path, place: str, text: str) -> None:
    comment = "// -ffast-math" if place.endswith("cpp") else "# -ffast-math"
    write(tmp_path, place, f"{comment}\n{text}\n")
    (violation,) = build_violations(tmp_path)
    assert violation.startswith(f"{place}:2: -")
