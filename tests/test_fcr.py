"""The feature contribution ratio: golden values, where it means nothing, and the label propagation it needs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.errors import ConfigError
from graph2mlp.fcr import feature_contribution, label_propagation
from tests.graphs import community_graph


@pytest.mark.parametrize(
    ("gnn", "mlp", "propagation", "percent"),
    [(80, 60, 70, 100 / 3), (80, 80, 70, 100), (80, 60, 80, 0), (80, 84, 70, 128.571429), (0.8, 0.6, 0.7, 100 / 3)],
)
def test_golden_values(gnn: float, mlp: float, propagation: float, percent: float) -> None:
    """In percent or as fractions: the ratio has no unit."""
    found = feature_contribution(gnn=gnn, mlp=mlp, propagation=propagation)
    assert found.percent == pytest.approx(percent, abs=1e-4)
    assert found.known
    assert not found.reason


def test_continuous_where_the_mlp_overtakes() -> None:
    """Two formulas meet at 100."""
    below, above = (feature_contribution(gnn=80, mlp=80 + d, propagation=70).percent for d in (-1e-6, 1e-6))
    assert below == pytest.approx(100, abs=1e-4)
    assert above == pytest.approx(100, abs=1e-4)
    assert below < 100 < above


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((80, 60, 81), "label propagation beats the GNN"),
        ((80, 80, 80), "equally good"),
        ((math.nan, 60, 70), "no accuracy is known for gnn"),
    ],
)
def test_says_why_it_means_nothing(values: tuple[float, float, float], reason: str) -> None:
    """A number that looks like advice and is none would be worse than none."""
    gnn, mlp, propagation = values
    found = feature_contribution(gnn=gnn, mlp=mlp, propagation=propagation)
    assert math.isnan(found.percent)
    assert not found.known
    assert reason in found.reason


def _path() -> GraphData:
    """0 - 1 - 2, and 3 alone; nodes 0 and 3 are labelled with two of three classes."""
    edges = torch.tensor([[0, 1], [1, 2]])
    return GraphData(
        name="path",
        x=torch.ones(5, 2),
        edge_index=torch.cat([edges, edges.flip(0)], 1),
        y=torch.tensor([1, 0, 0, 2, 0]),
        split=Split(torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([2, 4])),
        class_names=("a", "b", "c"),
    )


def test_propagation_by_hand() -> None:
    """Two steps over one path, with both ends' degrees; whom no label reaches gets the shares of the classes."""
    got = label_propagation(_path(), iterations=2, alpha=0.5)
    half = 0.5**0.5
    # step 1: node 1 hears 0.5 * half; step 2: node 0 hears 0.5 * half of that back, node 2 as much.
    torch.testing.assert_close(got[:3, 1], torch.tensor([0.5 + 0.25 * 0.5, 0.5 * half * 0.5, 0.25 * 0.5]))
    torch.testing.assert_close(got[3], torch.tensor([0, 0, 0.5]))
    torch.testing.assert_close(got[4], torch.tensor([0, 0.5, 0.5]))


def test_propagation_reads_training_labels_only(dense_graph: GraphData) -> None:
    """It stands beside the teacher in a ratio that advises: a validation label must not reach it."""
    y = dense_graph.y.clone()
    y[dense_graph.split.val], y[dense_graph.split.test] = 0, 1
    assert torch.equal(label_propagation(dense_graph), label_propagation(replace(dense_graph, y=y)))


def test_classes_of_a_large_graph_are_propagated_in_turn(
    dense_graph: GraphData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not meet, so it makes no difference but to memory."""
    want = label_propagation(dense_graph)
    monkeypatch.setattr("graph2mlp.fcr._NUMBERS", 0)
    monkeypatch.setattr("graph2mlp.fcr._COLUMNS", 2)
    torch.testing.assert_close(label_propagation(dense_graph), want)


def test_propagation_learns_from_edges() -> None:
    """The communities are in the edges: far above chance (1/3)."""
    graph = community_graph()
    connected = graph.split.test[:-1]
    assert float((label_propagation(graph)[connected].argmax(1) == graph.y[connected]).float().mean()) > 0.8


@pytest.mark.parametrize("changed", [{"iterations": 0}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_impossible_settings_are_refused(changed: dict[str, float], dense_graph: GraphData) -> None:
    """With alpha = 1 the labels would be forgotten."""
    with pytest.raises(ConfigError, match="label propagation needs"):
        label_propagation(dense_graph, **changed)  # type: ignore[arg-type]
