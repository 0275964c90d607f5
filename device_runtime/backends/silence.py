"""Keeps what libraries print and warn while they load and compile off the terminal; what they raise gets through."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.RLock()  # else the second thread would take the silence of the first for what to go back to


@contextmanager
def silent() -> Iterator[None]:
    """For the whole process, so for one thread at a time, others wait: compiled code writes past Python's own streams."""
    with _one_at_a_time, _streams_silenced():
        yield


@contextmanager
def _streams_silenced() -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, copy in enumerate(kept, start=1):
                os.dup2(copy, target)
                os.close(copy)
