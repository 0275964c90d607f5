"""Each criterion against finite differences, its sign and its conservation law; no layer is lost where one-shot pruning loses
one; nothing of the caller's changes."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from export.network import Network, Node, Parameter
from server_side.errors import UsageError
from server_side.ladder import ALL, Ladder
from server_side.methods import Keeper, by_score
from server_side.prune import LayerCollapse, Masks, keep_highest, live_count
from server_side.scores import Criterion, Scores, Values, grasp, magnitude, random, score, snip, synflow

CRITERIA: tuple[Criterion, ...] = ("magnitude", "random", "snip", "grasp", "synflow")
CPU = torch.device("cpu")
torch.set_num_threads(1)
Batch = tuple[torch.Tensor, torch.Tensor]


def mlp(*widths: int, bias: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [part for ins, outs in itertools.pairwise(widths) for part in (nn.Linear(ins, outs, bias), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Convolutional(nn.Module):
    """Batch norm with running statistics, dropout of both kinds, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.second, self.drop, self.out = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(torch.relu(self.norm(self.first(x))), training=self.training)
        x = torch.relu(x + self.second(self.drop(x)))
        y: torch.Tensor = self.out(x.mean((2, 3)))
        return y


def convolutional() -> Convolutional:
    torch.manual_seed(0)
    module = Convolutional()
    assert module.norm.running_mean is not None
    module.norm.running_mean.fill_(0.5)
    with torch.no_grad():
        module.norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, -1.0]))
    return module


def state_of(module: nn.Module, dtype: type = np.float32) -> dict[str, NDArray[Any]]:
    state = dict([*module.named_parameters(), *module.named_buffers()])
    return {name: value.detach().numpy().astype(dtype) for name, value in state.items() if value.ndim}


def all_live(values: Values) -> Masks:
    return {name: np.ones(value.shape, np.bool_) for name, value in values.items() if value.ndim > 1}


def half_live(values: Values) -> Masks:
    generator = np.random.default_rng(0)
    return {name: generator.random(mask.shape) < 0.5 for name, mask in all_live(values).items()}


def batch(*shape: int, classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    return x, torch.randint(0, classes, (shape[0],), generator=generator)


def masked(values: Values, masks: Masks) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value * masks.get(name, 1)) for name, value in values.items()}


def loss_of(module: nn.Module, values: Values, masks: Masks, data: Batch, temperature: float = 1.0) -> torch.Tensor:
    return F.cross_entropy(functional_call(module, masked(values, masks), (data[0],)) / temperature, data[1])


def gradient_of(module: nn.Module, weights: dict[str, torch.Tensor], data: Batch) -> dict[str, torch.Tensor]:
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    loss = F.cross_entropy(functional_call(module, leaves, (data[0],)) / 200, data[1])
    return dict(zip(leaves, torch.autograd.grad(loss, tuple(leaves.values())), strict=True))


def test_snip_is_how_much_the_loss_changes_as_a_connection_goes() -> None:
    module, data = mlp(5, 6, 3, bias=True), batch(20, 5, dtype=torch.float64)
    values = state_of(module, np.float64)
    masks = half_live(values)
    found = snip(module, values, masks, [data])
    for name, mask in masks.items():
        for place in np.ndindex(mask.shape):
            losses = []
            for factor in (1 - 1e-5, 1 + 1e-5):
                changed = {**values, name: values[name].copy()}
                changed[name][place] *= factor
                losses.append(float(loss_of(module, changed, masks, data)))
            assert found[name][place] == pytest.approx(abs(losses[1] - losses[0]) / 2e-5, rel=1e-4, abs=1e-9)
        assert (found[name][~mask] == 0).all()
        assert (found[name][mask & (values[name] < 0)] > 0).any()


def test_grasp_is_the_weight_times_the_hessian_times_the_gradient() -> None:
    module, data = mlp(5, 6, 3), batch(20, 5, dtype=torch.float64)
    values = state_of(module, np.float64)
    masks = half_live(values)
    found = grasp(module, values, masks, [data])
    weights = masked(values, masks)
    live = {name: torch.tensor(mask) for name, mask in masks.items()}
    gradient = {name: g * live[name] for name, g in gradient_of(module, weights, data).items()}
    step = 1e-3
    ahead, behind = (
        gradient_of(module, {n: w + sign * step * gradient[n] for n, w in weights.items()}, data) for sign in (1, -1)
    )
    for name, weight in weights.items():
        expected = (weight * (ahead[name] - behind[name]) / (2 * step)).numpy()
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-12)
        assert (found[name] < 0).any()  # not a magnitude


