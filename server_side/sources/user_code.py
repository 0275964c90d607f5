"""What users bring as `package.module:name`, imported and called; whatever it raises becomes one line with its place.

A data function returns (x, y) or a dict with the keys of an npz file.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from typing import Any

from server_side.errors import UsageError
from server_side.sources.npz import samples_of
from server_side.sources.source import Samples, Source


def read_function(source: Source) -> Samples:
    """`source.text` is the function's name."""
    result = call(import_object(source.text, "data"), source.text, "data")
    if isinstance(result, tuple) and len(result) == 2:
        result = {"x": result[0], "y": result[1]}
    if not isinstance(result, dict):
        raise source.error(f"returned {type(result).__name__}, expected (x, y) or a dict with x and y")
    return samples_of(source, source.text, result)


def import_object(source: str, what: str) -> Any:
    """The object named `package.module:name`; UsageError if there is none."""
    module_name, _, attribute = source.partition(":")
    try:
        module = importlib.import_module(module_name) if module_name else None
    except ImportError as error:
        raise UsageError(f"{what} '{source}': {error}; expected package.module:name, importable from here") from error
    except Exception as error:  # whatever the module does when it is imported
        raise _raised(source, what, error) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"{what} '{source}': module '{module_name}' has no '{attribute}'; expected package.module:name"
        )
    return getattr(module, attribute)


def call(function: Callable[[], Any], source: str, what: str) -> Any:
    """What `function`, the user's own at `source`, returns; UsageError, with the place, where it raises."""
    try:
        return function()
    except Exception as error:
        raise _raised(source, what, error) from error


def _raised(source: str, what: str, error: Exception) -> UsageError:
    """Names the line of the user's code at which it ended."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    file, line, text = place.filename, place.lineno, str(error)
    if isinstance(error, SyntaxError):
        file, line, text = error.filename or source, error.lineno, error.msg
    return UsageError(f"{what} '{source}': {type(error).__name__}: {text} (in {file}, line {line}); mend it")
