"""Weights of edges: how repeats and directions are merged, from every form a user may bring them in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import both_directions, csr_neighbours, symmetric_neighbours
from graph2mlp.errors import DataError
from graph2mlp.fcr import label_propagation
from graph2mlp.graph_facts import advice, fact_rows, graph_facts
from graph2mlp.structure import encode_structure
from graph2mlp.structure.deepwalk import random_walks
from graph2mlp.training.batches import random_neighbours
from tests.graphs import save_npz, weighted_graph
from tests.own_graphs import node_ids, pyg_data, save_folder

# 0 -> 1 twice, 1 -> 0, 2 -> 1, and a self edge, which nobody of ours reads
EDGES = torch.tensor([[0, 1, 2, 0, 2], [1, 0, 1, 1, 2]])
WEIGHT = torch.tensor([0.5, 4.0, 2.0, 1.0, 9.0])


def test_repeats_are_added_up() -> None:
    """In-neighbours by hand: 0 has 1 (4), 1 has 0 (0.5 + 1) and 2 (2)."""
    found = csr_neighbours(EDGES, 4, WEIGHT)
    assert found.pointer.tolist() == [0, 1, 3, 3, 3]
    assert found.ids.tolist() == [1, 0, 2]
    assert found.values().tolist() == [4.0, 1.5, 2.0]
    assert found.strength().tolist() == [4.0, 3.5, 0.0, 0.0]
    looped = csr_neighbours(EDGES, 4, WEIGHT, self_loops=True)
    assert looped.matrix(looped.values()).to_dense().diagonal().tolist() == [1.0] * 4
    assert csr_neighbours(EDGES[:, :0], 3, WEIGHT[:0]).values().tolist() == []


def test_the_larger_direction_counts() -> None:
    """Repeats are added before the directions are compared: 1.5 against 4, not 0.5 and 1 against 4."""
    dense = torch.zeros(4, 4)
    found = symmetric_neighbours(EDGES, 4, WEIGHT)
    dense[found.targets(), found.ids] = found.values()
    assert dense.tolist() == [[0, 4, 0, 0], [4, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    edges, weight = both_directions(EDGES, WEIGHT)
    assert edges.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert weight is not None
    assert weight.tolist() == [4.0, 4.0, 2.0, 2.0, 9.0]


def test_sampling_follows_the_weights() -> None:
    """Node 1 has neighbours of weight 1.5 and 2; nodes without neighbours are their own."""
    found = csr_neighbours(EDGES, 4, WEIGHT)
    draws = torch.tensor([0.0, 1.4 / 3.5, 1.6 / 3.5, 1 - 1e-12], dtype=torch.float64)
    assert found.sample(torch.ones(4, dtype=torch.long), draws).tolist() == [0, 0, 2, 2]
    assert found.sample(torch.tensor([0, 2, 3]), torch.tensor([0.9, 0.9, 0.9])).tolist() == [1, 2, 3]
    drawn = random_neighbours(found, torch.ones(4000, dtype=torch.long), torch.Generator().manual_seed(0))
    assert abs(float((drawn == 2).float().mean()) - 2 / 3.5) < 0.03
    walks = random_walks(found, length=2, per_node=2000, state=np.random.RandomState(0))
    second = walks[walks[:, 0] == 1, 1]
    assert abs((second == 2).mean() - 2 / 3.5) < 0.04


@pytest.mark.parametrize("encoder", ["laplacian", "smoothed", "deepwalk"])
def test_weights_of_one_change_no_table(encoder: str, dense_graph: GraphData) -> None:
    """The weighted formulas are the plain ones, generalised."""
    ones = replace(dense_graph, edge_weight=torch.ones(dense_graph.num_edges))
    plain, same, other = (
        encode_structure(graph, encoder, dim=4, seed=0, num_nodes=61) for graph in (dense_graph, ones, weighted_graph())
    )
    torch.testing.assert_close(same.rows, plain.rows, atol=1e-5, rtol=0)
    assert not torch.allclose(other.rows, plain.rows, atol=1e-2)


def test_an_edge_of_hardly_any_weight_is_hardly_there(dense_graph: GraphData) -> None:
    """Label propagation with a bridge of weight 1e-9 is that of the graph without the bridge."""
    bridge = torch.tensor([[0, 1], [1, 0]])
    edges = torch.cat([dense_graph.edge_index, bridge], 1)
    weight = torch.ones(edges.size(1))
    weight[-2:] = 1e-9
    there = (dense_graph.edge_index[0] == 0) & (dense_graph.edge_index[1] == 1)
    assert not bool(there.any())  # else the bridge would be a repeat
    want = label_propagation(dense_graph)
    torch.testing.assert_close(label_propagation(replace(dense_graph, edge_index=edges, edge_weight=weight)), want)


def _weights(graph: GraphData) -> dict[tuple[int, int], float]:
    assert graph.edge_weight is not None
    return dict(zip(zip(*graph.edge_index.tolist(), strict=True), graph.edge_weight.tolist(), strict=True))


def _npz(graph: GraphData, folder: Path) -> GraphData:
    assert graph.edge_weight is not None
    return load_graph(str(save_npz(graph, folder / "g.npz", edge_weight=graph.edge_weight.double().numpy())))


def _saved(graph: GraphData, folder: Path) -> GraphData:
    return load_graph(str(graph.save(folder / "g.npz")))


def _pt(graph: GraphData, folder: Path) -> GraphData:
    data = pyg_data(graph)
    data.edge_weight = graph.edge_weight.view(-1, 1)
    torch.save(data, folder / "g.pt")
    return load_graph(str(folder / "g.pt"))


def _csv(graph: GraphData, folder: Path) -> GraphData:
    return load_graph(str(save_folder(graph, folder / "g")))


def _parquet(graph: GraphData, folder: Path) -> GraphData:
    return load_graph(str(save_folder(graph, folder / "g", suffix=".parquet")))


def _arrays(graph: GraphData, _folder: Path) -> GraphData:
    split = {"train": range(12), "val": range(12, 24), "test": range(24, 61)}
    return GraphData.from_arrays(graph.x, graph.edge_index, graph.y, edge_weight=graph.edge_weight, **split)


def _dgl(graph: GraphData, _folder: Path) -> GraphData:
    masks = {name: value for name, value in pyg_data(graph).to_dict().items() if name.endswith("mask")}
    ndata = {"feat": graph.x, "label": graph.y, **masks}
    made = SimpleNamespace(edges=lambda: tuple(graph.edge_index), ndata=ndata, edata={"w": graph.edge_weight})
    return GraphData.from_dgl(made, weight="w")


def _networkx(graph: GraphData, _folder: Path) -> GraphData:
    made = nx.DiGraph()
    for node in range(graph.num_nodes):
        part = "train" if node < 12 else "val" if node < 24 else "test"
        made.add_node(node, x=graph.x[node].tolist(), y=int(graph.y[node]), split=part)
    for (source, target), weight in _weights(graph).items():
        made.add_edge(source, target, weight=weight)
    return GraphData.from_networkx(made)


@pytest.mark.parametrize("form", [_npz, _saved, _pt, _csv, _parquet, _arrays, _dgl, _networkx])
def test_every_form_carries_weights(form: Any, tmp_path: Path) -> None:
    """The same weight at the same edge, and nothing said to be left out."""
    graph = weighted_graph()
    made = form(graph, tmp_path)
    assert _weights(made) == pytest.approx(_weights(graph))
    assert not [note for note in made.notes if "not used" in note]


def test_undirected_networkx_with_a_weight_here_and_there() -> None:
    """NetworkX counts an edge without the attribute as 1."""
    made = nx.Graph()
    for node in range(9):
        made.add_node(node, x=[float(node)], y=node % 2, split=("train", "val", "test")[node // 3])
    made.add_edge(0, 1, weight=3)
    made.add_edge(1, 2)
    graph = GraphData.from_networkx(made)
    assert _weights(graph) == {(0, 1): 3, (1, 0): 3, (1, 2): 1, (2, 1): 1}
    made.add_edge(2, 3, weight="heavy")
    with pytest.raises(DataError, match="'weight' must be a number"):
        GraphData.from_networkx(made)


def test_weights_follow_their_edges(tmp_path: Path) -> None:
    """Into the observed graph, through `--undirected`, and into the fingerprint."""
    graph = weighted_graph(production=True)
    seen, every = graph.observed(), _weights(graph)
    ids = seen.node_ids.tolist()
    assert seen.num_edges < graph.num_edges
    assert {(ids[a], ids[b]): w for (a, b), w in _weights(seen).items()}.items() <= every.items()
    assert replace(graph, edge_weight=None).fingerprint() != graph.fingerprint()
    half = graph.edge_index[0] < graph.edge_index[1]
    file = weighted_graph().with_edges(half).save(tmp_path / "half.npz")
    assert _weights(load_graph(str(file), undirected=True)) == pytest.approx(
        {ends: every[min(ends), max(ends)] for ends in every}
    )


def test_inspect_tells_the_scale() -> None:
    """A self-loop weighs 1: weights of 1000 would drown it, and nobody would know why."""
    graph = weighted_graph()
    rows = dict(fact_rows(graph, graph_facts(graph)))
    assert graph.edge_weight is not None
    same = graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]
    share = float(graph.edge_weight[same].sum() / graph.edge_weight.sum())
    assert f"{share:.2f} of the edges' weight joins equal labels" in rows["homophily"]
    assert f"{float(same.float().mean()):.2f}" not in rows["homophily"]
    assert rows["weights"].startswith("0.226 to 4.98")
    heavy = replace(graph, edge_weight=_scaled(graph, 1000))
    assert any("mean near 1" in line for line in advice(heavy, graph_facts(heavy)))
    assert not any("mean near 1" in line for line in advice(graph, graph_facts(graph)))


def _scaled(graph: GraphData, factor: float) -> Tensor:
    assert graph.edge_weight is not None
    return graph.edge_weight * factor


def test_names_of_nodes_meet_their_weights(tmp_path: Path) -> None:
    """Edges in a table are in the order of the table, whatever the ids."""
    graph = weighted_graph()
    folder = save_folder(graph, tmp_path / "g", ids=node_ids(61)[::-1])
    assert _weights(load_graph(str(folder))) == pytest.approx(_weights(graph))
