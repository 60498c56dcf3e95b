"""Eigenvectors of large graphs: what the bounded search finds, held against ARPACK where both can be had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.structure import laplacian
from graph2mlp.structure.adjacency import normalised_adjacency
from graph2mlp.structure.laplacian import laplacian_eigenvectors

BLOCKS = 8


def _planted(nodes: int = 3000, isolated: int = 204) -> GraphData:
    """Eight communities whose eigenvalues stand apart from the rest, some pairs with no other edge, lone nodes."""
    rng = np.random.default_rng(0)
    y = np.arange(nodes) % BLOCKS
    source = rng.integers(nodes - isolated - 20, size=nodes * 8)
    step = np.where(rng.random(len(source)) < 0.8, BLOCKS, 1) * rng.integers(1, nodes, size=len(source))
    target = (source + step) % (nodes - isolated - 20)
    pairs = np.arange(nodes - isolated - 20, nodes - isolated).reshape(2, -1)
    ids = torch.arange(nodes)
    return GraphData(
        name="planted",
        x=torch.ones(nodes, 1),
        edge_index=torch.from_numpy(np.concatenate([np.stack([source, target]), pairs], 1)),
        y=torch.from_numpy(y),
        split=Split(ids[:100], ids[100:200], ids[200:]),
        class_names=tuple(map(str, range(BLOCKS))),
    )


def _large(graph: GraphData, monkeypatch: pytest.MonkeyPatch, **options: int) -> tuple[torch.Tensor, torch.Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr(laplacian, "LARGE", 10)
        return laplacian_eigenvectors(graph, **options)


def test_the_span_is_that_of_the_exact_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that amplifies the wrong end of the spectrum, or too little, finds other vectors."""
    graph = _planted()
    # 10 pairs and the whole have value 1, 7 communities stand below: 18 vectors before the bulk.
    dim = 18
    found, known = _large(graph, monkeypatch, dim=dim, seed=0)
    # All of them, by LAPACK: of a value that comes eleven times, ARPACK may miss some.
    adjacency, connected = normalised_adjacency(graph, self_loops=False)
    assert torch.equal(known, connected)
    dense = adjacency.to_dense().double()
    exact = torch.linalg.eigh(dense)[1][:, -dim:].float()
    exact = exact / exact.norm(dim=1, keepdim=True).clamp(min=1e-12)
    # Rows are scaled to length 1 in a basis that may be turned within equal values: compare inner products.
    sample = torch.nonzero(known).squeeze(1)[::7]
    torch.testing.assert_close(found[sample] @ found[sample].T, exact[sample] @ exact[sample].T, rtol=0, atol=0.02)


def test_nodes_without_edges_take_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a self-loop each lone node has value 1 and a vector of its own: communities would be gone from the table."""
    graph = _planted()
    rows, known = _large(graph, monkeypatch, dim=20, seed=0)
    assert not known[-204:].any()
    assert not rows[~known].any()
    main = torch.arange(2000)
    centres = torch.stack([rows[main[graph.y[main] == c]].mean(0) for c in range(BLOCKS)])
    assert ((rows[main] @ centres.T).argmax(1) == graph.y[main]).float().mean() > 0.95


def test_equal_seeds_give_equal_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed builds the table again; other numbers would be another student."""
    graph = _planted()
    one, _ = _large(graph, monkeypatch, dim=8, seed=3)
    two, _ = _large(graph, monkeypatch, dim=8, seed=3)
    assert torch.equal(one, two)


def test_more_columns_than_nodes_with_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large graph whose edges touch few nodes has few directions; what is left must be zeros, not NaN."""
    graph = _planted()
    few = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    rows, known = _large(replace(graph, edge_index=few), monkeypatch, dim=16, seed=0)
    assert rows.shape == (3000, 16)
    assert torch.isfinite(rows).all()
    assert int(known.sum()) == 5
    assert not rows[:, 4:].any()
