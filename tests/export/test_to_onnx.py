"""The plain ONNX model: strictly valid, small, the same numbers in ONNX Runtime as a float64 reference of the network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from export.compact import compact
from export.network import OPERATORS, Network, Node, Parameter
from export.onnx_operators import WRITERS
from export.ticket import Floats, Ticket, TicketError
from export.to_onnx import to_onnx, to_onnx_bytes
from tests.architectures import ARCHITECTURES
from tests.export.architecture_tickets import architecture_ticket
from tests.export.reference import forward, softmax
from tests.export.tickets import (
    MILD_FLOATS,
    dead_unit_ticket,
    golden_ticket,
    small_network,
    small_parts,
    small_ticket,
    tickets,
)

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the `ort` extra")


def run(content: bytes, samples: Floats) -> tuple[Floats, Floats]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["input"]
    logits, probabilities = session.run(["logits", "probabilities"], {"input": samples})
    return logits, probabilities


@settings(deadline=None, max_examples=50)
@given(tickets(MILD_FLOATS), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_onnx_runtime_gives_the_outputs_of_the_network(ticket: Ticket, batch: int, seed: int) -> None:
    samples = np.random.default_rng(seed).normal(size=(batch, *ticket.network.input_shape)).astype(np.float32)
    for values in ("init", "trained"):
        parameters = getattr(ticket, values)
        if parameters is None:
            continue
        logits, probabilities = run(to_onnx_bytes(ticket, values), samples)
        expected = forward(ticket, parameters, samples)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(logits, expected, atol=1e-5 * scale, rtol=1e-5)
        np.testing.assert_allclose(probabilities, softmax(logits.astype(np.float64)), atol=1e-6)


@settings(deadline=None)
@given(tickets())
def test_live_weights_alone_are_stored_and_positions_as_gaps(ticket: Ticket) -> None:
    stored = {i.name: numpy_helper.to_array(i) for i in to_onnx(ticket).graph.initializer}
    assert {name for name in stored if "/" not in name} == set(ticket.init)
    assert {name.removesuffix("/gaps") for name in stored if name.endswith("/gaps")} == set(ticket.masks)
    for name, array in ticket.init.items():
        mask = ticket.masks.get(name, np.ones(array.shape, np.bool_))
        assert stored[name].tobytes() == array[mask].tobytes()
        if name in ticket.masks:
            assert np.cumsum(stored[f"{name}/gaps"], dtype=np.int64).tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(("inputs", "kind"), [(200, np.uint8), (1000, np.uint16), (2**17, np.int32)])
def test_gaps_take_as_many_bytes_as_they_need(inputs: int, kind: type) -> None:
    network = Network((inputs,), (Parameter("w", (2, inputs), True),), (Node("linear", "fc", (0,), {"weight": "w"}),))
    mask = np.zeros((2, inputs), np.bool_)
    mask[0, 3] = mask[0, -1] = mask[1, inputs // 2] = True
    ticket = Ticket(network, {"w": mask.astype(np.float32)}, {"w": mask}, card=small_parts()["card"])
    stored = {i.name: numpy_helper.to_array(i) for i in to_onnx(ticket).graph.initializer}
    assert stored["w/gaps"].dtype == kind
    samples = np.random.default_rng(0).normal(size=(2, inputs)).astype(np.float32)
    logits, _ = run(to_onnx_bytes(ticket), samples)
    np.testing.assert_allclose(logits, forward(ticket, ticket.init, samples), rtol=1e-6)


def made_dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with whole matrices as initializers, as any exporter writes them."""
    dense = onnx.ModelProto()
    dense.CopyFrom(model)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for name in [n.removesuffix("/gaps") for n in stored if n.endswith("/gaps")]:
        array = np.zeros(stored[f"{name}/size"], np.float32)
        array[np.cumsum(stored[f"{name}/gaps"], dtype=np.int64)] = stored[name]
        whole = array.reshape(stored[f"{name}/shape"])
        dense.graph.initializer.append(numpy_helper.from_array(whole, f"{name}/dense"))
    last = max((at for at, node in enumerate(dense.graph.node) if node.output[0].endswith("/dense")), default=-1)
    kept = dense.graph.node[last + 1 :]
    del dense.graph.node[:]
    dense.graph.node.extend(kept)
    return dense


PLACING = {"Cast", "CumSum", "ConstantOfShape", "ScatterElements"}  # nodes by which live weights come into place


