"""The ticket beside pruned and fine-tuned networks and students of its size: what each is made of, and how students are taught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export.compact import compact
from export.lower import lower
from export.network import Network
from export.ticket import Ticket
from server_side.controls import apply_masks
from server_side.distillation import Distillation, distilled_loss
from server_side.errors import UsageError
from server_side.experiments.alternatives import (
    Options,
    explain,
    figures,
    pruned_jobs,
    steps_to_ticket,
    student_jobs,
    weights_of,
)
from server_side.lab import Lab
from server_side.presets import PRESETS
from server_side.schedule import learning_rates
from server_side.seeds import BatchOrder
from server_side.student import FORMS, Form, narrowed, student_masks, student_start
from server_side.training import Training
from tests.server_side.experiments import finished, lab, told
from tests.server_side.searches import normed

DEEP = {"rounds": 2, "prune_fraction": 0.5, "accuracy_tolerance": 0.9, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("alternatives") / "run", **DEEP)


def opened(run: Path, **options: Any) -> Lab:
    return lab(run, "alternatives", Options(**options))


def network(name: str) -> Network:
    shape = (2, 16) if name == "sensor-1d" else (3, 32, 32)
    return lower(PRESETS[name].build(shape, 10), shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["lenet-300-100", "conv-4", "resnet-20", "mobilenet", "sensor-1d"])
def test_a_student_is_the_widest_of_its_form_that_has_no_more_weights(name: str, form: Form) -> None:
    """And a small network of its own: compaction leaves nothing of it pruned."""
    large = network(name)
    total = weights_of(large, {})
    for share in (0.5, 0.1, 0.02):
        masks = student_masks(large, round(share * total), form)
        count = weights_of(large, masks)
        assert 0.3 * share * total < count <= share * total
        start = {name: np.ones(shape, np.float32) for name, shape in large.parameter_shapes.items()}
        small = compact(Ticket(large, apply_masks(start, masks), masks)).ticket
        assert small.density == 1.0
        assert weights_of(small.network, {}) == count


def test_forms_narrow_all_layers_or_the_wide_ones() -> None:
    large = network("lenet-300-100")
    names = large.prunable

    def widths(form: Form, weights: int) -> list[int]:
        masks = student_masks(large, weights, form)
        return [int(masks[name].any(axis=1).sum()) for name in names]

    assert widths("even", 10 * 3072 + 10 * 10 + 10 * 10) == [10, 10, 10]
    assert widths("even", 10 * 3072 + 10 * 10 + 10 * 10 - 1) == [9, 9, 10]
    assert widths("scaled", 30 * 3072 + 30 * 10 + 10 * 10) == [30, 10, 10]
    assert widths("scaled", 3072 + 1 + 10) == [1, 1, 10]
    with pytest.raises(UsageError, match="as few as 3082 weights"):
        student_masks(large, 3072 + 1 + 10 - 1, "scaled")


def test_nothing_that_is_left_out_reaches_the_outputs() -> None:
    """Whatever the biases, norms and weights of units that are left out."""
    module = PRESETS["resnet-20"].build((3, 32, 32), 10).eval()
    masks = narrowed(lower(module, (3, 32, 32)), lambda n: max(1, n // 3))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = {name: value.numpy() for name, value in module.state_dict().items() if value.is_floating_point()}
    outputs = []
    for left_out in (0.0, 7.0):
        values = apply_masks(state, masks)
        for name, value in values.items():
            if value.ndim == 1 and name.removesuffix("bias") != "output.":  # the units kept are the first third
                values[name] = np.where(np.arange(len(value)) < len(value) // 3, value, value + left_out)
        loaded = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}
        outputs.append(torch.func.functional_call(module, loaded, (x,)))
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0


def test_units_that_are_mixed_cannot_be_left_out() -> None:
    mixing = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    with pytest.raises(UsageError, match="layer_norm '1' mixes hidden units"):
        student_masks(lower(mixing, (6,)), 40, "scaled")


def test_a_narrow_layer_starts_with_the_spread_of_sums_of_the_large_one() -> None:
    large = network("lenet-300-100")
    fresh = {n: np.random.default_rng(0).normal(size=s).astype(np.float32) for n, s in large.parameter_shapes.items()}
    masks = narrowed(large, lambda n: n // 5)
    start = student_start(fresh, masks)
    assert np.array_equal(start["fc1.weight"][:60], fresh["fc1.weight"][:60])  # reads every input
    assert (start["fc1.weight"][60:] == 0).all()
    for name in ("fc2.weight", "output.weight"):
        np.testing.assert_allclose(start[name][masks[name]], fresh[name][masks[name]] * np.float32(5**0.5), rtol=1e-6)
    assert start["fc1.bias"] is fresh["fc1.bias"]


def test_students_have_at_most_the_weights_of_the_ticket_and_one_start_taught_or_not(run: Path) -> None:
    there = opened(run)
    shared = there.search.model.network
    ticket = weights_of(shared, there.chosen.masks[0])
    plain, taught = list(student_jobs(there)), list(student_jobs(there, teach=True))
    assert [job.kind for job in plain] == ["scaled", "scaled", "even", "even"]
    for one, other in zip(plain, taught, strict=True):
        assert weights_of(shared, one.masks) <= ticket
        assert (one.seed, other.kind) == (other.seed, f"{one.kind}-distilled")
        assert all(np.array_equal(one.start[name], other.start[name]) for name in one.start)
        assert one.distillation is None
        assert other.distillation is not None
        dense = there.rounds[0].trainings[f"seed{one.seed}-dense"]
        assert other.distillation.teacher is dense.early
    assert not np.array_equal(plain[0].start["fc1.weight"], plain[1].start["fc1.weight"])


def test_what_is_pruned_are_the_smallest_trained_weights_and_as_many_as_of_the_ticket(run: Path) -> None:
    there = opened(run)
    for job in pruned_jobs(there):
        final = there.rounds[0].trainings[f"seed{job.seed}-dense"].final
        assert (job.first_step, job.holds_rate) == (0, True)
        for name, mask in job.masks.items():
            assert mask.sum() == there.chosen.masks[job.seed][name].sum()
            assert np.abs(final[name][mask]).min() >= np.abs(final[name][~mask]).max()
            assert np.array_equal(job.start[name], final[name] * mask)


@pytest.mark.parametrize(
    ("schedule", "holds"), [("constant", True), ("step", True), ("cosine", False), ("linear", False)]
)
def test_what_is_pruned_trains_on_at_a_rate_that_it_can_learn_by(run: Path, schedule: str, holds: bool) -> None:
    """The last rate of a schedule that falls to 0 is none: there the schedule begins anew."""
    constant = opened(run)
    recipe = replace(constant.search.recipe, schedule=schedule, drops=(20,), factor=0.1)
    there = replace(constant, search=replace(constant.search, recipe=recipe))
    for job in pruned_jobs(there):
        assert job.holds_rate == holds
        rates = learning_rates(recipe, job.first_step, recipe.steps, held=job.holds_rate)
        assert rates.mean() >= 0.05 * recipe.learning_rate


def test_a_network_that_the_format_of_devices_cannot_hold_is_told_without_bytes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.to_native.MAX_NODES", 4)
    result = told(capsys, "alternatives", str(run), "--label", "unfit")["result"]
    assert {row["artifact_bytes"] for row in result["kinds"].values()} == {None}
    assert "- for bytes: beyond what the format of devices holds" in explain(result)


def test_the_loss_of_a_student_is_hintons() -> None:
    random = torch.Generator().manual_seed(0)
    scores, taught = (torch.randn(6, 4, generator=random, dtype=torch.float64) for _ in range(2))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    hard = F.cross_entropy(scores, y)
    found = distilled_loss(hard, scores, taught, (3.0, 0.7))
    p, q = torch.softmax(taught / 3, 1), torch.softmax(scores / 3, 1)
    expected = 0.3 * hard + 0.7 * 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(distilled_loss(hard, taught, taught, (3.0, 0.7)), 0.3 * hard)


@pytest.mark.parametrize("engine", ["stacked", "device"])
def test_a_student_is_trained_as_a_plain_loop_does(tmp_path: Path, engine: str) -> None:
    """Batch norm, weight decay, masks and batches as in a search; the teacher of each seed sees the batch of its seed."""
    model = "tests.server_side.searches:normed"
    there = opened(finished(tmp_path, engine=engine, model=model, optimizer="sgd", learning_rate=0.1, rounds=1))
    jobs = [replace(job, keeps_weights=True) for job in student_jobs(there, teach=True)]
    found = there.train("distilled", jobs)
    for job in jobs:
        assert job.distillation is not None
        module, teacher = normed(), normed().eval()
        module.load_state_dict(_tensors(job.start), strict=False)
        teacher.load_state_dict(_tensors(job.distillation.teacher), strict=False)
        split, recipe = there.search.split, there.search.recipe
        order = BatchOrder(job.seed, len(split.x_train), recipe.batch)
        optimizer = torch.optim.SGD(module.parameters(), recipe.learning_rate)
        for step in range(recipe.steps):
            rows = order.indices(step)
            x, y = torch.from_numpy(split.x_train[rows]), torch.from_numpy(split.y_train[rows])
            scores = module(x)
            loss = distilled_loss(F.cross_entropy(scores, y), scores, teacher(x).detach(), job.distillation.setting)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for name, parameter in module.named_parameters():
                if name in job.masks and parameter.grad is not None:
                    parameter.grad *= torch.from_numpy(job.masks[name])
            optimizer.step()
        final = found[job.name].final
        for name, value in module.state_dict().items():
            if name in final:
                np.testing.assert_allclose(final[name], value.numpy(), rtol=1e-4, atol=1e-5)


def _tensors(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in values.items()}


def test_other_settings_of_distillation_are_other_stacks(run: Path) -> None:
    """Trained together, two students with different temperatures are each what they are alone."""
    there = opened(run)
    one = next(iter(student_jobs(there, teach=True)))
    assert one.distillation is not None
    teacher = one.distillation.teacher
    jobs = [replace(one, index=i, distillation=Distillation(teacher, t, 0.5)) for i, t in enumerate((1.0, 8.0))]
    together = there.train("together", jobs)
    alone = [there.train(f"alone-{job.index}", [job])[job.name] for job in jobs]

    def losses(training: Training) -> list[float]:
        return [float(loss) for loss in training.train_loss[1:]]

    assert [losses(together[job.name]) for job in jobs] == [losses(training) for training in alone]
    assert losses(alone[0]) != losses(alone[1])


def test_the_table_has_every_alternative_on_equal_footing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = told(capsys, "alternatives", str(run))
    assert told(capsys, "alternatives", str(run)) == first
    kinds = first["result"]["kinds"]
    assert set(kinds) == {
        *("dense", "ticket", "reinit", "pruned"),
        *("scaled", "even", "scaled-distilled", "even-distilled"),
    }
    there = opened(run)
    ticket = weights_of(there.search.model.network, there.chosen.masks[0])
    assert kinds["ticket"]["weights"] == kinds["reinit"]["weights"] == kinds["pruned"]["weights"] == ticket
    assert kinds["scaled"]["artifact_bytes"] == kinds["scaled-distilled"]["artifact_bytes"]
    assert kinds["dense"]["artifact_bytes"] > kinds["ticket"]["artifact_bytes"]
    assert kinds["ticket"]["accuracy"] == pytest.approx(np.mean(first["result"]["kinds"]["ticket"]["accuracy_by_seed"]))
    assert [kinds[kind]["before"] for kind in ("dense", "scaled", "even-distilled", "pruned")] == [0, 0, 40, 40]
    assert kinds["ticket"]["before"] == 40 * there.chosen.number
    gap = first["result"]["ticket - others"]["pruned"]["accuracy"]["by_seed"]
    assert gap == (np.array(kinds["ticket"]["accuracy_by_seed"]) - kinds["pruned"]["accuracy_by_seed"]).tolist()
    lines = explain(first["result"])
    assert "pruned: trained, pruned once, and trained on at the last learning rate" in lines
    assert any(line.startswith("even-distilled") for line in lines)
    assert figures(first["result"])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"method": "oneshot"}, lambda number: 40),
        ({"method": "snip", "rewind_step": "10it"}, lambda number: 10),
        ({"method": "rigl"}, lambda number: 40),
        ({"rewind_step": "10it"}, lambda number: 40 + 30 * (number - 1)),
    ],
)
def test_what_a_ticket_costs_depends_on_how_it_is_found(
    tmp_path: Path, settings: dict[str, Any], steps: Callable[[int], int]
) -> None:
    there = opened(finished(tmp_path, rounds=2, seeds=1, **settings))
    assert steps_to_ticket(there) == steps(there.chosen.number)


def test_a_search_without_the_control_gets_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, reinits=0, seeds=1, rounds=1)
    assert told(capsys, "alternatives", str(run))["result"]["kinds"]["reinit"]["to_dense"]["of"] == 1


def test_what_is_left_out_is_not_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path, reinits=0, seeds=1, rounds=1)
    for only, kinds in (("reinit", {"reinit"}), ("students", {"scaled", "even"})):
        found = told(capsys, "alternatives", str(run), f"--only+={only}", "--label", only)
        assert found["trainings"] == len(kinds)
        assert set(found["result"]["kinds"]) == {"dense", "ticket", *kinds}
        assert set(found["result"]["ticket - others"]) == {"dense", *kinds}
        text = "\n".join(explain(found["result"]))
        assert "pruned:" not in text
        assert "distilled" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"share": 0.0}, "share 0.0"),
        ({"share": 1.5}, "share 1.5"),
        ({"only": ["teachers"]}, "only 'teachers': no such stage; there are pruned, students, distilled, reinit"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**settings)
