"""The Java program of benchmarks/handwriting.py serves a person as the Python trainer does, to the last bit of an accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import handwriting
from device_runtime import Trainer
from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import ADAM, Recipe, artifact
from tests.java import jvm


def digits(count: int, seed: int) -> handwriting.Digits:
    x, y = nets.task(nets.lenet(0.05), count, seed=seed)
    return np.clip(np.round(40 * x + 100), 0, 255).astype(np.uint8), y.astype(np.uint8)


def test_each_trial_gives_the_accuracies_of_python(tmp_path: Path) -> None:
    jvm.need()
    people, others = {7: digits(24, 2), 3: digits(17, 3)}, digits(40, 4)
    recipe = Recipe(ADAM, learning_rate=1e-3)
    paths = {}
    for density, name in ((0.05, "ticket"), (0.03, "reinit"), (0.1, "dense")):
        content = artifact(nets.lenet(density, recipe=recipe, mean=(100.0,), inverse_std=(0.02,)))
        with Trainer.open(content) as trainer:
            trainer.fit(*digits(60, 5), steps=4)
            paths[name] = tmp_path / f"{name}.tkt"
            trainer.export(paths[name])
    handwriting.write_people(tmp_path / "people.bin", people)
    handwriting.write_people(tmp_path / "others.bin", {0: others})
    found = handwriting.by_java(tmp_path, paths, "people")
    assert set(found) == {trial.name for trial in handwriting.TRIALS}
    for trial in handwriting.TRIALS:
        for row, (x, y) in zip(found[trial.name], people.values(), strict=True):
            half, rate = len(y) // 2, trial.learning_rate
            opened = Trainer.open(
                paths[trial.network],
                batch=handwriting.BATCH,
                seed=handwriting.SEED,
                learning_rate=rate,
                start=trial.start,
            )
            with opened as trainer:
                steps = trainer.fit(x[:half], y[:half], epochs=handwriting.EPOCHS).steps if rate else 0
                own = trainer.evaluate(x[half:], y[half:]).accuracy
                assert [row[0], row[1], row[3]] == [own, trainer.evaluate(*others).accuracy, steps], trial
    assert found["ticket init 0"][0][0] < found["ticket init 0.0012"][0][0], "it learns"
