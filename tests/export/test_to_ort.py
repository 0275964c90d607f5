"""The folder of ONNX Runtime: small as the ticket, valid for the last runtime there is, and what that one gets wrong, pinned.

That training with it is right is held in tests/device_runtime/test_onnxruntime.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.atomic import write_directory
from export.compact import compact
from export.gate import without_dropout
from export.network import OPERATORS, Network, Node, Parameter
from export.ticket import Ticket, TicketError
from export.to_ort import to_ort
from export.training_operators import OWN
from tests.export.tickets import (
    CARD,
    RECIPE,
    Builder,
    dead_unit_ticket,
    golden_ticket,
    small_parts,
    small_ticket,
    window,
)

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the `ort` extra")
pytest.importorskip("onnxruntime.training.api", reason="needs onnxruntime-training, not onnxruntime")

MODELS = ("training_model.onnx", "eval_model.onnx", "optimizer_model.onnx")


def with_recipe(ticket: Ticket, **recipe: Any) -> Ticket:
    return dataclasses.replace(ticket, card={**ticket.card, "recipe": {**RECIPE, **recipe}})


def wide_ticket(density: float) -> Ticket:
    """One layer of 300 x 784, as the first of LeNet-300-100."""
    network = Network((784,), (Parameter("w", (300, 784), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
    generator = np.random.default_rng(0)
    mask = generator.random((300, 784)) < density
    init = {"w": generator.normal(size=(300, 784)).astype(np.float32) * mask}
    return Ticket(network, init, {"w": mask}, card=CARD)


def loaded(folder: Path) -> tuple[Any, Any, Any]:
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    state = CheckpointState.load_checkpoint(folder / "checkpoint")
    module = Module(folder / MODELS[0], state, folder / MODELS[1], session_options=options)
    return state, module, Optimizer(folder / MODELS[2], module)


def test_the_models_are_of_versions_that_the_runtime_reads() -> None:
    files = to_ort(without_dropout(golden_ticket("every")))
    assert set(files) == {*MODELS, "checkpoint", "description.json"}
    for name in MODELS:
        model = onnx.load_from_string(files[name])
        assert model.ir_version <= 10
        assert {o.domain: o.version for o in model.opset_import}[""] == 14
    onnx.checker.check_model(onnx.load_from_string(files[MODELS[1]]), full_check=True)


def test_equal_tickets_give_equal_bytes() -> None:
    ticket = without_dropout(golden_ticket("every"))
    assert to_ort(ticket) == to_ort(without_dropout(golden_ticket("every")))
    assert to_ort(ticket, "trained") != to_ort(ticket)


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2])
def test_every_file_is_as_small_as_the_live_weights(density: float) -> None:
    ticket = wide_ticket(density)
    files = to_ort(ticket)
    assert 4 * ticket.live <= len(files["checkpoint"]) <= 4 * ticket.live + 300
    for name in MODELS[:2]:  # a position takes at most two bytes; nothing is dense, folded constants neither
        assert len(files[name]) <= 2 * ticket.live + 4000, name
    assert len(files[MODELS[2]]) < 600


def test_the_optimizer_state_is_as_small_as_the_live_weights(tmp_path: Path) -> None:
    from onnxruntime.training.api import CheckpointState

    ticket = wide_ticket(0.05)
    write_directory(tmp_path / "a", to_ort(ticket))
    state, module, optimizer = loaded(tmp_path / "a")
    module(np.ones((2, 784), np.float32), np.array([1, 2]))
    optimizer.step()
    CheckpointState.save_checkpoint(state, tmp_path / "c", include_optimizer_state=True)
    assert 12 * ticket.live < (tmp_path / "c").stat().st_size <= 12 * ticket.live + 1000


def test_positions_far_apart_stand_where_the_mask_has_them(tmp_path: Path) -> None:
    """Gaps of one byte, two bytes and four."""
    for size in (200, 60_000, 140_000):
        mask = np.zeros((2, size), np.bool_)
        mask[0, 3] = mask[0, -1] = mask[1, -2] = True
        network = Network((size,), (Parameter("w", (2, size), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
        weight = np.where(mask, np.arange(2 * size).reshape(2, size) % 7 + 1, 0).astype(np.float32)
        card = CARD | {"input": {"mean": [0.0], "inverse_std": [1.0]}}
        write_directory(tmp_path / str(size), to_ort(Ticket(network, {"w": weight}, {"w": mask}, card=card)))
        _, module, _ = loaded(tmp_path / str(size))
        module.eval()
        samples = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
        _, logits, _ = module(samples, np.zeros(3, np.int64))
        np.testing.assert_allclose(logits, samples @ weight.T, rtol=1e-6)


def test_the_loss_of_the_eval_model_is_without_smoothing_and_class_weights(tmp_path: Path) -> None:
    ticket = with_recipe(small_ticket(), label_smoothing=0.3, class_weights=[1.0, 5.0])
    write_directory(tmp_path / "a", to_ort(ticket))
    _, module, _ = loaded(tmp_path / "a")
    samples, labels = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32), np.array([0, 1, 1, 0, 1])
    module.eval()
    loss, _, probabilities = module(samples, labels)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(5), labels]).mean(), rel=1e-5)
    module.train()
    assert module(samples, labels) != pytest.approx(loss, rel=1e-2)


def test_the_description_vouches_for_every_file() -> None:
    ticket = without_dropout(golden_ticket("every"))
    files = to_ort(ticket)
    told = json.loads(files["description.json"])
    assert told["ticket_hash"] == ticket.hash
    assert told["next"] == {name: f"{name}/next" for name in told["next"]}
    frozen = {n.params[r] for n in ticket.network.nodes if n.attrs.get("frozen") for r in n.params}
    assert set(told["next"]) == {p.name for p in ticket.network.parameters if p.state} - frozen
    assert set(told["files"]) == {*MODELS, "checkpoint"}
    for name, file in told["files"].items():
        assert (file["bytes"], file["sha256"]) == (len(files[name]), hashlib.sha256(files[name]).hexdigest())


def test_a_compacted_ticket_keeps_the_hash_of_the_original() -> None:
    ticket = dead_unit_ticket()
    files = to_ort(compact(ticket))
    told = json.loads(files["description.json"])
    assert told["ticket_hash"] == ticket.hash
    assert told["dense_count"] == sum(p.size for p in ticket.network.parameters)
    assert len(files["checkpoint"]) < len(to_ort(ticket)["checkpoint"])


def test_nesterov_is_refused_by_name() -> None:
    with pytest.raises(TicketError, match=r"nesterov by ONNX Runtime: .*leave it out, or export as native"):
        to_ort(with_recipe(small_ticket(), optimizer="sgd", momentum=0.9, nesterov=True))


def test_options_that_another_optimizer_does_not_read_are_no_reason_to_refuse() -> None:
    to_ort(with_recipe(small_ticket(), optimizer="adamw", momentum=0.9, nesterov=True, clip_norm=1.0, weight_decay=0.5))


def test_an_operator_without_a_gradient_would_be_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none now; what a later operator would meet."""
    monkeypatch.delitem(OWN, "hardswish")
    with pytest.raises(TicketError, match=r"HardSigmoid.*; the native artifact trains this ticket"):
        to_ort(without_dropout(golden_ticket("every")))


