"""Positions from the edges: repeatable, and the same whatever the nodes are called."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import Neighbours
from graph2mlp.data.splits import Split, production_split
from graph2mlp.errors import ConfigError, Graph2MLPError
from graph2mlp.structure import ENCODERS, encode_structure
from graph2mlp.structure.laplacian import laplacian_eigenvectors
from tests.graphs import NODES, community_graph


def _permuted(graph: GraphData, order: Tensor) -> GraphData:
    """The same graph after renaming: node i of the result is node `order[i]` of `graph`."""
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    return replace(
        graph, x=graph.x[order], y=graph.y[order], edge_index=position[graph.edge_index],
        split=graph.split.relabel(position), node_ids=torch.arange(len(order)),
    )  # fmt: skip


def _with_isolated_nodes(graph: GraphData, count: int) -> GraphData:
    """`count` further nodes without any edge."""
    return GraphData(
        name="lonely",
        x=torch.cat([graph.x, torch.ones(count, graph.num_features)]),
        edge_index=graph.edge_index,
        y=torch.cat([graph.y, torch.zeros(count, dtype=torch.long)]),
        split=graph.split,
        class_names=graph.class_names,
    )


def _without_edges(graph: GraphData) -> GraphData:
    return replace(graph, edge_index=torch.empty(2, 0, dtype=torch.long))


def test_laplacian_permutes_with_the_nodes(dense_graph: GraphData) -> None:
    """A position must say where a node is, not what it is called; the sign of a column is free."""
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(0))
    rows, known = laplacian_eigenvectors(dense_graph, dim=4, seed=0)
    moved, moved_known = laplacian_eigenvectors(_permuted(dense_graph, order), dim=4, seed=0)
    assert torch.equal(moved_known, known[order])
    for column in range(4):
        want, got = rows[order, column], moved[:, column]
        sign = torch.sign(want @ got)
        torch.testing.assert_close(got * sign, want, atol=1e-4, rtol=0)


def test_isolated_nodes_do_not_eat_dimensions(dense_graph: GraphData) -> None:
    """The trap: with self-loops each isolated node has eigenvalue 1, and 180 of them fill every column."""
    rows, _ = laplacian_eigenvectors(dense_graph, dim=6, seed=0)
    more, known = laplacian_eigenvectors(_with_isolated_nodes(dense_graph, 180), dim=6, seed=0)
    torch.testing.assert_close(more[:NODES], rows)
    assert not bool(known[NODES - 1 :].any())
    assert not bool(more[NODES - 1 :].any())
    assert bool((more[: NODES - 1].norm(dim=1) > 0.99).all())


def test_laplacian_finds_the_communities(dense_graph: GraphData) -> None:
    """The point of it all: the nearest row belongs to the same class far more often than by chance (1/3)."""
    rows, known = laplacian_eigenvectors(dense_graph, dim=3, seed=0)
    near = (rows @ rows.T - 10 * torch.eye(NODES)).argmax(1)
    assert float((dense_graph.y[near] == dense_graph.y)[known].float().mean()) > 0.8


def test_small_graph_leaves_columns_empty(dense_graph: GraphData) -> None:
    """n connected nodes have n - 1 usable eigenvectors; the table keeps its width."""
    path = replace(dense_graph, edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    rows, known = laplacian_eigenvectors(path, dim=8, seed=0)
    assert rows.shape == (NODES, 8)
    assert int(known.sum()) == 3
    assert not bool(rows[:, 2:].any())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_same_seed_same_table(encoder: str, dense_graph: GraphData) -> None:
    """Two runs with one seed agree exactly."""
    first, second = (encode_structure(dense_graph, encoder, dim=4, seed=3, num_nodes=NODES) for _ in range(2))
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(first.known, second.known)
    assert first.width == 4
    assert not bool(first.known[-1])
    assert bool(torch.isfinite(first.rows).all())


def test_eigenvectors_of_a_real_graph_are_repeatable(data_root: Path) -> None:
    """The solver restarts on its observed part, with numbers that newer versions of scipy draw afresh."""
    graph = load_graph("cpf:citeseer", root=data_root, download=False)
    graph = replace(graph, split=production_split(graph.split, 0)).observed()
    first, second = (laplacian_eigenvectors(graph, dim=64, seed=0)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_graph_without_edges_is_refused_clearly(encoder: str, dense_graph: GraphData) -> None:
    """There is no structure to encode; an error from inside gensim or scipy would not say what to do."""
    with pytest.raises(Graph2MLPError, match="nodes with edges"):
        encode_structure(_without_edges(dense_graph), encoder, dim=4, seed=0, num_nodes=NODES)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_unseen_nodes_are_not_in_the_table(encoder: str) -> None:
    """The table covers all ids of the full graph, but says nothing of those that were hidden."""
    graph = community_graph(production=True)
    table = encode_structure(graph.observed(), encoder, dim=4, seed=0, num_nodes=NODES)
    assert table.rows.shape == (NODES, 4)
    assert not bool(table.known[graph.split.unseen].any())
    assert not bool(table.rows[graph.split.unseen].any())


def test_unknown_encoder_suggests(dense_graph: GraphData) -> None:
    """A typing mistake is answered with the nearest name."""
    with pytest.raises(ConfigError, match="Did you mean 'deepwalk'?"):
        encode_structure(dense_graph, "deepwalks", dim=4, seed=0, num_nodes=NODES)


def test_deepwalk_is_the_same_in_every_process() -> None:
    """gensim seeds vectors with a hash of the word, and Python's own hash changes from process to process."""
    code = (
        "from tests.graphs import community_graph as g\n"
        "from graph2mlp.structure.deepwalk import deepwalk\n"
        "print(deepwalk(g(), dim=4, seed=0, length=8, per_node=2)[0].numpy().tobytes().hex())\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),  # noqa: PTH120
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 100


def test_walks_follow_edges_and_end_at_dead_ends() -> None:
    """A walk that jumps would join nodes that are not neighbours."""
    import numpy as np

    from graph2mlp.structure.deepwalk import random_walks

    # 0 -> 1 -> 2, 2 has no way out, 3 is isolated
    ways = Neighbours(torch.tensor([0, 1, 2, 2, 2]), torch.tensor([1, 2]))
    walks = random_walks(ways, length=5, per_node=2, state=np.random.RandomState(0))
    assert sorted(map(tuple, walks.tolist())) == [(0, 1, 2, 2, 2)] * 2 + [(1, 2, 2, 2, 2)] * 2


def test_split_does_not_change_the_positions(dense_graph: GraphData) -> None:
    """Structure comes from edges alone: labels and splits must not enter."""
    other = replace(dense_graph, split=Split(*(torch.arange(a, a + 9) for a in (30, 40, 50))))
    assert torch.equal(
        laplacian_eigenvectors(dense_graph, dim=3, seed=0)[0], laplacian_eigenvectors(other, dim=3, seed=0)[0]
    )
