"""What a device sends for a node."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.structure.requests import neighbour_requests
from graph2mlp.structure.table import PAD, StructureTable
from tests.graphs import community_graph


@pytest.fixture
def graph() -> GraphData:
    """Unseen: 50 with three in-neighbours, 51 with none, 60 with one that is unseen itself."""
    base = community_graph()
    edges = torch.tensor([[4, 2, 9, 50, 50], [50, 50, 50, 1, 60]])
    split = Split(torch.arange(3), torch.arange(3, 6), torch.arange(6, 50), torch.tensor([50, 51, 60]))
    return replace(base, edge_index=edges, split=split)


def test_observed_nodes_ask_for_themselves(graph: GraphData) -> None:
    """One column, whatever their degree."""
    assert neighbour_requests(graph, torch.tensor([1, 50 - 1, 0])).tolist() == [[1], [49], [0]]


def test_unseen_nodes_send_their_in_neighbours(graph: GraphData) -> None:
    """Mixed batches are padded to the longest list; an unseen node never asks for itself."""
    got = neighbour_requests(graph, torch.tensor([1, 50, 51, 60]))
    assert got.tolist() == [[1, PAD, PAD], [2, 4, 9], [PAD] * 3, [50, PAD, PAD]]


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("ids", [[1, 50, 51, 60, 4, 59], [51, 60], [], [0]])
def test_a_table_answers_nodes_as_it_answers_their_requests(
    ids: list[int], cold: bool, graph: GraphData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the padded array, which one node with many neighbours makes wide for all; nor do parts change a bit."""
    rows = torch.randn(61, 5, generator=torch.Generator().manual_seed(0))
    known = torch.ones(61, dtype=torch.bool)
    known[[50, 51, 60, 2, 59]] = False
    rows[~known] = 0
    table, nodes = StructureTable("made up", rows, known), torch.tensor(ids, dtype=torch.long)
    requests = neighbour_requests(graph, nodes, cold=cold)
    whole = table.for_unseen(requests)
    torch.testing.assert_close(table.for_nodes(graph, nodes, cold=cold), whole)
    monkeypatch.setattr("graph2mlp.structure.table._NUMBERS", 6)
    assert torch.equal(table.for_unseen(requests), whole)


def test_cold_requests_carry_no_edges(graph: GraphData) -> None:
    """The cold start: a node of which nothing but its features is known."""
    assert neighbour_requests(graph, torch.tensor([1, 50]), cold=True).tolist() == [[PAD], [PAD]]


def test_nobody_has_neighbours(graph: GraphData) -> None:
    """A graph without edges still needs requests of at least one column."""
    lonely = replace(graph, edge_index=torch.empty(2, 0, dtype=torch.long))
    assert neighbour_requests(lonely, torch.tensor([50, 60])).tolist() == [[PAD], [PAD]]
