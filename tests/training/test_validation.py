"""The score that chooses the epoch."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Classes
from graph2mlp.students.mlp import MLPStudent
from graph2mlp.training import validation
from graph2mlp.training.student import answer
from graph2mlp.training.validation import validation_score
from tests.pipeline import make_stage, small_config


@pytest.mark.parametrize(
    ("overrides", "forms"),
    [
        (["train.as_unseen=0.0", "student.structure_dropout=0.0"], ["known"]),
        (["train.as_unseen=0.3", "student.structure_dropout=0.0"], ["known", "unseen"]),
        (["train.as_unseen=0.0", "student.structure_dropout=0.5"], ["known", "cold"]),
        (["train.as_unseen=0.3", "student.structure_dropout=0.5"], ["known", "unseen", "cold"]),
    ],
)
def test_every_form_that_is_practised_counts(overrides: list[str], forms: list[str], dense_graph: GraphData) -> None:
    """An epoch chosen on known nodes alone may be a bad one for new nodes, and a form that is not trained for must not
    choose at all."""
    stage, spec = make_stage(small_config("nosmog", overrides=overrides), dense_graph)
    torch.manual_seed(0)
    student = MLPStudent(spec).eval()
    graph, table, val = stage.graph, stage.structure, stage.graph.split.val
    assert table is not None
    y = graph.y[val]
    by_neighbours = table.neighbour_means(graph)[val]
    wanted = {
        "known": Classes().score(answer(student, graph, table, val), y),
        "unseen": Classes().score(student.head(_embed(student, graph, val, by_neighbours)).logits, y),
        "cold": Classes().score(student.head(_embed(student, graph, val, torch.zeros_like(by_neighbours))).logits, y),
    }
    with torch.no_grad():
        found = validation_score(student, stage)()
    assert found.value == pytest.approx(fmean(wanted[form] for form in forms))


def _embed(student: MLPStudent, graph: GraphData, ids: torch.Tensor, structure: torch.Tensor) -> torch.Tensor:
    assert student.structure_weight is not None
    features = graph.features()
    assert isinstance(features, torch.Tensor)
    return features[ids] @ student.feature_weight + student.first.bias + structure @ student.structure_weight


def test_many_validation_nodes_are_sampled_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sample at each epoch would choose the epoch whose sample was easy."""
    monkeypatch.setattr(validation, "_NODES", 10)
    nodes = torch.arange(100, 200)
    one, two = (validation._sample(nodes, seed=3) for _ in range(2))
    assert torch.equal(one, two)
    assert len(one) == 10
    assert torch.isin(one, nodes).all()
    assert torch.equal(validation._sample(nodes[:10], seed=3), nodes[:10])
