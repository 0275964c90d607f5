"""Lowering keeps a module's meaning: its network, computed from JSON alone, gives the module's outputs and gradients.

Whole networks, and the modes, names and losses of modules. Single operators and what a device does not have: see
test_lower_operators.py and test_lower_refusals.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from export import reference as interpret
from export.lower import UnsupportedOperator, lower
from export.network import Network, NetworkError
from tests.architectures import ARCHITECTURES
from tests.export.modules import SIGNAL, VECTOR, Function, check_same, samples


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_mean_what_the_module_means(name: str, training: bool) -> None:
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = architecture.build()
    network = lower(module, architecture.input_shape)
    check_same(module, network, samples(architecture.input_shape, architecture.entries), training=training)
    weights = {n for n, p in module.named_parameters() if p.ndim > 1}
    assert set(network.prunable) == weights


def backbone() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def frozen(network: Network) -> list[Any]:
    return [node.attrs["frozen"] for node in network.nodes if node.op == "batch_norm"]


def test_a_batch_norm_is_frozen_by_its_own_mode() -> None:
    """Also below a module that is in eval mode as a whole, which says nothing about dropout."""
    module = backbone()
    module[1].eval()
    before = modes(module)
    network = lower(module, VECTOR)
    assert frozen(network) == [1, 0]
    assert modes(module) == before
    check_same(module, network, samples(VECTOR, 0), training=True)
    whole = backbone().eval()
    network = lower(whole, VECTOR)
    assert frozen(network) == [1, 1]
    assert "dropout" in [node.op for node in network.nodes]
    assert modes(whole) == [False] * 6


def test_modes_come_back_after_a_refusal() -> None:
    inner = backbone()
    module = nn.Sequential(inner, nn.SiLU()).eval()
    inner[1].train()
    before = modes(module)
    with pytest.raises(UnsupportedOperator):
        lower(module, VECTOR)
    assert modes(module) == before


def test_a_dropout_that_the_user_switched_off_is_nothing() -> None:
    module = backbone()
    module[2].eval()
    assert "dropout" not in [node.op for node in lower(module, VECTOR).nodes]


def test_lowering_changes_nothing_in_the_module() -> None:
    module = backbone()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lower(module, VECTOR)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_state_comes_last_and_is_never_prunable() -> None:
    parameters = lower(backbone(), VECTOR).parameters
    assert [(p.name, p.prunable) for p in parameters if not p.state] == [
        ("0.weight", True),
        ("0.bias", False),
        ("1.weight", False),
        ("1.bias", False),
        ("3.weight", False),
        ("3.bias", False),
        ("4.weight", True),
        ("4.bias", False),
    ]
    state = [p.name for p in parameters if p.state]
    assert state == ["1.running_mean", "1.running_var", "3.running_mean", "3.running_var"]
    assert [p.state for p in parameters] == [False] * 8 + [True] * 4


def test_a_dropout_draws_as_the_module_does() -> None:
    module = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.25), nn.Linear(40, 3)).double()
    network = lower(copy.deepcopy(module).float(), VECTOR)
    x = samples(VECTOR, 0)
    torch.manual_seed(5)
    expected = module(x)
    torch.manual_seed(5)
    got = interpret.run(network.to_json(), dict(module.state_dict()), x, training=True)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_the_loss_is_the_networks(loss: str) -> None:
    assert lower(nn.Linear(6, 2), VECTOR, loss).loss == loss
    if loss == "cross_entropy":
        with pytest.raises(NetworkError, match="cross-entropy needs one score for each of >= 2 classes"):
            lower(nn.Linear(6, 1), VECTOR, loss)
    else:
        assert lower(nn.Linear(6, 1), VECTOR, loss).output_shape == (1,)


def test_names_are_the_modules_own_and_unique() -> None:
    module = Function(lambda x, fc: torch.tanh(torch.tanh(fc(x))), fc=nn.Linear(6, 2))
    names = [node.name for node in lower(nn.Sequential(module), VECTOR).nodes]
    assert names == ["0.fc", "0", "0#2"]


def test_the_free_batch_size_is_not_the_examples() -> None:
    """Nothing of the two samples that the module was shown stays in the network."""
    network = lower(nn.Sequential(nn.Conv1d(4, 2, 3), nn.Flatten()), SIGNAL)
    values = dict(nn.Sequential(nn.Conv1d(4, 2, 3)).state_dict())
    for count in (1, 3, 7):
        assert interpret.run(network.to_json(), values, torch.zeros(count, *SIGNAL)).shape == (count, 12)
