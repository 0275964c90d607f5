"""Units that are left out, followed to what reads them, through the networks of the literature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.compact import compact
from export.lower import lower
from export.network import Network
from export.ticket import Ticket
from server_side.controls import apply_masks
from server_side.presets import PRESETS
from server_side.prune import LayerCollapse, Masks
from server_side.units import without_readers


def all_live(network: Network) -> Masks:
    return {name: np.ones(network.parameter_shapes[name], np.bool_) for name in network.prunable}


def without_rows(network: Network, share: float) -> Masks:
    """So many of the rows of every layer but the last are pruned."""
    random, masks = np.random.default_rng(0), all_live(network)
    for name in network.prunable[:-1]:
        masks[name][random.permutation(len(masks[name]))[: int(share * len(masks[name]))]] = False
    return masks


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "resnet-20", "mobilenet", "sensor-1d"])
def test_nothing_reads_a_unit_that_is_pruned(name: str) -> None:
    """Whatever its bias, norm or running statistics are; and compaction finds the same units."""
    shape = (2, 16) if name == "sensor-1d" else (3, 32, 32)
    module = PRESETS[name].build(shape, 10).eval()
    network = lower(module, shape)
    masks = without_rows(network, 0.5)
    cut = without_readers(network, masks)
    assert all((cut[layer] <= mask).all() for layer, mask in masks.items())
    assert all((again == cut[layer]).all() for layer, again in without_readers(network, cut).items())
    state = {n: value.numpy() for n, value in module.state_dict().items() if value.is_floating_point()}
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    dead = {layer.removesuffix(".weight"): ~mask.reshape(len(mask), -1).any(1) for layer, mask in cut.items()}
    outputs = []
    for moved in (0.0, 3.0):
        values = apply_masks(state, cut)
        for layer, units in dead.items():
            if f"{layer}.bias" in values:
                values[f"{layer}.bias"] = values[f"{layer}.bias"] + np.float32(moved) * units
        loaded = {n: torch.from_numpy(np.ascontiguousarray(value)) for n, value in values.items()}
        outputs.append(torch.func.functional_call(module, loaded, (x,)))
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0
    small = compact(Ticket(network, apply_masks(state, cut), cut)).ticket.network
    if name in ("lenet-300-100", "conv-2", "sensor-1d"):  # chains: a unit has one maker
        for layer in network.prunable[:-1]:
            assert small.parameter_shapes[layer][0] == len(cut[layer]) - dead[layer.removesuffix(".weight")].sum()
    assert sum(map(np.prod, small.parameter_shapes.values())) < sum(map(np.prod, network.parameter_shapes.values()))


class Sum(nn.Module):
    """Two branches of 4 units, added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(torch.relu(self.a(x)) + torch.relu(self.b(x)))


def test_a_sum_is_left_out_where_all_its_units_are() -> None:
    network = lower(Sum(), (3,))
    masks = all_live(network)
    masks["a.weight"][[0, 1]] = masks["b.weight"][[1, 2]] = False
    assert without_readers(network, masks)["out.weight"].tolist() == [[True, False, True, True]] * 2


def test_a_layer_without_a_mask_reads_what_it_reads() -> None:
    network = lower(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)), (3,))
    masks = all_live(network)
    masks["0.weight"][0] = False
    del masks["1.weight"]
    cut = without_readers(network, masks)
    assert set(cut) == {"0.weight", "2.weight"}
    assert cut["2.weight"].all()


def test_units_that_are_mixed_are_read() -> None:
    network = lower(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), (3,))
    masks = all_live(network)
    masks["0.weight"][0] = False
    assert without_readers(network, masks)["2.weight"].all()


def test_a_channel_of_a_flattened_picture_is_all_its_pixels() -> None:
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 9, 2)
    network = lower(nn.Sequential(*layers), (1, 3, 3))
    masks = all_live(network)
    masks["0.weight"][0] = False
    cut = without_readers(network, masks)["3.weight"]
    assert not cut[:, :9].any()
    assert cut[:, 9:].all()


def test_a_filter_of_one_channel_goes_with_it() -> None:
    """A depthwise convolution, of which a filter has nothing else to read."""
    layers = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = lower(nn.Sequential(*layers), (1, 4, 4))
    masks = all_live(network)
    masks["0.weight"][1] = False
    cut = without_readers(network, masks)
    assert cut["1.weight"].reshape(3, -1).any(1).tolist() == [True, False, True]
    assert cut["2.weight"].reshape(2, 3).tolist() == [[True, False, True]] * 2


def test_a_layer_that_reads_nothing_is_told_of() -> None:
    network = lower(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), (3,))
    masks = all_live(network)
    masks["0.weight"][:] = False
    with pytest.raises(LayerCollapse, match=r"0\.weight"):
        without_readers(network, masks)
