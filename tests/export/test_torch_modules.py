"""The modules that other runtimes get, in eager PyTorch: losses, gradients and running statistics of the network as torch's own
operators compute it, in whole and in partial batches. What ExecuTorch makes of them is in test_executorch.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export import reference as interpret
from export.network import OPERATORS, Network, Node
from export.ticket import Ticket, TicketError
from export.torch_modules import Prediction, Training, _steps, dropouts, live_values, moving_statistics
from export.torch_operators import OPERATORS as SPELT
from export.torch_operators import Call
from tests.export.architecture_tickets import architecture_ticket
from tests.export.tickets import golden_ticket, small_ticket, window

BATCH = 6
CASES = [(name, count) for name in ("every", "mlp", "sensor") for count in (BATCH, 4)]
CASES += [("text", BATCH), ("vgg-11", BATCH), ("mobilenet", 4)]


def named(name: str) -> Ticket:
    return golden_ticket(name) if name == "every" else architecture_ticket(name)


def samples_of(ticket: Ticket, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    tables = [
        ticket.network.parameter_shapes[n.params["weight"]][0] for n in ticket.network.nodes if n.op == "embedding"
    ]
    shape = (count, *ticket.network.input_shape)
    return (
        torch.randint(tables[0], shape, generator=generator).float()
        if tables
        else torch.randn(shape, generator=generator)
    )


class Eager:
    """The network by torch's own operators, in float64; no dropout."""

    def __init__(self, ticket: Ticket, dtype: torch.dtype = torch.float64) -> None:
        self.network, self.document, self.dtype = ticket.network, ticket.network.to_json(), dtype
        self.recipe = ticket.card["recipe"]
        for node in self.document["nodes"]:
            node["attrs"] |= {"probability": 0.0} if "probability" in node["attrs"] else {}
        state = {p.name for p in ticket.network.parameters if p.state}
        self.values = {n: torch.tensor(v, dtype=dtype, requires_grad=n not in state) for n, v in ticket.init.items()}
        shape = (-1, *[1] * (len(ticket.network.input_shape) - 1))
        self.mean, self.inverse_std = (
            torch.tensor(ticket.card["input"][key]).float().to(dtype).reshape(shape) for key in ("mean", "inverse_std")
        )

    def scores(self, samples: torch.Tensor, *, training: bool) -> torch.Tensor:
        normalised = (samples.to(self.dtype) - self.mean) * self.inverse_std
        return interpret.run(self.document, self.values, normalised, training=training)

    def loss(self, samples: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        z = self.scores(samples, training=True)
        if self.network.loss == "cross_entropy":
            weights = self.recipe.get("class_weights")
            weight = None if weights is None else torch.tensor(weights, dtype=self.dtype)
            return F.cross_entropy(z, targets, weight, label_smoothing=self.recipe.get("label_smoothing", 0.0))
        if self.network.loss == "mse":
            return F.mse_loss(z, targets.to(self.dtype))
        return F.binary_cross_entropy_with_logits(z, targets.to(self.dtype))

    def gradients(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        trained = {name: value for name, value in self.values.items() if value.requires_grad}
        return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def targets_of(network: Network, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if network.loss == "cross_entropy":
        return torch.randint(network.output_shape[0], (count,), generator=generator)
    return torch.rand((count, *network.output_shape), generator=generator)


@pytest.mark.parametrize(("name", "count"), CASES)
def test_losses_gradients_and_statistics_are_those_of_torch(name: str, count: int) -> None:
    ticket = named(name)
    network, eager, single = ticket.network, Eager(ticket), Eager(ticket, torch.float32)
    samples, targets = samples_of(ticket, BATCH), targets_of(network, BATCH)
    module = Training(ticket, ticket.init)
    state = [torch.tensor(ticket.init[p.name]) for p in network.parameters if p.state]
    kept = [torch.ones((BATCH, *shape)) for _, shape in dropouts(ticket).values()]
    loss, *moved = module(samples, targets, (torch.arange(BATCH) < count).float(), *state, *kept)
    wanted_loss = eager.loss(samples[:count], targets[:count])
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    wanted, near = eager.gradients(wanted_loss), single.gradients(single.loss(samples[:count], targets[:count]))
    found = dict(zip(module.trained, torch.autograd.grad(loss, list(module.parameters())), strict=True))
    whole = max(float(gradient.norm()) for gradient in wanted.values())
    for parameter, gradient in live_values(ticket, {n: g.numpy() for n, g in wanted.items()}).items():
        theirs = live_values(ticket, {parameter: near[parameter].numpy()})[parameter]
        scale = max(float(np.linalg.norm(gradient)), 1e-2 * whole)
        error = np.linalg.norm(found[parameter].numpy() - gradient)
        assert error <= max(1e-5 * scale, 10 * float(np.linalg.norm(theirs - gradient))), parameter
    for statistic, value in zip(moving_statistics(ticket), moved, strict=True):
        torch.testing.assert_close(value, eager.values[statistic].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["every", "mlp", "sensor", "text"])
def test_predictions_are_those_of_torch(name: str) -> None:
    ticket = named(name)
    samples, live = samples_of(ticket, BATCH), live_values(ticket, ticket.init)
    scores = Prediction(ticket)(samples, *(torch.tensor(live[p.name]) for p in ticket.network.parameters))
    wanted = Eager(ticket).scores(samples, training=False).detach().float()
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)


def test_far_apart_weights_are_put_into_place() -> None:
    for places in ([0], [7], [0, 1, 32768], [5, 32773], [3, 40000]):
        steps = _steps(np.array(places))
        assert torch.cumsum(steps, 0, dtype=torch.int32).tolist() == places
        assert steps.dtype == (torch.int16 if np.diff(places, prepend=0).max() < 32768 else torch.int32)


def test_every_operator_is_spelt() -> None:
    assert {*SPELT, "batch_norm"} == set(OPERATORS)


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), (3, 1)])
def test_a_maximum_that_several_share_is_the_first_ones(stride: int, pad: int) -> None:
    """As in the core and in torch; torch.maximum would share the gradient out."""
    x = torch.randint(3, (2, 2, 7, 6), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    node = Node("max_pool", "pool", (0,), attrs=window((2, 7, 6), kernel=3, stride=stride, pad=pad))
    ours = SPELT["max_pool"](Call(node, [x], {}, None))
    theirs = F.max_pool2d(x, 3, stride, pad)
    towards = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(y, x, towards)[0] for y in (ours, theirs)))


