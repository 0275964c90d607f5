"""What the static library and the Python module ask of the outside, held against a list: no socket, no allocation.

The library is built as an app would build it. Whoever needs a new name writes it down here, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime import _core

ROOT = Path(__file__).parents[2]

# What a compiler may call by itself, and what a linker knows.
CORE = (r"memcpy|memset|memcmp|memmove|_GLOBAL_OFFSET_TABLE_",)

# A trainer's own threads; builds for microcontrollers have none.
THREADS = (
    r"pthread_(create|join|sigmask)|sigfillset|pthread_mutex_(init|lock|unlock|destroy)",
    r"pthread_cond_(init|wait|signal|broadcast|destroy)",
)

# The module holds nanobind, which is C++ over Python: objects, exceptions, locks and its messages on stderr.
MODULE = (
    *CORE,
    *THREADS,
    r"_?Py\w+",
    r"_Zn[wa]m\w*|_Zd[la]Pv\w*",  # new and delete
    r"_ZNK?St\d+\w*error\w+|_ZNK?St9exception\w+|_ZNSt15__exception_ptr\w+|_ZNSt8bad_cast\w+|_ZTISt\w+|_ZTVSt\w+",
    r"_ZNK?St7__cxx1112basic_stringI\w+|_ZSt11_Hash_bytes\w+|_ZSt7nothrow",
    r"_ZSt\d+(current|rethrow)_exception\w*|_ZSt\d+__throw_\w+|_ZSt9terminatev|_ZTVN10__cxxabiv1\w+",
    r"__cxa_\w+|__gxx_personality_v0|_Unwind_Resume|__gmon_start__|_ITM_\w+TMCloneTable|__stack_chk_fail",
    r"malloc|free|abort|str(len|cmp|ncmp|chr|rchr|str|dup)|pthread_mutex_(lock|trylock|unlock)",
    r"stderr|fputc|fwrite|v?fprintf|v?snprintf",
)

PLANTED = """
#include <cstdlib>
#include <sys/socket.h>
int *planted(int size) {
  int *made = new int(socket(AF_INET, SOCK_STREAM, 0));
  return size ? made : static_cast<int *>(std::malloc(8));
}
"""


def program(name: str) -> str:
    """Beside this Python or on the path."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def symbols(library: Path, *flags: str) -> set[str]:
    """Names as nm tells them, without versions; of a fortified function that of the plain one."""
    lines = [line.split() for line in run(program("nm"), "-P", *flags, library).splitlines()]
    names = {fields[0].partition("@")[0] for fields in lines if len(fields) >= 2}
    return {re.sub(r"__(\w+)_chk$", r"\1", name) for name in names}


def foreign(library: Path, allowed: tuple[str, ...], *flags: str) -> set[str]:
    """What the library needs of others beyond the list."""
    needed = symbols(library, *flags, "-u") - symbols(library, *flags, "--defined-only")
    assert needed, "a library that needs nothing was not read"
    return {name for name in needed if not re.fullmatch("|".join(allowed), name)}


@pytest.fixture(scope="module")
def static_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    ninja = f"-DCMAKE_MAKE_PROGRAM={program('ninja')}"
    cmake = program("cmake")
    run(cmake, "-S", ROOT / "device_runtime", "-B", build, "-G", "Ninja", ninja, "-DCMAKE_BUILD_TYPE=Release")
    run(cmake, "--build", build)
    return build / "libticket_runtime.a"


def test_the_static_library_needs_memory_functions_and_threads_alone(static_library: Path) -> None:
    assert foreign(static_library, (*CORE, *THREADS)) == set()


def test_the_python_module_needs_no_network_and_no_file() -> None:
    assert _core.__file__ is not None
    assert foreign(Path(_core.__file__), MODULE, "-D") == set()


def test_a_planted_call_is_found(static_library: Path, tmp_path: Path) -> None:
    source, planted = tmp_path / "planted.cpp", tmp_path / "planted.o"
    source.write_text(PLANTED)
    run(program("g++"), "-c", "-fPIC", "-o", planted, source)
    library = tmp_path / "libplanted.a"
    shutil.copy(static_library, library)
    run(program("ar"), "r", library, planted)
    assert foreign(library, (*CORE, *THREADS)) == {"malloc", "socket", "_Znwm"}
    module = tmp_path / "planted.so"
    run(program("g++"), "-shared", "-o", module, planted)
    assert foreign(module, MODULE, "-D") == {"socket"}
