"""Who takes part in benchmarks/device_step.py: one training step of LeNet-300-100 each, from equal weights.

A contender is a function of the batch number that makes one update and returns its loss (NaN where it has none). Each
is built at run time; who is not installed raises ImportError. All dense ones run momentum SGD, except ONNX Runtime,
whose SGD has none: that favours it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.interleaved import Step
from device_runtime import Trainer
from device_runtime.backends.silence import silent
from export.network import Network, Node, Parameter
from export.ticket import Ticket
from export.to_native import to_native_bytes

SIZES = (784, 300, 100, 10)
LEARNING_RATE, MOMENTUM = 0.05, 0.9

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Batches:
    """A few batches that are gone through again and again, so that no contender has one sample in its cache only."""

    x: list[NDArray[np.float32]]
    y: list[NDArray[np.int32]]

    @classmethod
    def random(cls, count: int, batch: int) -> Batches:
        random = np.random.default_rng(0)
        y = [random.integers(0, 10, batch).astype(np.int32) for _ in range(count)]
        centres = random.standard_normal((10, SIZES[0]))
        x = [(centres[labels] + random.standard_normal((batch, SIZES[0]))).astype(np.float32) for labels in y]
        return cls(x, y)

    def at(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return self.x[number % len(self.x)], self.y[number % len(self.y)]


def weights() -> Weights:
    """Equal dense initial weights for everyone."""
    random = np.random.default_rng(1)
    found: Weights = {}
    for layer, (features, out) in enumerate(pairwise(SIZES), start=1):
        found[f"fc{layer}.weight"] = (random.standard_normal((out, features)) / np.sqrt(features)).astype(np.float32)
        found[f"fc{layer}.bias"] = np.zeros(out, np.float32)
    return found


def ticket(density: float, batch: int) -> Ticket:
    """A random mask of the given density in each layer; which weights are live does not matter for the time."""
    random, init, masks = np.random.default_rng(2), weights(), {}
    for name in [name for name in init if name.endswith("weight")]:
        order = random.permutation(init[name].size)
        masks[name] = (order < round(density * init[name].size)).reshape(init[name].shape)
        init[name] = init[name] * masks[name]
    nodes: list[Node] = []
    for layer in range(1, len(SIZES)):
        params = {"weight": f"fc{layer}.weight", "bias": f"fc{layer}.bias"}
        nodes.append(Node("linear", f"fc{layer}", (len(nodes),), params))
        if layer < len(SIZES) - 1:
            nodes.append(Node("relu", f"relu{layer}", (len(nodes),)))
    parameters = tuple(Parameter(name, value.shape, name in masks) for name, value in init.items())
    recipe = {"optimizer": "sgd", "batch": batch, "learning_rate": LEARNING_RATE, "momentum": MOMENTUM}
    recipe |= {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 1}
    card = {"task": "benchmark", "labels": [str(n) for n in range(10)], "recipe": recipe}
    card["input"] = {"mean": [0.0], "inverse_std": [1.0]}
    return Ticket(Network((SIZES[0],), parameters, tuple(nodes)), init, masks, None, card)


def native(density: float, batches: Batches) -> tuple[Step, Trainer]:
    trainer = Trainer.open(to_native_bytes(ticket(density, len(batches.y[0]))))
    return lambda number: trainer.train_step(*batches.at(number)), trainer


def torch_eager(batches: Batches, threads: int) -> Step:
    """nn.Linear, autograd and the fused optimizer, which is the fastest that eager PyTorch offers on a CPU."""
    import torch

    torch.set_num_threads(threads)
    layers: list[torch.nn.Module] = []
    for features, out in pairwise(SIZES):
        layers += [torch.nn.Linear(features, out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights().values(), strict=True):
            parameter.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    x = [torch.from_numpy(array) for array in batches.x]
    y = [torch.from_numpy(array.astype(np.int64)) for array in batches.y]

    def step(number: int) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[number % len(x)]), y[number % len(y)])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def torch_trio(batches: Batches, threads: int) -> Step:
    """Nothing but the GEMMs of a dense step into memory laid out beforehand: no bias, ReLU, loss or update at all."""
    import torch

    torch.set_num_threads(threads)
    batch = len(batches.y[0])
    w = [torch.from_numpy(value) for name, value in weights().items() if name.endswith("weight")]
    x = [torch.from_numpy(array) for array in batches.x]
    out = [torch.zeros(batch, size) for size in SIZES[1:]]
    d_out = [torch.ones(batch, size) for size in SIZES[1:]]
    d_w = [torch.zeros_like(matrix) for matrix in w]

    def step(number: int) -> float:
        with torch.no_grad():
            inputs = [x[number % len(x)], *out[:-1]]
            for layer, matrix in enumerate(w):
                torch.mm(inputs[layer], matrix.t(), out=out[layer])
            for layer in reversed(range(len(w))):
                torch.mm(d_out[layer].t(), inputs[layer], out=d_w[layer])
                if layer:  # the input needs no gradient
                    torch.mm(d_out[layer], w[layer], out=d_out[layer - 1])
        return float("nan")

    return step


def onnx_runtime(batches: Batches, threads: int) -> Step:
    """ONNX Runtime training; its tools and its run time come from one package of 1.19.2."""
    import onnx
    import onnxruntime
    from onnxruntime.training import artifacts
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    scratch = tempfile.TemporaryDirectory()
    folder = Path(scratch.name)
    with silent():
        artifacts.generate_artifacts(
            _onnx_model(),
            requires_grad=list(weights()),
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=artifacts.OptimType.SGD,
            artifact_directory=str(folder),
        )
    for path in folder.glob("*.onnx"):  # the tool writes a newer version than its own run time reads
        model = onnx.load(path)
        model.ir_version = min(model.ir_version, 10)
        onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    with silent():
        state = CheckpointState.load_checkpoint(folder / "checkpoint")
        module = Module(folder / "training_model.onnx", state, folder / "eval_model.onnx", session_options=options)
        optimizer = Optimizer(folder / "optimizer_model.onnx", module)
    scratch.cleanup()
    optimizer.set_learning_rate(LEARNING_RATE)
    module.train()
    labels = [array.astype(np.int64) for array in batches.y]

    def step(number: int) -> float:
        loss = module(batches.x[number % len(labels)], labels[number % len(labels)])
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    return step


def _onnx_model() -> object:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, value = [], "x"
    for layer in range(1, len(SIZES)):
        inputs = [value, f"fc{layer}.weight", f"fc{layer}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [f"fc{layer}"], transB=1))
        value = f"fc{layer}"
        if layer < len(SIZES) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"relu{layer}"]))
            value = f"relu{layer}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])
    scores = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", SIZES[-1]])
    initial = [numpy_helper.from_array(array, name) for name, array in weights().items()]
    graph = helper.make_graph(nodes, "lenet", [x], [scores], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def executorch(batches: Batches, threads: int) -> Step:
    """The joint forward and backward graph on ExecuTorch's portable kernels, which use one thread."""
    with silent():
        import torch
        from executorch.exir import to_edge
        from executorch.extension.training import _load_for_executorch_for_training_from_buffer, get_sgd_optimizer
        from torch.export import export
        from torch.export.experimental import _export_forward_backward

        layers: list[torch.nn.Module] = []
        for features, out in pairwise(SIZES):
            layers += [torch.nn.Linear(features, out), torch.nn.ReLU()]

        class Training(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = torch.nn.Sequential(*layers[:-1])

            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.cross_entropy(self.net(x), y)

        model = Training()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), weights().values(), strict=True):
                parameter.copy_(torch.from_numpy(value))
        x = [torch.from_numpy(array) for array in batches.x]
        y = [torch.from_numpy(array.astype(np.int64)) for array in batches.y]
        joint = _export_forward_backward(export(model, (x[0], y[0]), strict=True))
        program = to_edge(joint).to_executorch().buffer  # the module reads from it, so step() keeps it alive
        module = _load_for_executorch_for_training_from_buffer(program)
        module.forward_backward("forward", (x[0], y[0]))  # it knows its parameters only after a first run
        optimizer = get_sgd_optimizer(module.named_parameters(), LEARNING_RATE, MOMENTUM, 0.0, 0.0, False)

    def step(number: int) -> float:
        assert program
        (loss,) = module.forward_backward("forward", (x[number % len(x)], y[number % len(y)]))
        optimizer.step(module.named_gradients())
        return float(loss)

    return step