def test_dropout_is_refused_by_name_unless_it_drops_nothing() -> None:
    with pytest.raises(TicketError, match=r"dropout '.*': .*the native artifact trains it"):
        to_ort(golden_ticket("every"))
    ticket = without_dropout(golden_ticket("every"))
    assert {node.op for node in ticket.network.nodes} == set(OPERATORS)
    to_ort(ticket)


def test_trained_values_that_are_not_there_are_refused() -> None:
    with pytest.raises(TicketError, match="holds no trained values"):
        to_ort(small_ticket(), "trained")


@pytest.mark.parametrize("name", ["target", "loss", "gradient_scale", "lazy_reset_grad", "input", "a/b", "w_grad"])
def test_a_parameter_that_takes_a_name_of_the_models_is_refused(name: str) -> None:
    network = Network((2,), (Parameter(name, (2, 2), True),), (Node("linear", "fc", (0,), {"weight": name}),))
    ticket = Ticket(network, {name: np.ones((2, 2), np.float32)}, {}, card=small_parts()["card"])
    with pytest.raises(TicketError, match=f"parameter '{name}': "):
        to_ort(ticket)


# What ONNX Runtime 1.19.2 and its tool get wrong. If one of these fails, a newer version has mended it.


@pytest.mark.parametrize("op", ["HardSigmoid", "HardSwish", "Sum", "CumSum"])
def test_the_runtime_still_has_no_gradient_of(op: str) -> None:
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    inputs = ["x", "axis"] if op == "CumSum" else ["x"]
    nodes = [helper.make_node(op, inputs, ["y"]), helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0)]
    x, loss = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", [2, 3]), ("loss", [])))
    axis = numpy_helper.from_array(np.array(0), "axis")
    graph = helper.make_graph(nodes, "probe", [x], [loss], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()
    builder = GradientGraphBuilder(model, {"loss"}, {"x"}, "loss", onnxruntime.SessionOptions())
    with pytest.raises(RuntimeError, match=f"gradient builder has not been registered: {op}"):
        builder.build()


def batch_norm_model(mode: int) -> onnx.ModelProto:
    """Samples (n, 3, 4) to 12 scores by way of a batch norm."""
    names, also = ["weight", "bias", "mean", "var"], ["new_mean", "new_var"] if mode else []
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["y", *also], training_mode=mode),
        helper.make_node("Flatten", ["y"], ["scores"], axis=1),
    ]
    shapes: dict[str, list[int | str]] = {"x": ["n", 3, 4], "scores": ["n", 12], "new_mean": [3], "new_var": [3]}
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()}
    constants = [numpy_helper.from_array(np.ones(3, np.float32), name) for name in names]
    graph = helper.make_graph(nodes, "probe", [values["x"]], [values[n] for n in ("scores", *also)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def generated(model: onnx.ModelProto, folder: Path, trained: list[str]) -> onnx.ModelProto:
    """The training model that ONNX Runtime's own tool makes of `model`."""
    from onnxruntime.training import artifacts

    artifacts.generate_artifacts(
        model,
        requires_grad=trained,
        loss=artifacts.LossType.CrossEntropyLoss,
        loss_input_names=["scores"],
        artifact_directory=folder,
        optimizer=artifacts.OptimType.SGD,
    )
    return onnx.load(folder / MODELS[0])


@pytest.mark.parametrize("mode", [0, 1])
def test_the_tool_still_rewrites_batch_norm_and_breaks_its_eval_model(tmp_path: Path, mode: int) -> None:
    """A frozen one would train by the batch's own statistics; of one in training the eval model cannot be loaded."""
    nodes = {node.op_type: node for node in generated(batch_norm_model(mode), tmp_path, ["weight", "bias"]).graph.node}
    attributes = {a.name: a.i for a in nodes["BatchNormInternal"].attribute}
    assert attributes["training_mode"] == 1
    evaluation = str(tmp_path / MODELS[1])
    if mode:
        with pytest.raises(Exception, match="This number of op outputs should be 1"):
            onnxruntime.InferenceSession(evaluation, providers=["CPUExecutionProvider"])


def test_the_tool_still_takes_no_sparse_initializers(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 3]), "places"), [2, 2])
    x, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "scores"))
    nodes = [helper.make_node("Gemm", ["x", "w"], ["scores"])]
    graph = helper.make_graph(nodes, "probe", [x], [scores], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    with pytest.raises(Exception, match="sparse_tensor"):
        generated(model, tmp_path, [])


def test_the_tool_still_writes_a_version_that_the_runtime_cannot_read(tmp_path: Path) -> None:
    generated(batch_norm_model(0), tmp_path, ["weight"])
    assert onnx.load(tmp_path / MODELS[2]).ir_version > 10


def test_the_runtime_still_rejects_the_ir_version_of_newer_tools(tmp_path: Path) -> None:
    files = to_ort(small_ticket())
    model = onnx.load_from_string(files[MODELS[2]])
    model.ir_version = 11
    write_directory(tmp_path / "a", {**files, MODELS[2]: model.SerializeToString()})
    with pytest.raises(Exception, match="IR version"):
        loaded(tmp_path / "a")


POOL = """
import sys, numpy as np, onnxruntime
from onnxruntime.training.api import CheckpointState, Module
state = CheckpointState.load_checkpoint(sys.argv[1] + "/checkpoint")
Module(sys.argv[1] + "/training_model.onnx", state)(np.ones((2, 2, 4, 4), np.float32), np.array([0, 1]))
"""


def test_the_gradient_of_average_pooling_still_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder((2, 4, 4))
    params: dict[str, tuple[int, ...]] = {"weight": (2, 2, 1, 1)}
    builder.add("conv", params=params, groups=1, **window(builder.shape, kernel=1, stride=1, dilation=1, pad=0))
    builder.add("avg_pool", count_include_pad=1, **window(builder.shape, kernel=2, stride=2, pad=0))
    builder.add("reshape", shape=(8,))
    network = builder.network()
    ticket = Ticket(network, {"conv0.weight": np.ones((2, 2, 1, 1), np.float32)}, {}, card=CARD)

    def runs(folder: Path) -> int:
        write_directory(folder, to_ort(ticket))
        return subprocess.run([sys.executable, "-c", POOL, str(folder)], capture_output=True, check=False).returncode

    assert runs(tmp_path / "ours") == 0
    monkeypatch.delitem(OWN, "avg_pool")
    assert runs(tmp_path / "theirs") == -signal.SIGFPE


def test_the_runtime_still_loads_a_flipped_bit_silently(tmp_path: Path) -> None:
    files = to_ort(small_ticket())
    value = np.float32(small_ticket().init["b.weight"].flat[0]).tobytes()
    damaged = bytearray(files["checkpoint"])
    damaged[files["checkpoint"].index(value * 6) + 2] ^= 8
    write_directory(tmp_path / "a", {**files, "checkpoint": bytes(damaged)})
    state, _, _ = loaded(tmp_path / "a")
    assert (state.parameters["b.weight"].data != small_ticket().init["b.weight"]).any()
