"""Handwriting of real people: accuracy on each writer's own digits, before and after a device trained on some of them.

    python -m benchmarks.handwriting --mnist DIR --writers DIR [--output-dir runs/handwriting] [--json FILE]

MNIST's digits with the writers of QMNIST (mnist_writers.npz). Three sets of people, none in two of them: a ticket is found and
all networks are shipped with digits of the first; learning rates are chosen on the second; the third is measured. Every
training of a person's digits is done by the SDK for Java. Ticket, the same mask with other weights, and dense start from
their initial values or from those shipped. Goes on where it was broken off. Not measured: people who draw on a screen.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.circumstances import circumstances
from device_runtime import Trainer
from device_runtime.java.build import compile_java
from export.compact import compact
from export.ticket import Ticket
from export.to_native import to_native_bytes
from server_side.api import find_ticket
from server_side.controls import apply_masks
from server_side.data import load_data
from server_side.models import load_model
from server_side.seeds import derive, generator
from server_side.significance import interval

MODEL, SEED = "lenet-300-100", 0
SEARCH = {
    "seeds": 1,
    "rounds": 6,
    "prune_fraction": 0.4,
    "reinits": 0,
    "shuffles": 0,
    "stability": False,
    "steps": "3000it",
    "evaluate_every": "200it",
}
SHIPPED_STEPS = 3000
CHOOSING, MIN_DIGITS, OTHERS = 40, 60, 1000
LEARNING_RATES = (1.2e-3, 4e-4, 1.2e-4)
EPOCHS, BATCH = 20, 16
STARTS = {"init": "from its initial values", "trained": "from the shipped values"}

Bytes = NDArray[np.uint8]
Digits = tuple[Bytes, Bytes]  # pictures (n, 28, 28) and their classes


@dataclass(frozen=True)
class People:
    """Digits of the server, writer by writer those of the two other sets, and of people whom nobody trains on."""

    server: Digits
    choosing: dict[int, Digits]
    tested: dict[int, Digits]
    others: Digits


def read(mnist: Path, writers: Path) -> People:
    data = load_data(f"idx:{mnist}", SEED)
    table = np.load(writers / "mnist_writers.npz", allow_pickle=False)
    train, test = table["train_writer"], table["test_writer"]
    enough = many(train)
    chosen = np.sort(generator(SEED, "handwriting", "choosing").choice(enough, CHOOSING, replace=False))
    tested = many(test)
    apart = np.flatnonzero(~np.isin(test, tested))
    apart = np.sort(generator(SEED, "handwriting", "others").choice(apart, OTHERS, replace=False))

    def digits(x: Bytes, y: NDArray[Any], rows: NDArray[Any]) -> Digits:
        return x[rows], y[rows].astype(np.uint8)

    def by_writer(x: Bytes, y: NDArray[Any], of: NDArray[Any], ids: NDArray[Any]) -> dict[int, Digits]:
        return {int(writer): digits(x, y, np.flatnonzero(of == writer)) for writer in ids}

    return People(
        digits(data.x_train, data.y_train, np.flatnonzero(~np.isin(train, chosen))),
        by_writer(data.x_train, data.y_train, train, chosen),
        by_writer(data.x_test, data.y_test, test, tested),
        digits(data.x_test, data.y_test, apart),
    )


def many(writer: NDArray[Any]) -> NDArray[Any]:
    """Who wrote enough digits."""
    ids, counts = np.unique(writer, return_counts=True)
    return ids[counts >= MIN_DIGITS]


def networks(ticket: Ticket, server: Digits, folder: Path) -> dict[str, Path]:
    """Artifacts with initial values, and trained ones made from these by the recipe on the server's digits."""
    model = load_model(MODEL, ticket.network.input_shape, ticket.network.output_shape[0])

    def fresh(name: str) -> dict[str, Any]:
        weights = model.initial_weights(derive(SEED, "handwriting", name))
        return {key: value.numpy() for key, value in weights.items()}

    reinit = apply_masks(fresh("reinit"), dict(ticket.masks))
    tickets = {
        "ticket": Ticket(ticket.network, ticket.init, ticket.masks, card=ticket.card),
        "reinit": Ticket(ticket.network, reinit, ticket.masks, card=ticket.card),
        "dense": Ticket(ticket.network, fresh("dense"), {}, card=ticket.card),
    }
    return {name: shipped(one, server, folder / f"{name}.tkt") for name, one in tickets.items()}


def shipped(ticket: Ticket, server: Digits, path: Path) -> Path:
    content = to_native_bytes(compact(ticket))
    with Trainer.open(content, seed=SEED) as trainer:
        trainer.fit(*server, steps=SHIPPED_STEPS)
        trainer.export(path)
    return path


