"""The command `python -m device_runtime`: what can be asked, and how it ends.

Results go to stdout (one JSON object with --json), everything else to stderr. Exit codes: 0 done, 1 failed (the loss
is not finite), 2 usage or bad input, told in one line, 130 interrupted; `train --checkpoint` can then go on.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

from device_runtime import commands
from device_runtime.artifact import KERNELS, OPTIMIZERS, STARTS
from device_runtime.errors import CheckpointWarning, NonFiniteLoss, PocketTicketError
from device_runtime.signature import checked

FAILURE, BAD_INPUT = 1, 2

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXAMPLES = """examples:
  python -m device_runtime inspect model.tkt
  python -m device_runtime train model.tkt --data npz:mine.npz --checkpoint run.tkc --output trained.tkt
  python -m device_runtime evaluate trained.tkt --start trained --data npz:mine.npz
  python -m device_runtime predict trained.tkt --start trained --data npz:mine.npz --output labels.csv
  python -m device_runtime simulate model.tkt --data npz:people.npz --interruptions 5 --budget-bytes 1000000
  python -m device_runtime update run.tkc --base model.tkt --delta model2.tkd --start trained --output run2.tkc

data: an npz file with x (n, ...) uint8 or float in the raw units of the training data, y (n,) whole numbers, and if
you like user (n,), x_test, y_test. `COMMAND --help` tells the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        try:
            arguments.named = getattr(arguments, arguments.signed)  # for messages: what is checked becomes bytes
            if arguments.public_key is not None:
                setattr(arguments, arguments.signed, checked(arguments.named, arguments.public_key))
            return int(arguments.command(arguments))
        except KeyboardInterrupt:
            return _complain("interrupted", commands.INTERRUPTED)
        except BrokenPipeError:  # whoever read stdout has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILURE
        except NonFiniteLoss as error:
            return _complain(f"NonFiniteLoss: {error}", FAILURE)
        except PocketTicketError as error:
            return _complain(f"{type(error).__name__}: {error}", BAD_INPUT)
        except OSError as error:
            return _complain(f"'{error.filename}': {error.strerror}" if error.filename else str(error), BAD_INPUT)