def test_grasp_keeps_the_weights_whose_removal_costs_gradient_flow() -> None:
    """To first order a weight's removal changes |g|^2 by -2 w (H g): what is kept has the most to lose."""
    module, data = mlp(5, 20, 3), batch(60, 5, dtype=torch.float64)
    values = state_of(module, np.float64)
    masks = all_live(values)
    found = grasp(module, values, masks, [data])

    def flow(masks: Masks) -> float:
        gradients = gradient_of(module, masked(values, masks), data)
        return float(sum((g * torch.tensor(masks[name])).square().sum() for name, g in gradients.items()))

    for name, place in (("0.weight", (3, 2)), ("2.weight", (1, 7))):
        changed = {**values, name: values[name].copy()}
        changed[name][place] *= 1 - 1e-4
        gradients = gradient_of(module, masked(changed, masks), data)
        change = float(sum(g.square().sum() for g in gradients.values())) - flow(masks)
        assert change == pytest.approx(-2e-4 * found[name][place], rel=1e-2)
    layers = tuple(masks)
    live = round(0.8 * live_count(masks, layers))
    published = keep_highest(found, masks, live, layers)
    reversed_sign = keep_highest({name: -s for name, s in found.items()}, masks, live, layers)
    assert flow(published) > flow(masks) > flow(reversed_sign)


