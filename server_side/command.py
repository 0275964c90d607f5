"""What the commands of the server share: exit codes, options in one line, one line for an error, and how Ctrl-C stops them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from export.ticket import TicketError
from server_side.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from server_side.progress import Progress

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
EXIT_DONE, EXIT_USAGE, EXIT_NO_MATCH, EXIT_INTERRUPTED = 0, 2, 3, 130


def exit_code(command: str, work: Callable[[], int]) -> int:
    """What `work` returns, or the code of its error, which is told in one line."""
    try:
        return work()
    except (UsageError, TicketError) as error:  # TicketError: a recipe or weights that no artifact can hold
        print(f"{command}: {' '.join(str(error).split())}", file=sys.stderr)
    except OSError as error:
        where = error.filename or "disk"
        print(f"{command}: {where}: {error.strerror or error}; what was finished is kept", file=sys.stderr)
    return EXIT_USAGE


def run_as_command(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit code of `main`."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def one_line_parser(command: str, prog: str, **texts: Any) -> ArgumentParser:
    """A parser of dataclasses, their attributes' docstrings being the help, whose errors are one line."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)

    class OneLineParser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            """Without the usage of forty options, in which the message is lost."""
            print(f"{command}: {plainly(message)}; see {prog} --help", file=sys.stderr)
            sys.exit(EXIT_USAGE)

    return OneLineParser(prog=prog, **texts)


def plainly(message: str) -> str:
    """jsonargparse's message for an option, in one line without names of Python's types where it is about a value's type."""
    told = " ".join(line.strip() for line in message.splitlines() if line.strip())
    option = re.match(r'Parser key "(\w+)": ', told)
    given = re.search(r"(?:Got|Given) value: (.*?)(?= - Expected|$)", told)
    kinds = re.findall(r"Expected a (?:<class '(?!None)(\w+)'>|typing\.Literal\[(.*?)\])", told)
    wanted = [word for kind, words in kinds for word in ([_KINDS.get(kind)] if kind else re.findall(r"'(.*?)'", words))]
    if option is None or given is None or None in wanted:
        return told
    as_list = f""", e.g. '["{given[1]}"]'""" if ("list", "") in kinds else ""
    return f"{option[1]} '{given[1]}': expected {' or '.join(map(str, wanted))}{as_list}"


def spelt(arguments: list[str], *options: type) -> list[str]:
    """`--prune-fraction=0.2` is `--prune_fraction=0.2`, and a switch `--json` of the dataclasses `options` is `--json=true`,
    unless true or false comes after it."""
    switches = {field.name for kind in options for field in fields(kind) if str(field.type).startswith("bool")}

    def one(argument: str, after: str) -> str:
        name, equals, value = argument.partition("=")
        name = name[2:].replace("-", "_")
        stands_alone = name in switches and not equals and after not in ("true", "false")
        return f"--{name}=true" if stands_alone else f"--{name}{equals}{value}"

    followers = [*arguments[1:], ""]
    return [one(a, after) if a.startswith("--") else a for a, after in zip(arguments, followers, strict=True)]


@contextlib.contextmanager
def stopping_at_signals(command: str, progress: Progress, path: Path) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops with all that is under way saved; the second one at once, without waiting for any
    thread: what was finished and the last checkpoints are whole, being written atomically."""

    def stop(number: int, frame: object) -> None:
        if progress.stop_requested():
            os.write(2, f"\n{command}: stopped at once; the same command goes on from {path}\n".encode())
            os._exit(EXIT_INTERRUPTED)
        progress.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