@pytest.mark.parametrize("included", [0, 1])
def test_an_average_counts_padding_only_where_asked_to(included: int) -> None:
    x = torch.randn((2, 2, 7, 6), generator=torch.Generator().manual_seed(0), requires_grad=True)
    attrs = {**window((2, 7, 6), kernel=3, stride=2, pad=1), "count_include_pad": included}
    ours = SPELT["avg_pool"](Call(Node("avg_pool", "pool", (0,), attrs=attrs), [x], {}, None))
    theirs = F.avg_pool2d(x, 3, 2, 1, count_include_pad=bool(included))
    towards = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, towards)[0] for y in (ours, theirs)))


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 2), (4, 1)])
def test_a_convolution_is_that_of_torch(groups: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, 4, 9, 8), generator=generator, requires_grad=True)
    weight = torch.randn((8, 4 // groups, 3, 3), generator=generator, requires_grad=True)
    attrs = window((4, 9, 8), kernel=3, stride=2, pad=1, dilation=dilation) | {"groups": groups}
    node = Node("conv", "conv", (0,), {"weight": "w"}, attrs)
    ours, theirs = (
        SPELT["conv"](Call(node, [x], {"weight": weight}, None)),
        F.conv2d(x, weight, None, 2, 1, dilation, groups),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    towards = torch.randn(theirs.shape, generator=generator)
    for found, wanted in zip(*(torch.autograd.grad(y, (x, weight), towards) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_logits_of_zero_have_the_gradient_of_bce() -> None:
    """Where a formula by |z| has none."""
    parts = small_ticket()
    network = Network.from_json(parts.network.to_json() | {"loss": "bce"})
    init = {name: np.zeros_like(value) for name, value in parts.init.items()}
    ticket = Ticket(network, init, parts.masks, card=parts.card)
    module = Training(ticket, ticket.init)
    scores = torch.zeros((3, 2), requires_grad=True)
    terms, _ = module._losses(scores, torch.tensor([[0.0, 1.0]] * 3))
    (gradient,) = torch.autograd.grad(terms.sum(), scores)
    assert gradient.tolist() == [[0.25, -0.25]] * 3


def test_a_name_that_torch_uses_is_refused() -> None:
    parts = small_ticket()
    document = parts.network.to_json()
    document["nodes"][1]["params"]["bias"] = document["parameters"][1]["name"] = "a.weight.x"
    network = Network.from_json(document)
    init = {("a.weight.x" if name == "a.bias" else name): value for name, value in parts.init.items()}
    with pytest.raises(TicketError, match=r"parameter 'a.weight.x': torch has another use for that name.*rename it"):
        Training(Ticket(network, init, parts.masks, card=parts.card), init)