def write_people(path: Path, people: Mapping[int, Digits]) -> None:
    """For Handwriting.java: of each writer the number, how many digits, how many of them are trained on, and the digits."""
    with path.open("wb") as file:
        for writer, (x, y) in people.items():
            file.write(struct.pack("<3i", writer, len(y), len(y) // 2) + y.tobytes() + x.tobytes())


@dataclass(frozen=True)
class Trial:
    """One way to serve a person: a network, where it starts, and how it learns; learning rate 0: not at all."""

    network: str
    start: str
    learning_rate: float

    @property
    def name(self) -> str:
        return f"{self.network} {self.start} {self.learning_rate:g}"


TRIALS = [
    Trial(network, start, rate)
    for network in ("ticket", "reinit", "dense")
    for start in STARTS
    for rate in (0.0, *LEARNING_RATES)
]


def by_java(folder: Path, artifacts: Mapping[str, Path], people: str) -> dict[str, NDArray[np.float64]]:
    """Of each trial (writers, 4): accuracy on the writer's other digits, on other people's, milliseconds a step, steps."""
    from tests.java import jvm

    classes = folder / "classes"
    classes.mkdir(exist_ok=True)
    compile_java([Path(__file__).parent / "java/Handwriting.java"], classes, [jvm.jar()])
    command = ["java", f"-Dio.pocketticket.library={jvm.library(jvm.HOST)}", "-classpath", f"{jvm.jar()}:{classes}"]
    trials = [f"{t.name}|{artifacts[t.network]}|{t.start}|{t.learning_rate}" for t in TRIALS]
    numbers = [str(EPOCHS), str(BATCH), str(SEED)]
    command += ["Handwriting", str(folder / f"{people}.bin"), str(folder / "others.bin"), *numbers, *trials]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows: dict[str, list[list[float]]] = {}
    for line in output.splitlines():
        name, *figures = line.split("|")
        rows.setdefault(name, []).append([float(figure) for figure in figures])
    return {name: np.array(figures) for name, figures in rows.items()}


def chosen_trials(choosing: Mapping[str, NDArray[np.float64]]) -> dict[str, Trial]:
    """Of each network and start the learning rate that was best for the people to choose on; and no training at all."""
    found = {}
    for trial in TRIALS:
        if trial.learning_rate == 0:
            found[f"{trial.network}, {trial.start}, as it is"] = trial
            rates = [Trial(trial.network, trial.start, rate) for rate in LEARNING_RATES]
            best = max(rates, key=lambda rate: float(choosing[rate.name][:, 0].mean()))
            found[f"{trial.network}, {trial.start}, trained"] = best
    return found


def summary(trials: Mapping[str, Trial], tested: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Means over writers with 95 % intervals, and paired differences to the ticket served the same way and as shipped."""
    result = {}
    for label, trial in trials.items():
        figures = tested[trial.name]
        alike = tested[trials[label.replace(trial.network, "ticket", 1)].name]
        as_shipped = tested[trials["ticket, trained, as it is"].name]
        result[label] = {
            "learning_rate": trial.learning_rate,
            "accuracy": interval(figures[:, 0]),
            "ticket_minus_this": interval(alike[:, 0] - figures[:, 0]),
            "this_minus_shipped_ticket": interval(figures[:, 0] - as_shipped[:, 0]),
            "accuracy_on_others": interval(figures[:, 1]),
            "step_ms_median": float(np.median(figures[:, 2])),
            "steps_mean": float(figures[:, 3].mean()),
            "by_writer": figures[:, 0].tolist(),
        }
    return result


def table(result: Mapping[str, Any]) -> str:
    lines = [f"{'':<28}{'own digits':>26}{'ticket minus this':>28}{'others':>10}{'ms a step':>11}"]
    for label, row in result.items():
        mean, low, high = (100 * value for value in row["accuracy"])
        cells = f"{mean:7.2f} % [{low:.2f}, {high:.2f}]"
        gain, least, most = (100 * value for value in row["ticket_minus_this"])
        other = "" if label.startswith("ticket") else f"{gain:+.2f} [{least:+.2f}, {most:+.2f}]"
        others = f"{100 * row['accuracy_on_others'][0]:8.2f} %"
        lines.append(f"{label:<28}{cells:>26}{other:>28}{others:>10}{row['step_ms_median']:>11.3f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handwriting", description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True, metavar="DIR", help="the four files of MNIST")
    parser.add_argument("--writers", type=Path, required=True, metavar="DIR", help="with mnist_writers.npz")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/handwriting"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args(argv)
    people = read(arguments.mnist, arguments.writers)
    data = {"x": people.server[0], "y": people.server[1]}
    found = find_ticket(MODEL, data, quiet=False, output_dir=arguments.output_dir / "search", **SEARCH)
    folder = arguments.output_dir
    artifacts = networks(found.ticket, people.server, folder)
    write_people(folder / "choosing.bin", people.choosing)
    write_people(folder / "tested.bin", people.tested)
    write_people(folder / "others.bin", {0: people.others})
    trials = chosen_trials(by_java(folder, artifacts, "choosing"))
    result = summary(trials, by_java(folder, artifacts, "tested"))
    print(table(result))
    if arguments.json:
        facts = {
            "writers": len(people.tested),
            "digits_trained_on": sum(len(y) // 2 for _, y in people.tested.values()),
            "digits_measured": sum(len(y) - len(y) // 2 for _, y in people.tested.values()),
            "density": found.ticket.density,
            "matching": found.matching,
            "artifact_bytes": {name: path.stat().st_size for name, path in artifacts.items()},
            "search": SEARCH,
        }
        content = {"circumstances": circumstances(), **facts, "trials": result}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
