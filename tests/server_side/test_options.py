"""Options of every preset and method can be filled, and filled again from the config that a run keeps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from server_side.errors import UsageError
from server_side.options import Options
from server_side.presets import PRESETS

CHOICES: list[dict[str, Any]] = [
    {},
    {"steps": "40ep"},
    {"structure": "2:4"},
    {"rounds": 5, "target_density": 0.1},
    {"prune_fraction": 0.2},
    {"scope": "global"},
    {"optimizer": "adamw", "learning_rate": 1e-3},
    *({"method": method} for method in ("oneshot", "snip", "synflow", "early-bird", "rigl", "gradual", "l1", "gates")),
    {"fit_arena": "64KB"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("name", PRESETS)
def test_filled_options_stay_as_they_are(name: str, choice: dict[str, Any]) -> None:
    preset = PRESETS[name].defaults
    if choice.get("steps", "ep")[-2:] != str(preset["steps"])[-2:]:
        choice = {}
    filled = Options(model=name, **choice).resolve(preset)
    assert Options(**asdict(filled)).resolve(preset) == filled


def test_a_learning_rate_is_of_its_optimizer() -> None:
    """A preset's rate for SGD is no rate for Adam."""
    vgg, lenet = PRESETS["vgg-16"].defaults, PRESETS["lenet-300-100"].defaults
    assert (vgg["optimizer"], lenet["optimizer"]) == ("sgd", "adam")
    assert Options(optimizer="adam").resolve(vgg).learning_rate == 1e-3
    assert Options(optimizer="sgd").resolve(lenet).learning_rate == 0.1
    assert Options(optimizer="sgd", learning_rate=0.5).resolve(lenet).learning_rate == 0.5
    assert Options(optimizer="sgd").resolve(vgg).learning_rate == vgg["learning_rate"]


def test_what_a_user_says_goes_before_the_protocol() -> None:
    conv = PRESETS["conv-2"].defaults
    assert Options(prune_fraction=0.2).resolve(conv).prune_fractions == {}
    assert Options(output_prune_fraction=0.05).resolve(conv).prune_fractions == {"conv*": 0.1, "fc*": 0.2}
    assert Options(output_prune_fraction=0.05).resolve(conv).output_prune_fraction == 0.05
    vgg = Options(steps="16ep").resolve(PRESETS["vgg-16"].defaults)
    assert (vgg.learning_rate_drops, vgg.rewind_step) == (["8ep", "12ep"], "100it")
    assert Options(steps="16ep", rewind_step="7it").resolve(PRESETS["vgg-16"].defaults).rewind_step == "7it"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"structure": "2:4", "prune_fraction": 0.2}, "prune_fraction 0.2 with structure 2:4: it says what stays"),
    ({"structure": "rows", "method": "rigl"}, "structure rows with method rigl"),
    ({"method": "l1", "regularisation": -1.0}, "regularisation -1.0: must be a number of at least 0"),
    ({"retrain": "fine-tune", "learning_rate_schedule": "linear"}, "its last rate is next to nothing"),
    ({"rounds": 3, "target_density": 0.1, "prune_fractions": {"fc1": 0.1}}, "these say the shares; leave one out"),
    ({"method": "snip", "retrain": "fine-tune"}, "retrain fine-tune with method snip"),
    ({"regularisation": 0.1}, "only l1 and gates have it"),
]


@pytest.mark.parametrize(("choice", "told"), REFUSED)
def test_what_would_have_no_effect_is_refused(choice: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Options(**choice).resolve({})


def test_what_says_the_same_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"output_prune_fraction 0\.05 with rounds 5 and target_density 0\.1"):
        Options(rounds=5, target_density=0.1, output_prune_fraction=0.05).resolve({})
    with pytest.raises(UsageError, match="scope global with structure 2:4"):
        Options(structure="2:4", scope="global").resolve({})
    assert Options(structure="2:4", method="synflow").resolve({}).scope == "layerwise"


def test_short_trainings_of_a_preset_keep_what_it_is() -> None:
    assert Options(steps="5ep").resolve(PRESETS["resnet-50"].defaults).rewind_step == "1ep"
    with pytest.raises(
        UsageError, match=r"steps '1ep': too short for this model's learning_rate_drops \['80ep', '120ep'\]"
    ):
        Options(steps="1ep").resolve(PRESETS["vgg-16"].defaults)
