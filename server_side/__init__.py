"""Finds winning tickets on a server: iterative magnitude pruning with rewinding, its controls, its verdict, its report.

`python -m server_side.find --help` is the command, `find_ticket` the same in Python; `server_side.search.Search.run` is the
algorithm. Importing this package loads no torch: that comes with the first name that is taken from it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server_side.api import Found, find_ticket

__all__ = ["Found", "find_ticket"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'server_side' has no attribute '{name}'")
    from server_side import api

    return getattr(api, name)
