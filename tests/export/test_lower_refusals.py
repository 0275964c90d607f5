"""What a device does not have is refused before anything is trained, by the path of its module and with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export.lower import UnsupportedOperator, lower
from export.network import NetworkError
from tests.export.modules import IMAGE, SIGNAL, VECTOR, Function


class Lines(nn.Module):
    """A module with a parameter and a buffer of its own."""

    def __init__(self, forward: Callable[[torch.Tensor, Any], torch.Tensor]) -> None:
        super().__init__()
        self.line = forward
        self.w = nn.Parameter(torch.ones(6))
        self.register_buffer("b", torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x, self)


def behind_a_view(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    F.relu(y.view(-1, 2, 3), inplace=True)
    return y * y


def changed_at_last(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    F.relu(y.view(-1, 2, 3), inplace=True)
    return y


def before_a_change(x: torch.Tensor) -> torch.Tensor:
    y = torch.tanh(x)
    view = y.view(-1, 2, 3)
    F.relu(y, inplace=True)
    return view.flatten(1)


def without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = torch.tanh(x)
    return x * y


# What the error says: the module and the shape of a sample. Modules stand at path '0' of a sequence.
REFUSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "module '0' (Conv2d): padding_mode='reflect'; pad with zeros": (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        IMAGE,
    ),
    "(Conv1d): aten.conv1d.padding with padding='same' and a kernel of (4,) pads one side more; take an odd": (
        nn.Conv1d(4, 4, 4, padding="same"),
        SIGNAL,
    ),
    "conv '0': pad_h 1 with kernel_h 1 must be at most 0; pad less": (nn.Conv2d(4, 4, 1, padding=1), IMAGE),
    "module '0' (Conv3d): aten.conv3d.default cannot be trained": (nn.Conv3d(4, 4, 1), (4, 2, 2, 2)),
    "module '0' (ConvTranspose2d): aten.conv_transpose2d": (nn.ConvTranspose2d(4, 4, 2), IMAGE),
    "module '0' (BatchNorm1d): momentum=None; give a number": (nn.BatchNorm1d(6, momentum=None), VECTOR),
    "module '0' (BatchNorm1d): affine=False; leave it True": (nn.BatchNorm1d(6, affine=False), VECTOR),
    "module '0' (BatchNorm1d): track_running_stats=False; leave it True": (
        nn.BatchNorm1d(6, track_running_stats=False),
        VECTOR,
    ),
    "with the running_mean None; a device trains a layer's own": (
        Function(lambda x, n: F.batch_norm(x, None, None, n.weight, n.bias, True), n=nn.LayerNorm(6)),
        VECTOR,
    ),
    "batch_norm '0': weight (2,) for an input of shape (2, 2, 2, 2)": (nn.BatchNorm3d(2), (2, 2, 2, 2)),
    "(LayerNorm): aten.layer_norm.default with a weight or a bias alone": (nn.LayerNorm(6, bias=False), VECTOR),
    "leaky_relu '0': slope -0.5 must be a finite number of at least 0": (nn.LeakyReLU(-0.5), VECTOR),
    "conv '0': kernel_w 300 must be a whole number in 1..256": (nn.Conv1d(1, 1, 300), (1, 400)),
    "module '0' (GroupNorm): aten.group_norm.default cannot": (nn.GroupNorm(2, 4), IMAGE),
    "module '0' (Hardtanh): aten.hardtanh.default between -1.0 and 1.0": (nn.Hardtanh(), VECTOR),
    "aten.clamp.default cannot be trained": (Function(lambda x: x.clamp(0, 6)), VECTOR),
    "module '0' (SiLU): aten.silu.default cannot be trained on a device; supported are linear, relu": (
        nn.SiLU(),
        VECTOR,
    ),
    "aten.max_pool2d.default with ceil_mode; a device rounds sizes down": (nn.MaxPool2d(3, ceil_mode=True), IMAGE),
    "aten.max_pool2d.default with dilation [2, 2]; a device pools what": (nn.MaxPool2d(2, dilation=2), IMAGE),
    "aten.max_pool1d.default with dilation [2]": (nn.MaxPool1d(2, dilation=2), SIGNAL),
    "aten.max_pool2d_with_indices.default cannot": (
        Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
        IMAGE,
    ),
    "aten.avg_pool1d.default with ceil_mode": (nn.AvgPool1d(3, ceil_mode=True), SIGNAL),
    "aten.avg_pool2d.default with divisor_override 2": (nn.AvgPool2d(2, divisor_override=2), IMAGE),
    "aten.max_pool2d.default of samples of shape (6, 8); give them a dimension of channels": (
        nn.MaxPool2d(2),
        (6, 8),
    ),
    "from (6, 8) to (4, 4) in windows of unequal size": (nn.AdaptiveAvgPool2d(4), IMAGE),
    "module '0' (AdaptiveMaxPool2d): aten.adaptive_max_pool2d": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "aten.mean.dim over dimensions [0]; take neighbouring ones, and never the batch": (
        Function(lambda x: x.mean(0, keepdim=True)),
        SIGNAL,
    ),
    "aten.mean.dim over dimensions [1, 3]": (Function(lambda x: x.mean((1, 3))), IMAGE),
    "aten.add.Tensor of the number 1: only tensors of the network": (Function(lambda x: x + 1), VECTOR),
    "aten.mul.Tensor of the number 0.5": (Function(lambda x: 0.5 * x), VECTOR),
    "aten.div.Tensor cannot": (Function(lambda x: x / 2), VECTOR),
    "with alpha=2; scale before adding": (Function(lambda x: torch.add(x, torch.tanh(x), alpha=2)), VECTOR),
    "add '0#2': inputs of shapes [(4, 6, 8), (4, 1, 1)] must be equal; broadcasting": (
        Function(lambda x: x + x.mean((2, 3), keepdim=True)),
        IMAGE,
    ),
    "aten.mul.Tensor of the parameter '0.w'": (Lines(lambda x, m: x * m.w), VECTOR),
    "aten.add.Tensor of the buffer or constant '0.b'": (Lines(lambda x, m: x + m.b), VECTOR),
    "aten.mul.Tensor of the parameter '0.f.weight'": (
        Function(lambda x, f: F.linear(x, f.weight * f.weight), f=nn.Linear(6, 6)),
        VECTOR,
    ),
    "aten.linear.default with the weight input; a device trains a layer's own parameters": (
        Function(lambda x: F.linear(x, x)),
        VECTOR,
    ),
    "linear '0': weight (5, 8) does not fit an input of shape (4, 8); flatten it first": (nn.Linear(8, 5), SIGNAL),
    "aten.cat.default along dimension -1; a device concatenates along dimension 1": (
        Function(lambda x: torch.cat([x, x], -1)),
        SIGNAL,
    ),
    "concat '0': inputs": (Function(lambda x: torch.cat([x] * 17, 1)), VECTOR),
    "aten.softmax.int over dimension -1 of samples of shape (4, 8)": (nn.Softmax(-1), SIGNAL),
    "aten.reshape.default gives (2*s": (Function(lambda x: torch.tanh(x.reshape(-1, 3))), VECTOR),
    "aten.transpose.int cannot": (Function(lambda x: x.transpose(1, 2)), SIGNAL),
    "aten.slice.Tensor takes a part": (Function(lambda x: x[:, :2]), VECTOR),
    "aten.detach.default cannot": (Function(lambda x: x.detach() * x), VECTOR),
    "wrap_with_set_grad_enabled cannot": (Function(without_gradient), VECTOR),
    "aten.to.dtype to torch.float64; a device computes in float32": (Function(lambda x: x.double()), VECTOR),
    "aten.mul.Tensor of torch.float64; a device computes in float32": (
        Function(lambda x, e: e(x).flatten(1) * x.double(), e=nn.Embedding(5, 1)),
        VECTOR,
    ),
    "aten.to.dtype to torch.int64": (Function(lambda x: x.long().float()), VECTOR),
    "module '0' (Embedding): padding_idx=0; leave it out": (nn.Embedding(5, 2, padding_idx=0), VECTOR),
    "module '0' (Embedding): max_norm=1.0; leave it out": (nn.Embedding(5, 2, max_norm=1.0), VECTOR),
    "module '0' (Embedding): scale_grad_by_freq=True": (nn.Embedding(5, 2, scale_grad_by_freq=True), VECTOR),
    "module '0' (Embedding): sparse=True; leave it False": (nn.Embedding(5, 2, sparse=True), VECTOR),
    "aten.embedding.default with padding_idx, scale_grad_by_freq or sparse": (
        Function(lambda x, e: F.embedding(x, e.weight, padding_idx=1), e=nn.Embedding(5, 2)),
        VECTOR,
    ),
    "embedding '0': weight (5, 2) and an input of shape (4, 8)": (nn.Embedding(5, 2), SIGNAL),
    "aten.mul.Tensor of torch.int64; a device computes in float32": (
        Function(lambda x, e: e(x) * (x * x)[:, :, None], e=nn.Embedding(5, 1)),
        VECTOR,
    ),
    "module '0' (EmbeddingBag)": (nn.EmbeddingBag(5, 2), VECTOR),
    "module '0' (AlphaDropout): aten.alpha_dropout": (nn.AlphaDropout(0.2), VECTOR),
    "module '0' (Dropout2d): aten.feature_dropout": (nn.Dropout2d(0.2), IMAGE),
    "dropout '0': probability 1.0 must be": (nn.Dropout(1.0), VECTOR),
    "aten.mul.Tensor reads what aten.relu_.default changed through another view": (Function(behind_a_view), VECTOR),
    "aten.flatten.using_ints reads what aten.relu_.default changed": (Function(before_a_change), VECTOR),
    "parameter '0.n.weight' is declared 1 and used 2 times": (
        Function(lambda x, n: n(n(x)), n=nn.BatchNorm1d(6)),
        VECTOR,
    ),
    "parameter '0.f.weight' is never used in forward(); remove it or use it": (
        Function(lambda x, f: torch.tanh(x), f=nn.Linear(6, 6)),
        VECTOR,
    ),
    "cannot be exported for an input of shape (6,)": (Function(lambda x: x if x.sum() > 0 else -x), VECTOR),
    "a network needs at least one node": (nn.Identity(), VECTOR),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_device_does_not_have_is_refused_by_name(text: str) -> None:
    module, input_shape = REFUSED[text]
    with pytest.raises(NetworkError) as caught:
        lower(nn.Sequential(module, nn.Flatten()), input_shape, "mse")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_operators_are_unsupported_and_known_ones_that_do_not_fit_are_not() -> None:
    with pytest.raises(UnsupportedOperator):
        lower(nn.SiLU(), VECTOR)
    with pytest.raises(NetworkError) as caught:
        lower(nn.Linear(8, 5), SIGNAL)
    assert not isinstance(caught.value, UnsupportedOperator)


def test_a_parameter_that_is_not_trained_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    module[0].requires_grad_(False)
    with pytest.raises(UnsupportedOperator, match=r"parameter '0\.weight': requires_grad=False, .* set it True, or"):
        lower(module, (6,))


def test_an_output_that_was_changed_through_a_view_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"reads what aten\.relu_\.default changed through another view"):
        lower(Function(changed_at_last), VECTOR)


def test_two_outputs_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="must return exactly one tensor"):
        lower(Function(lambda x: (x, torch.tanh(x))), VECTOR)  # type: ignore[arg-type,return-value]


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(NetworkError, match="loss 'hinge' is not known; known are cross_entropy, mse, bce"):
        lower(nn.Linear(6, 2), VECTOR, "hinge")