def _complain(text: str, code: int) -> int:
    print(f"device_runtime: {' '.join(text.split())}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m device_runtime",
        description="Train, evaluate and predict with a Pocket Ticket on this device; no data leaves it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(subparsers)
    _add_evaluate(subparsers)
    _add_predict(subparsers)
    _add_inspect(subparsers)
    _add_simulate(subparsers)
    _add_update(subparsers)
    return parser


def _option(parser: argparse._ActionsContainer, flag: str, text: str, **settings: Any) -> None:
    default = " (default: %(default)s)" if settings.get("default") is not None else ""
    parser.add_argument(flag, help=text + default, **settings)


def _command(subparsers: Subparsers, name: str, summary: str, *, data: bool = True) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(command=getattr(commands, name), signed="artifact")
    parser.add_argument("artifact", help="a .tkt file, the .ort folder of ONNX Runtime, or a .pte file of ExecuTorch")
    if data:
        _option(parser, "--data", "x, y and if present user, x_test, y_test", required=True, metavar="npz:FILE")
    _option(parser, "--public-key", "refuse an artifact without ARTIFACT.sig by this key, in PEM", metavar="FILE")
    _option(parser, "--json", "print exactly one JSON object on stdout", action="store_true")
    _option(parser, "--quiet", "no progress on stderr", action="store_true")
    _option(parser, "--batch", "samples a step (default: the recipe's)", type=int, metavar="N")
    _option(parser, "--threads", "that share a step; results do not depend on it", type=int, default=1)
    _option(parser, "--kernels", "all give the same bits", choices=list(KERNELS), default="auto")
    _option(parser, "--budget-bytes", "refuse to take more memory than this", type=int, metavar="B")
    _option(parser, "--recompute", "less memory, more time, the same bits", action="store_true", default=None)
    _option(parser, "--half-activations", "less memory, gradients a little rounded", action="store_true", default=None)
    _option(parser, "--start", "the artifact's values to start from", choices=list(STARTS), default="init")
    group = parser.add_argument_group("optimizer", "each defaults to the recipe inside the artifact")
    group.add_argument("--optimizer", choices=list(OPTIMIZERS))
    for setting in ("learning-rate", "momentum", "weight-decay", "beta1", "beta2", "epsilon"):
        group.add_argument(f"--{setting}", type=float, metavar="F")
    return parser


def _add_split(parser: argparse.ArgumentParser) -> None:
    choices = ["train", "test"]
    _option(parser, "--split", "x or x_test (default: x_test if the file has it, else x)", choices=choices)
    _option(parser, "--checkpoint", "the values to use, as `train --checkpoint` wrote them", metavar="FILE")


def _add_train(subparsers: Subparsers) -> None:
    parser = _command(subparsers, "train", "train on this device's data, and go on from the checkpoint if there is one")
    length = parser.add_mutually_exclusive_group()
    _option(length, "--epochs", "passes over the data in total (default: the recipe's)", type=int, metavar="N")
    _option(length, "--steps", "updates in total, instead of epochs", type=int, metavar="N")
    _option(parser, "--seed", "of the sample order", type=int, default=0, metavar="N")
    _option(parser, "--checkpoint", "written as training goes; resumed from if it exists", metavar="FILE")
    _option(parser, "--checkpoint-every", "steps between checkpoints", type=int, default=500, metavar="N")
    _option(parser, "--output", "write the artifact with the values learnt here", metavar="FILE")


def _add_evaluate(subparsers: Subparsers) -> None:
    _add_split(_command(subparsers, "evaluate", "loss and accuracy on labelled data"))


def _add_predict(subparsers: Subparsers) -> None:
    parser = _command(subparsers, "predict", "the most probable label of each sample")
    _add_split(parser)
    _option(parser, "--output", "write all: .npz (probabilities, index, label) or .csv", metavar="FILE")


def _add_inspect(subparsers: Subparsers) -> None:
    _command(subparsers, "inspect", "what an artifact holds and exactly how much memory training takes", data=False)


def _add_simulate(subparsers: Subparsers) -> None:
    parser = _command(
        subparsers, "simulate", "one device a user in the data, each training on its user's samples alone"
    )
    _option(parser, "--held-out", "part of a user's samples kept for testing", type=float, default=0.3, metavar="F")
    _option(parser, "--epochs", "passes over a user's samples (default: the recipe's)", type=int, metavar="N")
    _option(parser, "--seed", "of splits, sample order and interruptions", type=int, default=0, metavar="N")
    _option(parser, "--interruptions", "how often each device dies", type=int, default=0, metavar="K")
    _option(parser, "--checkpoint-every", "steps between checkpoints", type=int, default=10, metavar="N")
    _option(parser, "--users", "the first N that have enough samples (default: all)", type=int, metavar="N")
    _option(parser, "--min-samples", "skip users with fewer", type=int, default=20, metavar="M")
    _option(parser, "--delta", "the server's update, which each device takes in the end", metavar="FILE")
    _option(parser, "--output-dir", "keep devices' checkpoints, native ones' artifacts, and report.json", metavar="DIR")


def _add_update(subparsers: Subparsers) -> None:
    summary = "carry what was learnt here over to the server's update of the ticket"
    parser = subparsers.add_parser("update", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(command=commands.update, signed="delta")
    parser.add_argument(
        "mine", help="the checkpoint or artifact with the values learnt here, or the server's old artifact"
    )
    _option(parser, "--delta", "the update, as `python -m export delta` wrote it", required=True, metavar="FILE")
    _option(parser, "--output", "where the updated checkpoint or artifact goes", required=True, metavar="FILE")
    _option(
        parser,
        "--base",
        "the server's old artifact, that MINE was trained from (a checkpoint needs it)",
        metavar="FILE",
    )
    _option(parser, "--start", "what training began from, where BASE holds both", choices=list(STARTS))
    _option(parser, "--public-key", "refuse a delta without DELTA.sig by this key, in PEM", metavar="FILE")
    _option(parser, "--json", "print exactly one JSON object on stdout", action="store_true")


if __name__ == "__main__":
    sys.exit(main())
