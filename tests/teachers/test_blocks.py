"""A teacher asked in row blocks says what it says in one pass over the graph."""

from __future__ import annotations

import pytest
import torch

from graph2mlp.evaluation import teacher_answer
from graph2mlp.teachers import blocks
from graph2mlp.teachers.config import TeacherConfig
from graph2mlp.teachers.ensemble import Ensemble
from graph2mlp.teachers.extract import extract_knowledge
from graph2mlp.teachers.models import Teacher, build_teacher
from tests.graphs import community_graph

NAMES = ["sage", "gcn", "appnp", "appnp+gcn+sage"]


def _teacher(name: str, features: int, classes: int, *, aggregator: str = "mean", layers: int = 3) -> Teacher:
    torch.manual_seed(0)
    config = TeacherConfig(name=name, aggregator=aggregator, layers=layers, hidden=16, heads=2)  # type: ignore[arg-type]
    members = [build_teacher(features, classes, one) for one in config.members()]
    return (Ensemble(members) if len(members) > 1 else members[0]).eval()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_say_what_one_pass_says(name: str, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that missed its first row, a column block or a bias would teach every large student something else."""
    graph = community_graph(sparse=sparse, production=True)
    observed = graph.observed()
    teacher = _teacher(name, graph.num_features, graph.num_classes)
    whole, cold = extract_knowledge(teacher, observed, name=name), teacher_answer(teacher, graph, cold=True)
    for constant, value in (("_NUMBERS", 0), ("_ROWS", 7), ("_COLUMNS", 5)):
        monkeypatch.setattr(blocks, constant, value)
    assert blocks.needs_blocks(teacher, observed.num_nodes)
    parts = extract_knowledge(teacher, observed, name=name)
    torch.testing.assert_close(parts.logits, whole.logits, rtol=0, atol=1e-5)
    assert list(parts.hidden) == list(whole.hidden)
    for layer, rows in whole.hidden.items():
        torch.testing.assert_close(parts.hidden[layer], rows, rtol=0, atol=1e-5)
    torch.testing.assert_close(teacher_answer(teacher, graph, cold=True), cold, rtol=0, atol=1e-5)


def test_an_ensemble_of_one_keeps_its_layers_and_its_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several members one joined layer is left; who is alone is there for the frequencies of classes only."""
    graph = community_graph()
    alone = _teacher("sage", graph.num_features, graph.num_classes)
    ensemble = Ensemble([alone]).eval()
    ensemble.scale.fill_(1.5)
    ensemble.shift.copy_(torch.arange(graph.num_classes))
    whole, own = extract_knowledge(ensemble, graph, name="sage"), extract_knowledge(alone, graph, name="sage")
    monkeypatch.setattr(blocks, "_NUMBERS", 0)
    parts = extract_knowledge(ensemble, graph, name="sage")
    torch.testing.assert_close(parts.logits, whole.logits, rtol=0, atol=1e-5)
    assert list(parts.hidden) == list(whole.hidden) == list(own.hidden)
    for layer, rows in own.hidden.items():
        assert torch.equal(whole.hidden[layer], rows)
        torch.testing.assert_close(parts.hidden[layer], rows, rtol=0, atol=1e-5)


def test_the_other_aggregator_has_no_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """SAGE in the form of the papers treats the node as its neighbour; a root weight must not be made up."""
    graph = community_graph()
    teacher = _teacher("sage", graph.num_features, graph.num_classes, aggregator="gcn", layers=2)
    whole = extract_knowledge(teacher, graph, name="sage").logits
    monkeypatch.setattr(blocks, "_NUMBERS", 0)
    torch.testing.assert_close(extract_knowledge(teacher, graph, name="sage").logits, whole, rtol=0, atol=1e-5)


def test_attention_is_asked_in_one_pass_whatever_the_size() -> None:
    """GAT's weights depend on both ends; a block form that ignored this would answer, and wrongly."""
    assert not blocks.needs_blocks(_teacher("gat", 4, 3), 10**9)
    assert not blocks.needs_blocks(_teacher("gat+sage", 4, 3), 10**9)
    assert blocks.needs_blocks(_teacher("sage", 4, 3), 10**7)
