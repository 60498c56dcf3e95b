"""Our own recipe: what it adds to NOSMOG, checked part by part."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import Batch
from graph2mlp.losses.labels import HardLabels, SoftLabels
from graph2mlp.methods.base import Stage
from graph2mlp.methods.blend import Blend
from graph2mlp.methods.blend_features import BlendFeatures
from graph2mlp.students.base import StudentInput
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.training.batches import NodeBatches
from graph2mlp.training.objective import DistillObjective
from graph2mlp.training.student import train_student
from tests.pipeline import make_stage, run_method, same_weights, small_config


def _batch(graph: GraphData, *, norm: str = "none") -> tuple[MLPStudent, Stage, Batch]:
    stage, spec = make_stage(small_config("blend"), graph)
    torch.manual_seed(0)
    plain = {"dropout": 0.0, "input_dropout": 0.0, "structure_dropout": 0.0, "norm": norm}
    batches = NodeBatches(stage, torch.Generator().manual_seed(0), every=True, partners=True)
    return MLPStudent(replace(spec, **plain)), stage, next(iter(batches()))  # type: ignore[arg-type]


def test_golden_mixture() -> None:
    """A quarter of (0.9, 0.1) and three quarters of (0.2, 0.8) is (0.375, 0.625)."""
    one, other = torch.tensor([[0.9, 0.1]]).log() + 3, torch.tensor([[0.2, 0.8]]).log() - 1
    mixed = Classes().mixed(one, other, torch.tensor([[0.25]])).softmax(1)
    assert mixed.tolist()[0] == pytest.approx([0.375, 0.625])


@pytest.mark.parametrize("share", [0.0, 1.0 - 2**-24])
def test_mixture_at_its_ends_is_finite(share: float) -> None:
    """`torch.rand` may give 0; then only the partner is left."""
    one, other = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.0, 5.0]])
    mixed = Classes().mixed(one, other, torch.tensor([[share]]))
    assert bool(torch.isfinite(mixed).all())
    assert torch.allclose(mixed.softmax(1), (one if share else other).softmax(1), atol=1e-6)


def test_partners_are_neighbours_as_known_nodes(tiny_graph: GraphData) -> None:
    """Each row's partner is one of its in-neighbours, or itself, with that node's structure and soft labels."""
    _, stage, batch = _batch(tiny_graph)
    assert batch.partners is not None
    assert stage.structure is not None
    near = stage.graph.in_neighbours
    rows = stage.structure.for_known(stage.graph.node_ids)
    for place, node in enumerate(batch.ids.tolist()):
        around = [node, *near.ids[near.pointer[node] : near.pointer[node + 1]].tolist()]
        found = [
            other for other in around
            if torch.equal(batch.partners.teachers[0].logits[place], stage.teachers[0].logits[other])
            and torch.equal(batch.partners.inputs.structure[place], rows[other])  # type: ignore[index]
        ]  # fmt: skip
        assert found
    assert batch.partners.share.shape == (len(batch.ids), 1)
    assert 0.2 < float(batch.partners.share.mean()) < 0.8


def test_mixed_term_is_the_plain_formula(dense_graph: GraphData) -> None:
    """`KL(a p_i + (1 - a) p_j || f(a x_i + (1 - a) x_j))` on mixed inputs; the code mixes behind the first layer."""
    student, _, batch = _batch(dense_graph)
    terms = {"hard": (0.3, HardLabels()), "soft": (0.7, SoftLabels())}
    objective = DistillObjective(student, terms, mixing=2.0)
    found = objective(batch)["mixed"]
    partners = batch.partners
    assert partners is not None
    share = partners.share

    def between(one: Tensor | Any, other: Tensor | Any) -> Tensor:
        return share * one + (1 - share) * other

    inputs = StudentInput(
        between(batch.inputs.features, partners.inputs.features),
        between(batch.inputs.structure, partners.inputs.structure),
    )
    target = between(batch.teachers[0].logits.softmax(1), partners.teachers[0].logits.softmax(1))
    answer = student(inputs).logits.log_softmax(1)
    expected = 2.0 * 0.7 * (target * (target.log() - answer)).sum(1).mean()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    wanted = torch.autograd.grad(expected, list(student.parameters()))
    got = torch.autograd.grad(found, list(student.parameters()))
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_mixed_points_leave_no_trace_in_statistics(dense_graph: GraphData) -> None:
    """Batch normalisation must describe real nodes, since those are what a device asks."""
    student, _, batch = _batch(dense_graph, norm="batch")
    DistillObjective(student, {"soft": (1.0, SoftLabels())}, mixing=1.0)(batch)
    mixed = student.norms[0].running_mean.clone()  # type: ignore[union-attr,operator]
    student, _, batch = _batch(dense_graph, norm="batch")
    DistillObjective(student, {"soft": (1.0, SoftLabels())})(batch)
    assert torch.equal(mixed, student.norms[0].running_mean)  # type: ignore[arg-type]


def test_true_labels_are_not_mixed(dense_graph: GraphData) -> None:
    """Only soft labels exist for every node, so only they can be mixed; a batch of true labels alone mixes nothing."""
    with pytest.raises(ConfigError, match="mix"):
        run_method("blend", dense_graph, overrides=["blend.hard=1", "blend.soft=0"])
    run_method("blend", dense_graph, overrides=["blend.hard=1", "blend.soft=0", "blend.mix=0"])


@pytest.mark.parametrize("changed", ["blend.mix=0", "train.average=0"])
def test_each_part_takes_part(changed: str, dense_graph: GraphData) -> None:
    """A part that is wired up wrongly trains without it and nobody notices."""
    assert not same_weights(
        run_method("blend", dense_graph).weights(), run_method("blend", dense_graph, overrides=[changed]).weights()
    )


def test_validation_nodes_are_not_taught_where_new_nodes_come(dense_graph: GraphData) -> None:
    """Neither in turn nor as somebody's partner: the epoch is chosen on nodes the student meets as it meets new ones.

    Whatever a teacher says of them, the student learns the same; a method that teaches them notices.
    """
    config = small_config("blend")
    stage, spec = make_stage(config, dense_graph)
    said = stage.teachers[0]
    logits = said.logits.clone()
    logits[stage.graph.split.val] = -logits[stage.graph.split.val]
    for taught in (False, True):
        train = replace(config.train, epochs=1)
        again = replace(stage, train=train, new_nodes=not taught)
        weights = [
            train_student(config.hyper, spec, replace(again, teachers=(one,)))[0].state_dict()
            for one in (said, replace(said, logits=logits))
        ]
        assert same_weights(*weights) is not taught


def test_dropout_follows_the_features(tiny_graph: GraphData) -> None:
    """Bags of words keep the general dropout; the weights file says what was trained."""
    student = run_method("blend", tiny_graph, overrides=["student.dropout=0.4", "blend.dense_dropout=0.3"]).student
    assert student.spec.dropout == (0.4 if tiny_graph.is_sparse else 0.3)
    less = run_method("blend", tiny_graph, overrides=["student.dropout=0.1", "blend.dense_dropout=0.3"]).student
    assert less.spec.dropout == 0.1  # what the user asks for is not overruled
    with pytest.raises(ConfigError, match=r"blend.dense_dropout must be in \[0, 1\) \(got 1.0\)"):
        small_config("blend", overrides=["blend.dense_dropout=1.0"])


def test_features_alone(dense_graph: GraphData) -> None:
    """No table is computed, and none is asked for."""
    trained = run_method("blend_features", dense_graph)
    assert trained.table is None
    assert trained.student.regime == "features"
    assert (BlendFeatures.defaults["train"] | {"teach_val": "known"}).items() <= Blend.defaults["train"].items()


def test_dense_features_take_shorter_steps(tiny_graph: GraphData) -> None:
    """Half of `train.lr`, whatever that is; bags of words keep it. The training with validation nodes does the same."""
    paced, half, whole = (
        run_method("blend_features", tiny_graph, overrides=[f"train.lr={lr}", f"blend_features.dense_pace={pace}"])
        for lr, pace in ((0.02, 0.5), (0.01, 1.0), (0.02, 1.0))
    )
    assert same_weights(paced.weights(), (whole if tiny_graph.is_sparse else half).weights())
    assert not same_weights(half.weights(), whole.weights())
    for pace in (0.0, 1.5, math.nan):
        with pytest.raises(ConfigError, match=r"blend_features\.dense_pace must be above 0 and at most 1"):
            small_config("blend_features", overrides=[f"blend_features.dense_pace={pace}"])


@pytest.mark.parametrize("mix", [-0.1, math.inf, math.nan])
@pytest.mark.parametrize("method", ["blend", "blend_features"])
def test_impossible_settings_are_refused(method: str, mix: float) -> None:
    """In the words of the method that was asked for."""
    with pytest.raises(ConfigError, match=rf"{method}\.mix must be at least 0"):
        small_config(method, overrides=[f"{method}.mix={mix}"])
