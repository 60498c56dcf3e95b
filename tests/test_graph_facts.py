"""`inspect GRAPH`: figures by hand on a small graph, and advice that follows from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.graph_facts import advice, fact_rows, graph_facts
from tests.cli import invoke
from tests.graphs import NODES, community_graph
from tests.own_graphs import save_folder


def _with_edges(pairs: list[tuple[int, int]]) -> GraphData:
    edges = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()
    return replace(community_graph(), edge_index=edges)


def test_figures_by_hand() -> None:
    """Labels are 0, 1, 2, 0, ...: of the edges 0-3 (both ways), 1-4, 0-1 and repeats, two of three kinds are equal."""
    graph = _with_edges([(0, 3), (3, 0), (1, 4), (0, 1), (0, 1), (2, 2)])
    facts = graph_facts(graph)
    assert (facts.self_edges, facts.repeated) == (1, 1)
    assert facts.one_way == pytest.approx(2 / 4)
    assert facts.homophily == pytest.approx(3 / 4)
    assert facts.isolated == NODES - 4, "a self edge alone leaves node 2 isolated"
    assert facts.mean_degree == pytest.approx(4 / NODES)
    assert facts.degrees[0] == facts.degrees[2] == 0
    assert facts.degrees[-1] == 1
    assert facts.chance == pytest.approx((21**2 + 20**2 + 20**2) / 61**2)
    assert facts.density == pytest.approx(int((graph.x != 0).sum()) / graph.x.numel())


def test_sparse_and_dense_agree() -> None:
    """The layout of the features is no property of the graph."""
    dense, sparse = graph_facts(community_graph()), graph_facts(community_graph(sparse=True))
    assert replace(dense, constant=0) == replace(sparse, constant=0)


def test_unknown_labels_do_not_count_as_a_class() -> None:
    """-1 equals -1, but two unknown labels are not equal classes."""
    graph = community_graph()
    y = graph.y.clone()
    y[24:] = -1
    facts = graph_facts(replace(graph, y=y))
    assert facts.labelled == 24
    assert sum(facts.class_sizes) == 24


def _advice(graph: GraphData) -> str:
    return " ".join(advice(graph, graph_facts(graph)))


def test_advice_follows_the_figures() -> None:
    """The same lines for every graph would be no advice."""
    good = community_graph()
    assert "structure pays" in _advice(good)
    assert "--undirected" not in _advice(good)
    source, target = good.edge_index
    assert "--undirected" in _advice(replace(good, edge_index=good.edge_index[:, source < target]))
    across = [(i, j) for i in range(60) for j in range(60) if i % 3 != j % 3]
    assert "plain MLP may beat" in _advice(_with_edges(across))
    none = _with_edges([])
    assert "nothing to distill" in _advice(none)
    assert math.isnan(graph_facts(none).homophily)
    assert any("unknown" in value for _name, value in fact_rows(none, graph_facts(none)))
    few = _with_edges([(0, 3), (3, 0)])
    assert "cold start" in _advice(few)
    assert "self edges" in _advice(_with_edges([(0, 0), (1, 4)]))
    assert "above 100" in _advice(replace(good, x=good.x * 1000))
    assert "stay sparse" in _advice(community_graph(sparse=True))
    x = good.x.clone()
    x[:, 3] = 7
    assert "1 features have one value" in _advice(replace(good, x=x))
    split = replace(good.split, train=good.split.train[good.y[good.split.train] != 2])
    assert "without a training node (c)" in _advice(replace(good, split=split))
    for nodes, told in ((18, True), (19, False), (12, False)):  # six of each class; one more of one; four
        split = Split(train=torch.arange(nodes), val=torch.arange(20, 30), test=torch.arange(30, NODES))
        assert ("teacher.frequencies" in _advice(replace(good, split=split))) is told


def test_inspect_prints_facts_and_advice(tmp_path: Path) -> None:
    """From the command line, of a folder and of a graph known by name."""
    done = invoke("inspect", save_folder(community_graph(), tmp_path / "mine"))
    assert done.exit_code == 0, done.output
    for word in ("user-0", "61", "homophily", "isolated", "structure pays"):
        assert word in done.stdout, done.stdout
    done = invoke("inspect", "digits")
    assert done.exit_code == 0, done.output
    assert "1,797" in done.stdout
