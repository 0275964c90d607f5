"""The commands behind `python -m device_runtime`: each takes the parsed options, prints, and returns an exit code.

With --json exactly one object goes to stdout. Accuracies are fractions of 1, losses in nats.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime import artifact as artifacts
from device_runtime import checkpoint as files
from device_runtime import simulator
from device_runtime.backends import NATIVE, runtime_of
from device_runtime.container import CHECKPOINT, type_of
from device_runtime.data import Array, Data, load_npz
from device_runtime.delta import NOWHERE, read_delta
from device_runtime.errors import InvalidInput
from device_runtime.rebase import update as updated
from device_runtime.results import Evaluation, FitReport, Progress
from device_runtime.terminal import ProgressLine, interruptible, print_devices, print_json, print_sizes, print_training
from device_runtime.trainer import Trainer

INTERRUPTED = 130

_RECIPE = ("batch", "optimizer", "learning_rate", "momentum", "weight_decay", "beta1", "beta2", "epsilon")
_FACTS = ("ticket_hash", "artifact_bytes", "input_shape", "class_count", "nnz", "density", "value_count", "dense_count")
_RUNTIME = ("seed", "budget_bytes", "recompute", "half_activations", "kernels", "threads", "start")


def inspect(arguments: Namespace) -> int:
    runtime = runtime_of(arguments.artifact)
    if runtime != NATIVE:
        raise InvalidInput(f"'{arguments.named}' is for {runtime}; inspect takes a native artifact alone")
    facts = artifacts.inspect(arguments.artifact, **_options(arguments))
    if arguments.json:
        print_json(facts)
        return 0
    for name in _FACTS:
        print(f"{name:<16} {facts[name]}")
    print(f"{'operators':<16} {' '.join(facts['operators'])}")
    print(f"{'trained values':<16} {'yes' if facts['has_trained'] else 'no'}")
    print(f"{'recipe':<16} " + ", ".join(f"{name} {facts[name]}" for name in (*_RECIPE, "epochs") if name in facts))
    card = {name: facts["card"][name] for name in ("task", "labels", "rewind_step") if name in facts["card"]}
    print(f"{'card':<16} {json.dumps(card, ensure_ascii=False)}")
    print_sizes("artifact, bytes by section", facts["sections"])
    print_sizes("arena, bytes by part (exact)", facts["memory"])
    return 0


def train(arguments: Namespace) -> int:
    data = _load(arguments.data)
    with Trainer.open(arguments.artifact, **_options(arguments)) as trainer:
        if arguments.output is not None and not trainer.is_native:
            raise InvalidInput(f"output '{arguments.output}': only native artifacts are written; give --checkpoint")
        resumed = arguments.checkpoint is not None and trainer.restore(arguments.checkpoint, missing_ok=True)
        if resumed:
            print(f"resumed from '{arguments.checkpoint}' at step {trainer.progress.step}", file=sys.stderr)
        resumed_at = trainer.progress.step if resumed else None
        report = _fit(trainer, data, arguments)
        result = {"resumed_at_step": resumed_at, **_training(trainer, report), "checkpoint": arguments.checkpoint}
        result["output"] = None
        if not report.cancelled:
            result["train"] = _evaluation(trainer.evaluate(data.x, data.labels))
            if data.x_test is not None and data.y_test is not None:
                result["test"] = _evaluation(trainer.evaluate(data.x_test, data.y_test))
            if arguments.output is not None:
                trainer.export(arguments.output)
                result["output"] = arguments.output
    (print_json if arguments.json else print_training)(result)
    return INTERRUPTED if report.cancelled else 0


def evaluate(arguments: Namespace) -> int:
    split, x, y = _split(_load(arguments.data), arguments.split)
    assert y is not None
    with _open_restored(arguments) as trainer:
        result = {"split": split, "step": trainer.progress.step, **_evaluation(trainer.evaluate(x, y))}
    if arguments.json:
        print_json(result)
    else:
        hits = f"{result['correct']} of {result['count']}, {split}"
        print(f"accuracy {result['accuracy']:.4f} ({hits}), loss {result['loss']:.4f}")
    return 0


def predict(arguments: Namespace) -> int:
    suffix = Path(arguments.output).suffix if arguments.output is not None else None
    if suffix not in (None, ".npz", ".csv"):
        raise InvalidInput(f"output '{arguments.output}' must end in .npz or .csv")
    split, x, _ = _split(_load(arguments.data, labels=False), arguments.split)
    with _open_restored(arguments) as trainer:
        probabilities, names = trainer.predict(x), trainer.info.labels
    index = probabilities.argmax(axis=1)
    rows = [(at, names[c], float(probabilities[at, c])) for at, c in enumerate(index)]
    if suffix == ".npz":
        labels = np.array([label for _, label, _ in rows])
        files.write_file(arguments.output, _npz(probabilities=probabilities, index=index, label=labels))
    elif suffix == ".csv":
        files.write_file(arguments.output, _csv(rows))
    if arguments.json:
        predictions = [{"index": at, "label": label, "probability": p} for at, label, p in rows]
        print_json({"split": split, "count": len(rows), "output": arguments.output, "predictions": predictions})
    elif suffix is not None:
        print(f"{len(rows)} predictions ({split}) in '{arguments.output}'")
    else:
        sys.stdout.write(_csv(rows).decode())
    return 0


def simulate(arguments: Namespace) -> int:
    data = _load(arguments.data)
    if data.user is None:
        print(f"'{arguments.data}' has no key 'user': one device gets every sample", file=sys.stderr)
    settings = simulator.Settings(
        **{field.name: getattr(arguments, field.name) for field in fields(simulator.Settings)}
    )
    options = _options(arguments)
    del options["seed"]
    folder = Path(arguments.output_dir) if arguments.output_dir is not None else None
    done = 0
    with ProgressLine("simulate", 0, arguments.quiet) as line:

        def on_device(device: simulator.Device, count: int) -> None:
            nonlocal done
            done, line.total = done + 1, count
            line.show(done, f"user {device.user}: {device.before:.3f} -> {device.after:.3f}")

        delta = None if arguments.delta is None else artifacts.read_artifact(arguments.delta)
        report = simulator.simulate(
            arguments.artifact, data, settings, options, delta=delta, output_dir=folder, on_device=on_device
        )
    if folder is not None:
        files.write_file(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    (print_json if arguments.json else print_devices)(report)
    return 0


def update(arguments: Namespace) -> int:
    delta = artifacts.read_artifact(arguments.delta)
    content = updated(arguments.mine, delta, base=arguments.base, start=arguments.start)
    files.write_file(arguments.output, content)
    change = read_delta(delta)
    kept = change.base_value_count if change.places is None else int((change.places != NOWHERE).sum())
    result = {
        "output": arguments.output,
        "kind": "checkpoint" if type_of(content) is CHECKPOINT else "artifact",
        "bytes": len(content),
        "base_ticket_hash": change.base_ticket_hash.hex(),
        "ticket_hash": change.ticket_hash.hex(),
        "kept_values": kept,
        "base_value_count": change.base_value_count,
        "value_count": kept if change.places is None else len(change.places),
    }
    if arguments.json:
        print_json(result)
    else:
        moved = f"ticket {result['base_ticket_hash'][:12]} -> {result['ticket_hash'][:12]}"
        counts = "{kept_values} values of {base_value_count} kept, of {value_count} now".format(**result)
        print(f"{result['kind']} '{arguments.output}': {moved}, {counts}")
    return 0


def _fit(trainer: Trainer, data: Data, arguments: Namespace) -> FitReport:
    epochs = trainer.info.epochs if arguments.epochs is None else arguments.epochs
    steps = epochs * -(-len(data.x) // trainer.batch) if arguments.steps is None else arguments.steps
    with interruptible() as interrupted, ProgressLine("train", steps, arguments.quiet) as line:

        def on_step(progress: Progress) -> bool:
            line.show(progress.step, f"loss {progress.loss:.4f}")
            return not interrupted()

        return trainer.fit(
            data.x,
            data.labels,
            epochs=arguments.epochs,
            steps=arguments.steps,
            checkpoint=arguments.checkpoint,
            checkpoint_every=arguments.checkpoint_every,
            on_step=on_step,
        )


def _training(trainer: Trainer, report: FitReport) -> dict[str, Any]:
    return {
        "step": report.progress.step,
        "epoch": report.progress.epoch,
        "steps": report.steps,
        "first_loss": float(report.losses[0]) if report.steps else None,
        "last_loss": float(report.losses[-1]) if report.steps else None,
        "interrupted": report.cancelled,
        "seconds": report.seconds,
        "arena_bytes": trainer.arena_bytes if trainer.is_native else None,
        "kernels": trainer.kernels if trainer.is_native else None,
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in ("accuracy", "loss", "correct", "count")}


def _options(arguments: Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name, None) for name in (*_RECIPE, *_RUNTIME)}


def _open_restored(arguments: Namespace) -> Trainer:
    trainer = Trainer.open(arguments.artifact, **_options(arguments))
    if arguments.checkpoint is not None:
        trainer.restore(arguments.checkpoint)
    return trainer


def _load(spec: str, *, labels: bool = True) -> Data:
    kind, colon, name = spec.partition(":")
    if kind != "npz" or not colon or not name:
        raise InvalidInput(f"data '{spec}' is not of the form npz:FILE")
    return load_npz(name, labels=labels)


def _split(data: Data, wanted: str | None) -> tuple[str, Array, Array | None]:
    if wanted == "test" and data.x_test is None:
        raise InvalidInput("split 'test' was asked for but the file has no x_test; leave --split out")
    if data.x_test is None or wanted == "train":
        return "train", data.x, data.y
    return "test", data.x_test, data.y_test


def _npz(**arrays: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _csv(rows: list[tuple[int, str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("index", "label", "probability"))
    writer.writerows((at, label, f"{p:.6f}") for at, label, p in rows)
    return text.getvalue().encode()
