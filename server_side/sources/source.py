"""A data source as it was typed, `kind:path?option=value&option=value`, and what a reader makes of it.

Refuses an option that its kind does not have, one given twice, and one without a value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server_side.errors import UsageError

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """`text` is as it was typed, for messages alone."""

    text: str
    path: str
    options: Mapping[str, str]

    def error(self, problem: str) -> UsageError:
        return UsageError(f"data '{self.text}': {problem}")

    def whole(self, option: str, default: int, least: int) -> int:
        """The value of an option that is a whole number."""
        text = self.options.get(option, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
            raise self.error(f"option {option}={text}; expected a whole number of at least {least}")
        return int(text)


@dataclass(frozen=True)
class Samples:
    """What a reader found, not yet checked. `name` has no path. Without `x_test` and `y_test` a test part is held out.

    y counts from `first_label`; `labels` names all classes in the order of their numbers, or is None. `by_feature` asks
    for each entry of a sample's first dimension to be normalised by itself.
    """

    name: str
    x: Array
    y: Array
    x_test: Array | None = None
    y_test: Array | None = None
    labels: tuple[str, ...] | None = None
    first_label: int = 0
    by_feature: bool = False


def parse(text: str, known: Collection[str]) -> Source:
    """Raises UsageError for a path that is empty, or an option that is not one of `known`."""
    path, mark, query = text.partition(":")[2].partition("?")
    options: dict[str, str] = {}
    source = Source(text, path, options)
    if not path:
        raise source.error("names nothing after the colon")
    for pair in query.split("&") if mark else ():
        name, _, value = pair.partition("=")
        if name not in known or name in options or not value:
            expected = " and ".join(f"{option}=..." for option in known) or "no options"
            raise source.error(f"option '{pair}'; expected {expected}, each once at most")
        options[name] = value
    return source


def in_order(labels: Collection[str]) -> list[str]:
    """The different ones: by number where all are whole numbers, else by code point, so the same on every machine."""
    different = set(labels)
    numbers = all(text.isascii() and text.isdecimal() for text in different)
    return sorted(different, key=lambda text: (int(text) if numbers else 0, text))


def numbered(labels: Collection[str], order: Collection[str]) -> NDArray[np.int64]:
    """The place in `order` of each label; all must be there."""
    place = {label: number for number, label in enumerate(order)}
    return np.array([place[label] for label in labels], np.int64)
