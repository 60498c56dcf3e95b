"""The teacher's answers in the table: the formula, what is left out, and other kinds of answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.targets import Labels, Quantities
from graph2mlp.structure import encode_structure
from graph2mlp.structure.answers import with_answers
from graph2mlp.structure.table import StructureTable
from tests.graphs import NODES, community_graph, task_graph, weighted_graph


def _logits(columns: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(NODES, columns, generator=torch.Generator().manual_seed(seed))


def _table(graph: GraphData) -> StructureTable:
    return encode_structure(graph, "laplacian", dim=4, seed=0, num_nodes=NODES)


def _by_hand(graph: GraphData, answers: Tensor) -> Tensor:
    """Dense: weights of edges in both directions, the larger where they differ, and a self-loop of weight 1."""
    adjacency = torch.zeros(NODES, NODES)
    weight = torch.ones(graph.edge_index.size(1)) if graph.edge_weight is None else graph.edge_weight
    for (source, target), one in zip(graph.edge_index.T.tolist(), weight.tolist(), strict=True):
        adjacency[source, target] = adjacency[target, source] = max(one, float(adjacency[source, target]))
    adjacency.fill_diagonal_(1)
    degree = adjacency.sum(1)
    share = adjacency / (degree[:, None] * degree[None]).sqrt()
    return (share @ answers) / share.sum(1, keepdim=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_formula(weighted: bool, tiny_graph: GraphData) -> None:
    """Beside the columns of the encoder, and rows that are still probabilities."""
    graph = weighted_graph() if weighted else tiny_graph
    table = _table(graph)
    found = with_answers(table, graph, [_logits()], most=8, seed=0)
    assert found.encoder == "laplacian+answers"
    assert torch.equal(found.rows[:, :4], table.rows)
    assert torch.equal(found.known, table.known)
    want = _by_hand(graph, _logits().softmax(1))
    torch.testing.assert_close(found.rows[found.known, 4:], want[found.known])
    torch.testing.assert_close(found.rows[found.known, 4:].sum(1), torch.ones(int(found.known.sum())))


def test_what_the_table_does_not_know_stays_empty(tiny_graph: GraphData) -> None:
    """A node without edges is asked as a new one without neighbours is."""
    lone = ~((tiny_graph.edge_index == 5).any(0))
    graph = tiny_graph.with_edges(lone)
    found = with_answers(_table(graph), graph, [_logits()], most=8, seed=0)
    assert not found.known[5]
    assert not found.rows[5].any()


def test_unseen_nodes_have_no_row_and_hear_of_their_neighbours() -> None:
    """The rows of the knowledge are those of the observed graph, whose ids have gaps."""
    graph = community_graph(production=True)
    observed = graph.observed()
    said = _logits()[observed.node_ids]
    found = with_answers(_table(observed), observed, [said], most=8, seed=0)
    assert not found.rows[graph.split.unseen].any()
    new = graph.split.unseen[0]
    near = graph.edge_index[0][graph.edge_index[1] == new]
    near = near[found.known[near]]
    assert len(near)
    torch.testing.assert_close(found.for_nodes(graph, new[None])[0], found.rows[near].mean(0))


def test_several_teachers_are_averaged(tiny_graph: GraphData) -> None:
    """Their probabilities, not their logits."""
    both = [_logits(seed=1), _logits(seed=2)]
    found = with_answers(_table(tiny_graph), tiny_graph, both, most=8, seed=0)
    want = _by_hand(tiny_graph, (both[0].softmax(1) + both[1].softmax(1)) / 2)
    torch.testing.assert_close(found.rows[found.known, 4:], want[found.known])


def test_other_kinds_of_answers() -> None:
    """Each label's probability; quantities without their unit."""
    labels = task_graph("multilabel")
    assert isinstance(labels.targets, Labels)
    found = with_answers(_table(labels), labels, [_logits()], most=8, seed=0)
    torch.testing.assert_close(found.rows[found.known, 4:], _by_hand(labels, _logits().sigmoid())[found.known])
    quantities = task_graph("regression")
    scale = quantities.targets
    assert isinstance(scale, Quantities)
    said = scale.center + scale.spread * _logits(2, seed=4)
    found = with_answers(_table(quantities), quantities, [said], most=8, seed=0)
    torch.testing.assert_close(
        found.rows[found.known, 4:], _by_hand(quantities, _logits(2, seed=4))[found.known], rtol=1e-4, atol=1e-4
    )


def test_many_classes_become_their_leading_directions(tiny_graph: GraphData) -> None:
    """As near to the whole as so many columns can be, the same every time, and no draw of anybody else's is moved."""
    logits = 4 * _logits(3) @ _logits(40, seed=1)[:3]  # three directions matter
    whole = with_answers(_table(tiny_graph), tiny_graph, [logits], most=40, seed=0).rows[:, 4:]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    turned = with_answers(_table(tiny_graph), tiny_graph, [logits], most=6, seed=0).rows[:, 4:]
    assert torch.equal(torch.rand(1), expected)
    assert turned.size(1) == 6
    again = with_answers(_table(tiny_graph), tiny_graph, [logits], most=6, seed=0).rows[:, 4:]
    assert torch.equal(turned, again)
    best = torch.linalg.svdvals(whole)[:6].square().sum()
    assert float(turned.square().sum() / best) == pytest.approx(1, rel=1e-3)