def test_grasp_divides_the_outputs_by_its_temperature() -> None:
    module, data = mlp(5, 6, 3), batch(20, 5, dtype=torch.float64)
    values = state_of(module, np.float64)
    cooler = grasp(module, values, all_live(values), [data], temperature=1.0)
    scaled = grasp(module, values, all_live(values), [data], lambda outputs, y: F.cross_entropy(outputs * 200, y))
    for name, scores in cooler.items():
        np.testing.assert_allclose(scores, scaled[name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_batches_give_the_scores_of_the_whole(criterion: Criterion) -> None:
    module, (x, y) = mlp(5, 6, 3), batch(40, 5, dtype=torch.float64)
    values = state_of(module, np.float64)
    whole = score(criterion, module, values, all_live(values), [(x, y)], seed=0)
    parts = score(criterion, module, values, all_live(values), [(x[:20], y[:20]), (x[20:], y[20:])], seed=0)
    for name, scores in whole.items():
        np.testing.assert_allclose(parts[name], scores, rtol=1e-9, atol=1e-15)


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    module = mlp(7, 9, 4, 8, 3)
    values = state_of(module)
    masks = half_live(values)
    found = synflow(module, values, masks, (7,), CPU)
    sums = [float(scores.sum()) for scores in found.values()]
    product = np.ones(7)
    for name, mask in masks.items():
        product = np.abs(values[name]).astype(np.float64) * mask @ product
    assert sums == pytest.approx([product.sum()] * 4, rel=1e-12)
    assert all(scores.dtype == np.float64 and (scores >= 0).all() for scores in found.values())


def test_synflow_of_a_batch_norm_net_is_that_of_positive_numbers() -> None:
    """Parameters absolute, running mean 0, running variance as it is, whatever their signs were."""
    module = convolutional()
    values = state_of(module)
    positive = {name: np.abs(value) for name, value in values.items()} | {"norm.running_mean": np.zeros(4, np.float32)}
    masks = all_live(values)
    found = synflow(module, values, masks, (1, 6, 6), CPU)
    reference = copy.deepcopy(module).double().eval()
    state = {name: value.double().requires_grad_(name in masks) for name, value in masked(positive, masks).items()}
    flow = functional_call(reference, state, (torch.ones(1, 1, 6, 6, dtype=torch.float64),)).sum()
    for name in masks:
        (gradient,) = torch.autograd.grad(flow, state[name], retain_graph=True)
        np.testing.assert_allclose(found[name], (gradient * state[name]).detach().numpy(), rtol=1e-12)
        assert (found[name] > 0).all()


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_gradients_are_those_of_training_without_dropout(criterion: Criterion) -> None:
    """Batch norm by the batch, as its running statistics mean nothing yet; no random units missing."""
    module, data = convolutional(), batch(16, 1, 6, 6, dtype=torch.float64)
    values = state_of(module, np.float64)
    found = score(criterion, module, values, all_live(values), [data], seed=0)
    reference = copy.deepcopy(module).double().eval()
    reference.norm.train()
    weights = {name: reference.get_parameter(name) for name in all_live(values)}
    loss = F.cross_entropy(reference(data[0]) / (200 if criterion == "grasp" else 1), data[1])
    gradients = torch.autograd.grad(loss, tuple(weights.values()), create_graph=True)
    if criterion == "grasp":
        squares = torch.stack([g.square().sum() for g in gradients]).sum() / 2
        gradients = torch.autograd.grad(squares, tuple(weights.values()))
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        expected = (weight * gradient).detach().numpy()
        expected = np.abs(expected) if criterion == "snip" else expected
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("module", [nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
                                    nn.Sequential(nn.Linear(6, 60), nn.Hardtanh(0, 5), nn.Linear(60, 60), nn.Hardtanh(0, 5))])  # fmt: skip
def test_synflow_refuses_what_does_not_flow(module: nn.Module) -> None:
    values = {name: value * 10 for name, value in state_of(module).items()}
    with pytest.raises(UsageError, match="no flow through"):
        synflow(module, values, all_live(values), (6,), CPU)


class Relu6(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(x)


@pytest.mark.parametrize("activation", [nn.ReLU6, Relu6, lambda: nn.ReLU6(inplace=True)])
def test_synflow_takes_relu6_for_relu(activation: Any) -> None:
    """Also where the sums of absolute weights are far beyond 6; nothing else of torch is changed for good."""
    module = mlp(6, 60, 60, 3, bias=True)
    values = {name: value * 10 for name, value in state_of(module).items()}
    masks = half_live(values)
    clipped = nn.Sequential(*(activation() if isinstance(part, nn.ReLU) else part for part in copy.deepcopy(module)))
    found, expected = (synflow(m, values, masks, (6,), CPU) for m in (clipped, module))
    assert all(np.array_equal(found[name], expected[name]) for name in masks)
    assert float(clipped[1](torch.tensor(9.0))) == 6


@pytest.mark.parametrize("seed", range(3))
def test_synflow_never_empties_a_layer_where_one_shot_pruning_does(seed: int) -> None:
    module = mlp(64, 100, *[8] * 6, 100, 10, seed=seed)
    values, data = state_of(module), batch(128, 64, classes=10)
    masks = all_live(values)
    layers = tuple(masks)
    for criterion in ("magnitude", "snip", "grasp", "synflow"):
        with pytest.raises(LayerCollapse):
            keep_highest(score(criterion, module, values, masks, [data], seed=0), masks, 47, layers)
    for density in (0.1, 0.005, 0.003):
        kept = by_score("synflow", keeper(masks, round(density * 9320)), module, [data], values, 0, 1)
        assert sum(int(mask.sum()) for mask in kept.values()) == round(density * 9320)
        outputs = functional_call(module, masked({n: np.abs(v) for n, v in values.items()}, kept), (torch.ones(1, 64),))
        assert float(outputs.sum()) > 0  # not only are layers not empty: something gets through


def keeper(masks: Masks, live: int) -> Keeper:
    """That leaves `live` weights of all layers in its one round."""
    shapes = {name: mask.shape for name, mask in masks.items()}
    network = Network((4,), (Parameter("w", (2, 4), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))  # unread
    return Keeper(network, Ladder(shapes, ({ALL: sum(m.size for m in masks.values())}, {ALL: live})), "none")


def test_synflow_scores_what_is_left_and_goes_down_by_equal_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(
        criterion: Criterion, module: nn.Module, values: Any, masks: Masks, *rest: Any, **named: Any
    ) -> Scores:
        seen.append(live_count(masks, tuple(masks)))
        return score(criterion, module, values, masks, *rest, **named)

    monkeypatch.setattr("server_side.scores.score", counting)
    module = mlp(20, 40, 40, 10, seed=0)
    values = state_of(module)
    masks = all_live(values)
    size = live_count(masks, tuple(masks))
    by_score("synflow", keeper(masks, size // 10), module, [batch(8, 20, classes=10)], values, 0, 1)
    assert seen == [round(size * (size // 10 / size) ** (k / 100)) for k in range(100)]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_exactly_so_many_stay_and_nothing_comes_back(live: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = {name: generator.random((6, 10)) < 0.8 for name in ("a", "b", "kept")}
    scores = {name: generator.integers(-2, 3, (6, 10)).astype(np.float32) for name in masks}
    layers = ("a", "b")
    before = sum(int(masks[name].sum()) for name in layers)
    try:
        after = keep_highest(scores, masks, min(live, before), layers)
    except LayerCollapse:
        return
    assert sum(int(after[name].sum()) for name in layers) == min(live, before)
    assert after["kept"] is masks["kept"]
    gone = np.concatenate([scores[name][masks[name] & ~after[name]] for name in layers])
    assert all((masks[name] | ~after[name]).all() for name in layers)
    if gone.size:
        kept = np.concatenate([scores[name][after[name]] for name in layers])
        assert gone.max() <= kept.min()  # by sign too: -2 goes before 1
        last = max(np.flatnonzero(np.concatenate([(masks[n] & ~after[n] & (scores[n] == gone.max())).ravel() for n in layers])))  # fmt: skip
        equals = np.flatnonzero(np.concatenate([(after[n] & (scores[n] == gone.max())).ravel() for n in layers]))
        assert (equals > last).all()


def test_a_mask_that_has_fewer_already_is_refused() -> None:
    masks = {"a": np.array([[True, False, False, True]])}
    with pytest.raises(UsageError, match="layers a: 3 live weights asked for, but 2 are live"):
        keep_highest({"a": np.ones((1, 4))}, masks, 3, ("a",))


@pytest.mark.parametrize("criterion", ["magnitude", "snip", "grasp", "synflow"])
def test_a_negative_weight_is_worth_what_a_positive_one_is(criterion: Criterion) -> None:
    """A hidden unit of tanh with both of its sides negated computes the same: so are its scores."""
    torch.manual_seed(0)
    module, data = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)), batch(20, 5)
    values = state_of(module)
    flipped = {name: np.abs(value) * -1 for name, value in values.items()}
    flipped |= {"0.weight": values["0.weight"].copy(), "2.weight": values["2.weight"].copy()}
    flipped["0.weight"][2] *= -1
    flipped["2.weight"][:, 2] *= -1
    first, second = (score(criterion, module, v, all_live(v), [data], seed=0) for v in (values, flipped))
    for name, scores in first.items():
        np.testing.assert_allclose(second[name], scores, rtol=1e-4, atol=1e-9)


def test_random_is_seeded_and_nested_whatever_was_pruned() -> None:
    masks = {"a": np.ones((20, 10), np.bool_), "b": np.ones((20, 10), np.bool_)}
    first, again, other = random(masks, 3), random(masks, 3), random(masks, 4)
    for name in masks:
        assert first[name].tobytes() == again[name].tobytes()
        assert (first[name] != other[name]).all()
    assert (first["a"] != first["b"]).all()
    direct = keep_highest(first, masks, 40, ("a", "b"))
    half = keep_highest(first, masks, 200, ("a", "b"))
    in_two_steps = keep_highest(random(half, 3), half, 40, ("a", "b"))
    assert all((direct[name] == in_two_steps[name]).all() for name in masks)
    torch_state = torch.get_rng_state()
    np.random.seed(0)  # noqa: NPY002
    random(masks, 3)
    assert (torch.get_rng_state() == torch_state).all()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_callers_changes_and_nothing_is_remembered(criterion: Criterion, training: bool) -> None:
    module = convolutional().train(training)
    values, data = state_of(module), batch(16, 1, 6, 6)
    masks = half_live(values)
    kept = copy.deepcopy((module.state_dict(), values, masks))
    state = torch.get_rng_state()
    first, again = (score(criterion, module, values, masks, [data, data], seed=1) for _ in range(2))
    for name, scores in first.items():
        assert scores.tobytes() == again[name].tobytes()
        assert (scores[~masks[name]] == 0).all()
        assert scores.shape == masks[name].shape
    assert first.keys() == masks.keys()
    assert (torch.get_rng_state() == state).all()
    assert all(torch.equal(value, kept[0][name]) for name, value in module.state_dict().items())
    assert all((value == kept[1][name]).all() for name, value in values.items())
    assert all((mask == kept[2][name]).all() for name, mask in masks.items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert all(part.training == training for part in module.modules())


def test_pruned_weights_do_not_count_whatever_their_values_are() -> None:
    module, data = mlp(5, 6, 3), batch(20, 5)
    values = state_of(module)
    masks = half_live(values)
    elsewhere = {name: np.where(masks[name], value, np.float32(9)) for name, value in values.items()}
    for criterion in CRITERIA:
        first, second = (score(criterion, module, v, masks, [data], seed=0) for v in (values, elsewhere))
        assert all(np.array_equal(scores, second[name]) for name, scores in first.items())


def test_magnitude_is_that_of_the_weights() -> None:
    values = {"w": np.array([[-3.0, 2.0, -1.0, 0.0]], np.float32)}
    assert magnitude(values, {"w": np.array([[True, True, False, True]])})["w"].tolist() == [[3.0, 2.0, 0.0, 0.0]]


def test_bad_input_is_refused_by_name() -> None:
    module, data = mlp(5, 6, 3), batch(20, 5)
    values = state_of(module)
    huge = {name: value * np.float32(1e30) for name, value in values.items()}
    with pytest.raises(UsageError, match=r"criterion snip: '0.weight' has scores that are NaN or infinite"):
        score("snip", module, huge, all_live(values), [data], seed=0)
    with pytest.raises(UsageError, match=r"parameter '2.weight' is missing"):
        score("snip", module, {"0.weight": values["0.weight"]}, all_live(values), [data], seed=0)
    with pytest.raises(UsageError, match="criterion 'fisher' is not known; known are magnitude, random"):
        score("fisher", module, values, all_live(values), [data], seed=0)  # type: ignore[arg-type]
