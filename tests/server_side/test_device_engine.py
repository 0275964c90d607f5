"""The search on the sparse runtime: the same training as the stacked engine's, bit-equal reruns, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_side.errors import UsageError
from server_side.training import Interrupted
from tests.server_side.searches import Watcher, search


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_both_engines_train_alike(tmp_path: Path, optimizer: str) -> None:
    """Float32 sums in another order: losses agree to 1e-4, accuracies on 80 test samples to one of them."""
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "learning_rate": 0.01,
        "momentum": 0.0 if optimizer == "adam" else 0.9,
        "rounds": 1,
    }
    stacked = search(tmp_path / "stacked", **settings).run()
    device = search(tmp_path / "device", engine="device", **settings).run()
    for one, other in zip(stacked, device, strict=True):
        for name, training in one.trainings.items():
            np.testing.assert_allclose(training.validation_loss, other.trainings[name].validation_loss, rtol=1e-4)
            assert training.early_step == other.trainings[name].early_step
            assert training.early_accuracy == pytest.approx(other.trainings[name].early_accuracy, abs=1 / 80)
    for parameter, value in stacked[0].trainings["seed0-dense"].final.items():
        np.testing.assert_allclose(device[0].trainings["seed0-dense"].final[parameter], value, rtol=1e-3, atol=1e-4)


def test_pruned_weights_come_back_as_zeros_in_their_places(tmp_path: Path) -> None:
    rounds = search(tmp_path, engine="device", optimizer="sgd", momentum=0.9, weight_decay=0.01).run()
    for name, mask in rounds[2].masks[1].items():
        final = rounds[2].trainings["seed1-ticket"].final[name]
        assert (final[~mask] == 0).all()
        assert (final[mask] != 0).all()


@pytest.mark.parametrize("damaged", [False, True])
def test_threads_and_interruptions_change_no_bit(tmp_path: Path, damaged: bool) -> None:
    settings: dict[str, Any] = {"engine": "device", "rewind_step": "15it"}
    uninterrupted, again = Watcher(), Watcher()
    whole = search(tmp_path / "whole", uninterrupted, **settings).run()
    begun = Watcher(stop_after=2)  # at step 15, between two evaluations
    with pytest.raises(Interrupted):
        search(tmp_path / "stopped", begun, **settings).run()
    (partial,) = (tmp_path / "stopped").rglob("*.partial.npz")  # in the middle of a training
    if damaged:
        partial.write_bytes(b"this training begins anew")
    stopped = search(tmp_path / "stopped", again, threads=2, **settings)
    for one, other in zip(whole, stopped.run(), strict=True):
        for name, training in one.trainings.items():
            for figures in ("train_loss", "validation_loss"):
                assert getattr(training, figures).tobytes() == getattr(other.trainings[name], figures).tobytes()
            assert training.early_accuracy == other.trainings[name].early_accuracy
            for parameter, value in training.final.items():
                assert value.tobytes() == other.trainings[name].final[parameter].tobytes()
    assert not list((tmp_path / "stopped").rglob("*.partial.npz"))
    jumped = 0 if damaged else 1  # steps 10 and 15 as one
    assert again.calls == uninterrupted.calls - jumped


@pytest.mark.parametrize("engine", ["device", "stacked"])
def test_a_training_that_diverges_is_named_with_the_remedy(tmp_path: Path, engine: str) -> None:
    with pytest.raises(
        UsageError, match=r"learning_rate 1e\+30: the loss of seed0-dense is not finite by step \d+; take"
    ):
        search(tmp_path, engine=engine, optimizer="sgd", learning_rate=1e30).run()


def test_auto_takes_the_device_engine_on_a_cpu(tmp_path: Path) -> None:
    assert search(tmp_path / "auto", engine="auto", accelerator="cpu").on_device_engine
    assert not search(tmp_path / "stacked", engine="stacked", accelerator="cpu").on_device_engine
