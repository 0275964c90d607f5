"""For tests of data sources: the one line by which a source is refused."""

from __future__ import annotations

import pytest

from server_side.data import load_data
from server_side.errors import UsageError


def refusal(source: str) -> str:
    """Of a source that must be refused, in one line that says which."""
    with pytest.raises(UsageError) as caught:
        load_data(source)
    line = str(caught.value)
    assert "\n" not in line
    return line