def optimized(content: bytes, path: Path) -> set[str]:
    """Kinds of nodes that ONNX Runtime is left with once it has loaded the model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(path).graph.node}


@settings(deadline=None)
@given(tickets())
def test_strict_checks_and_shape_inference_pass(ticket: Ticket) -> None:
    model = to_onnx(ticket)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {v.name for v in (*inferred.graph.value_info, *inferred.graph.output)}
    assert {output for node in inferred.graph.node for output in node.output} <= known
    onnx.checker.check_model(made_dense(model), full_check=True)


def test_versions_are_old_enough_for_old_runtimes() -> None:
    model = to_onnx(small_ticket())
    assert model.ir_version == 7
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]
    needed = helper.find_min_ir_version_for(model.opset_import)
    assert needed <= model.ir_version


def test_the_model_says_which_ticket_it_is() -> None:
    ticket = golden_ticket("tiny")
    props = {p.key: p.value for p in to_onnx(ticket, "trained").metadata_props}
    assert props["ticket_hash"] == ticket.hash
    assert float(props["density"]) == ticket.density
    assert props["values"] == "trained"
    assert json.loads(props["card"]) == dict(ticket.card)


def test_a_compacted_model_gives_the_same_outputs_of_the_same_ticket() -> None:
    ticket = dead_unit_ticket()
    samples = np.random.default_rng(0).normal(size=(5, *ticket.network.input_shape)).astype(np.float32)
    (logits, _), (smaller, _) = (run(to_onnx_bytes(source), samples) for source in (ticket, compact(ticket)))
    np.testing.assert_allclose(smaller, logits, rtol=1e-6)
    model = to_onnx(compact(ticket))
    shapes = {numpy_helper.to_array(i).tobytes() for i in model.graph.initializer if i.name.endswith("/shape")}
    assert shapes == {np.array(shape, np.int64).tobytes() for shape in ((2, 4), (2, 2))}
    props = {p.key: p.value for p in model.metadata_props}
    assert (props["ticket_hash"], float(props["density"])) == (ticket.hash, ticket.density)
    assert "a.weight" in json.loads(props["card"])["compaction"]


def test_batch_is_free_and_shapes_are_told() -> None:
    graph = to_onnx(small_ticket()).graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    assert shapes == {"input": ["batch", 2, 2], "logits": ["batch", 2], "probabilities": ["batch", 2]}


def test_equal_tickets_give_equal_bytes() -> None:
    assert to_onnx_bytes(golden_ticket("tiny")) == to_onnx_bytes(golden_ticket("tiny"))


def test_trained_values_that_are_not_there_are_refused() -> None:
    with pytest.raises(TicketError, match="holds no trained values; export the initial ones"):
        to_onnx(small_ticket(), "trained")


@pytest.mark.parametrize("name", ["input", "logits", "probabilities", "outputs", "value/0", "normalisation/mean"])
def test_a_parameter_that_takes_a_name_of_the_model_is_refused(name: str) -> None:
    network = Network((2,), (Parameter(name, (2, 2), True),), (Node("linear", "fc", (0,), {"weight": name}),))
    ticket = Ticket(network, {name: np.ones((2, 2), np.float32)}, {}, card=small_parts()["card"])
    with pytest.raises(TicketError, match=f"parameter '{name}': the ONNX model uses that name itself"):
        to_onnx(ticket)


def test_every_operator_has_its_onnx_nodes() -> None:
    assert set(WRITERS) == set(OPERATORS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_whole_networks_give_what_the_module_gives(name: str, tmp_path: Path) -> None:
    """Pruned kernels and embeddings, moved statistics, dropout and all, at inference; in ONNX Runtime the same bits as the dense
    model, and nothing is put into place at each run."""
    architecture, ticket = ARCHITECTURES[name], architecture_ticket(name)
    model = to_onnx(ticket)
    content = model.SerializeToString()
    assert PLACING & optimized(content, tmp_path / "optimized.onnx") <= ({"Cast"} if architecture.entries else set())
    module = architecture.build().eval()
    module.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in ticket.init.items()}, strict=False)
    samples = architecture.samples(3)
    with torch.no_grad():
        n = ticket.card["input"]
        expected = module((samples - n["mean"][0]) * n["inverse_std"][0]).numpy()
    logits, probabilities = run(content, samples.numpy())
    assert logits.tobytes() == run(made_dense(model).SerializeToString(), samples.numpy())[0].tobytes()
    np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1.0, np.abs(expected).max()), rtol=0)
    np.testing.assert_allclose(probabilities, softmax(expected.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("name", ["every", "tiny"])
def test_golden_networks_give_what_they_say(name: str) -> None:
    ticket = golden_ticket(name)
    whole = np.array([[0, 1, 2, 3, 4, 0], [4, 4, 3, 0, 1, 2]], np.float32)
    samples: Floats = whole if name == "every" else np.asarray(whole.reshape(2, 2, 3) / 3, np.float32)
    assert ticket.trained is not None
    logits, _ = run(to_onnx_bytes(ticket, "trained"), samples)
    np.testing.assert_allclose(logits, forward(ticket, ticket.trained, samples), atol=1e-5)


def with_loss(loss: str) -> Ticket:
    return dataclasses.replace(small_ticket(), network=dataclasses.replace(small_network(), loss=loss))


def test_outputs_follow_the_loss() -> None:
    samples = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    expected = forward(small_ticket(), small_ticket().init, samples)
    content = to_onnx_bytes(with_loss("mse"))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["outputs"]
    np.testing.assert_allclose(session.run(None, {"input": samples})[0], expected, rtol=1e-6)
    logits, probabilities = run(to_onnx_bytes(with_loss("bce")), samples)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-expected)), rtol=1e-6)


def test_nodes_are_named_as_in_the_network() -> None:
    named = [node.name for node in to_onnx(golden_ticket("every")).graph.node if node.name]
    assert named == [node.name for node in golden_ticket("every").network.nodes]
