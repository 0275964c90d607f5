"""Runtimes that an app ships already, behind the verbs of Trainer; none of them gets faster by sparsity.

Each file imports its runtime when it is used; the rest of this package needs numpy alone.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.artifact import Source
from device_runtime.errors import InvalidInput
from device_runtime.folder import Folder

if TYPE_CHECKING:
    from device_runtime.backends.engine import BackendEngine

NATIVE, ONNX_RUNTIME, EXECUTORCH = "native", "onnxruntime", "executorch"
ENGINES = {
    ONNX_RUNTIME: ("device_runtime.backends.onnxruntime", "OnnxRuntimeEngine"),
    EXECUTORCH: ("device_runtime.backends.executorch", "ExecutorchEngine"),
}
EXTRAS = {ONNX_RUNTIME: "ort", EXECUTORCH: "executorch"}
PROGRAM_MAGIC = slice(4, 8), b"ET"  # of a flatbuffer of ExecuTorch: "ET12" and later versions


def runtime_of(source: Source) -> str:
    """Which runtime an artifact is for: a folder is ONNX Runtime's, a program ExecuTorch's, all else the core's to judge."""
    if isinstance(source, bytes):
        head = source[:8]
    elif isinstance(source, Folder) or Path(source).is_dir():
        return ONNX_RUNTIME
    else:
        with open(source, "rb") as file:
            head = file.read(8)
    place, magic = PROGRAM_MAGIC
    return EXECUTORCH if head[place].startswith(magic) else NATIVE


def open_engine(runtime: str, source: Source, given: dict[str, Any]) -> BackendEngine:
    """The artifact's engine with the options that are `given`. Raises InvalidInput for one that the runtime cannot follow, or where it is
    not installed; CorruptArtifact, IncompatibleArtifact, OSError."""
    module, name = ENGINES[runtime]
    try:
        chosen: type[BackendEngine] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InvalidInput(
            f"{error.name} is missing, which trains this artifact; pip install 'pocket-ticket[{EXTRAS[runtime]}]'"
        ) from error
    for option, value in given.items():
        if option not in chosen.ALWAYS | chosen.takes:
            raise InvalidInput(
                f"{option} {value!r} by {runtime}: it cannot follow that; leave it out, or take a native artifact"
            )
    return chosen.open(source, given)
