"""Smoothed features, against the decomposition of the matrix that the code never forms; joined tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from graph2mlp.config import StructureConfig
from graph2mlp.data.features import sparse_csr
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split
from graph2mlp.errors import ConfigError, DataError
from graph2mlp.structure import encode_structure, smoothed, tall
from graph2mlp.structure.smoothed import smoothed_features
from graph2mlp.structure.table import PAD
from tests.graphs import FEATURES, NODES, community_graph


@pytest.fixture(autouse=True, params=["as a small graph", "as a large graph"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every promise holds for both ways to make a basis, the one in blocks over some rows at a time."""
    if request.param == "as a large graph":
        monkeypatch.setattr(smoothed, "LARGE", 2)
        monkeypatch.setattr(smoothed, "_COLUMNS", 3)
        monkeypatch.setattr(tall, "_ROWS", 16)


@pytest.fixture(params=["dense", "sparse", "wide"])
def graph(request: pytest.FixtureRequest) -> GraphData:
    """`wide` has more features than the search has columns, so that it has to converge."""
    if request.param != "wide":
        return community_graph(sparse=request.param == "sparse")
    base = community_graph()
    noise = torch.rand(NODES, 40, generator=torch.Generator().manual_seed(0)) < 0.2
    return replace(base, x=torch.cat([base.x, noise.float()], 1).to_sparse_csr())


def _explicit(graph: GraphData) -> np.ndarray:
    """`A^2 X` by the book, in float64; nodes without edges are zero."""
    adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
    adjacency[tuple(graph.edge_index.numpy())] = 1
    adjacency = np.maximum(adjacency, adjacency.T)
    connected = adjacency.any(1)
    adjacency += np.eye(graph.num_nodes)
    scale = adjacency.sum(1) ** -0.5
    adjacency *= scale[:, None] * scale
    x = graph.x.to_dense().double().numpy()
    if graph.is_sparse:
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    else:
        x = (x - x.mean(0)) / x.std(0, ddof=1)
    return adjacency @ adjacency @ x * connected[:, None]


def _with_isolated_nodes(graph: GraphData, count: int) -> GraphData:
    return replace(
        graph,
        x=torch.cat([graph.x.to_dense(), torch.ones(count, graph.num_features)]).to_sparse_csr(),
        y=torch.cat([graph.y, torch.zeros(count, dtype=torch.long)]),
        node_ids=torch.arange(graph.num_nodes + count),
    )


def _path(first: int, nodes: int) -> Tensor:
    source = torch.arange(first, first + nodes - 1)
    return torch.cat([torch.stack([source, source + 1]), torch.stack([source + 1, source])], 1)


def _with_wordless_component() -> GraphData:
    """The last four nodes form a path of their own and have no features."""
    graph = community_graph(sparse=True)
    x = graph.x.to_dense()
    x[-4:] = 0
    edges = torch.cat([graph.edge_index[:, (graph.edge_index < NODES - 4).all(0)], _path(NODES - 4, 4)], 1)
    return replace(graph, x=x.to_sparse_csr(), edge_index=edges)


def _up_to_sign(rows: Tensor, want: Tensor) -> Tensor:
    return rows * torch.sign((rows * want).sum(0))


def test_rows_are_the_singular_vectors(graph: GraphData) -> None:
    """The point of it all: left vectors times values, rows of length 1, in the order of the values."""
    left, values, _ = np.linalg.svd(_explicit(graph), full_matrices=False)
    want = torch.from_numpy(left[:, :5] * values[:5]).float()
    rows, known = smoothed_features(graph, dim=5, seed=0)
    want = torch.nn.functional.normalize(want, dim=1) * known.unsqueeze(1)
    torch.testing.assert_close(_up_to_sign(rows, want), want, atol=2e-3, rtol=0)
    assert known.tolist() == [True] * (NODES - 1) + [False]


def test_columns_are_orthogonal_before_rows_are_scaled(graph: GraphData) -> None:
    """Two columns that lean on each other would say the same thing twice; undoing the lengths shows it."""
    matrix = _explicit(graph)
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    rows, _known = smoothed_features(graph, dim=4, seed=0)
    length = np.linalg.norm(left[:, :4] * values[:4], axis=1, keepdims=True)
    unscaled = rows.double().numpy() * length
    np.testing.assert_allclose(unscaled.T @ unscaled, np.diag(values[:4] ** 2), atol=2e-3 * values[0] ** 2)


def test_seed_only_starts_the_search(graph: GraphData) -> None:
    """The search has converged, and signs are fixed: another seed must not flip or turn the table."""
    rows, known = smoothed_features(graph, dim=4, seed=0)
    torch.testing.assert_close(rows[known].norm(dim=1), torch.ones(NODES - 1))
    torch.testing.assert_close(smoothed_features(graph, dim=4, seed=9)[0], rows, atol=2e-3, rtol=0)


def test_rows_permute_with_the_nodes(graph: GraphData) -> None:
    """A position must say where a node is, not what it is called."""
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(0))
    position = torch.empty_like(order)
    position[order] = torch.arange(NODES)
    x = graph.x.to_dense()[order]
    moved = replace(
        graph, x=x.to_sparse_csr() if graph.is_sparse else x, y=graph.y[order], edge_index=position[graph.edge_index],
        split=graph.split.relabel(position),
    )  # fmt: skip
    rows, known = smoothed_features(graph, dim=4, seed=0)
    moved_rows, moved_known = smoothed_features(moved, dim=4, seed=0)
    assert torch.equal(moved_known, known[order])
    torch.testing.assert_close(moved_rows, rows[order], atol=1e-3, rtol=0)


def test_same_seed_same_rows(graph: GraphData) -> None:
    """Bit for bit: a student trained on one table is exported with it, and runs are compared."""
    first, second = (smoothed_features(graph, dim=4, seed=3) for _ in range(2))
    assert torch.equal(first[0], second[0])


def test_directions_and_labels_do_not_matter(dense_graph: GraphData) -> None:
    """An edge stored one way is an edge; classes of held-out nodes must have no way in."""
    source, target = dense_graph.edge_index
    half = replace(
        dense_graph,
        edge_index=dense_graph.edge_index[:, source < target],
        y=torch.zeros_like(dense_graph.y),
        split=Split(*(torch.arange(a, a + 9) for a in (30, 40, 50))),
    )
    assert torch.equal(smoothed_features(half, dim=4, seed=0)[0], smoothed_features(dense_graph, dim=4, seed=0)[0])


def test_units_of_the_features_do_not_matter(dense_graph: GraphData) -> None:
    """A dense column in millimetres, or one counted from another zero, must not take over; nor a long document."""
    rows, _ = smoothed_features(dense_graph, dim=4, seed=0)
    units = 10.0 ** (torch.arange(FEATURES) % 4)
    other = replace(dense_graph, x=dense_graph.x * units + 3)
    torch.testing.assert_close(smoothed_features(other, dim=4, seed=0)[0], rows, atol=1e-3, rtol=0)
    sparse = replace(dense_graph, x=dense_graph.x.to_sparse_csr())
    longer = replace(sparse, x=(dense_graph.x * (1 + torch.arange(NODES).unsqueeze(1))).to_sparse_csr())
    torch.testing.assert_close(
        smoothed_features(longer, dim=4, seed=0)[0], smoothed_features(sparse, dim=4, seed=0)[0], atol=1e-3, rtol=0
    )


def test_isolated_nodes_are_left_out() -> None:
    """The trap: nothing averages them, so that 180 of them outweigh everybody else in the leading columns."""
    graph = community_graph(sparse=True)
    rows, _ = smoothed_features(graph, dim=4, seed=0)
    more, known = smoothed_features(_with_isolated_nodes(graph, 180), dim=4, seed=0)
    torch.testing.assert_close(more[:NODES], rows, atol=1e-4, rtol=0)
    assert not bool(known[NODES - 1 :].any())
    assert not bool(more[NODES - 1 :].any())


def test_isolated_and_new_nodes_are_asked_alike() -> None:
    """Neither has an edge; the student met the first in training, which is why it can answer for the second."""
    table = encode_structure(community_graph(sparse=True), "smoothed", dim=4, seed=0, num_nodes=NODES)
    isolated, cold = table.for_unseen(torch.tensor([[NODES - 1], [PAD]]))
    assert torch.equal(isolated, cold)
    assert torch.equal(isolated, table.for_known(torch.tensor([NODES - 1]))[0])


def test_surroundings_without_features_are_not_known() -> None:
    """Rounding scaled to length 1 would be a random direction, and would enter the means of new nodes."""
    rows, known = smoothed_features(_with_wordless_component(), dim=4, seed=0)
    assert not bool(known[-4:].any())
    assert not bool(rows[-4:].any())
    assert bool(known[:-4].all())


@pytest.mark.parametrize(("rank", "dim"), [(FEATURES, 20), (2, 6)])
def test_small_rank_leaves_columns_empty(rank: int, dim: int) -> None:
    """There are no further directions: rounding must not fill the columns, and the table keeps its width."""
    graph = community_graph()
    x = (graph.x[:, :rank] @ torch.rand(rank, FEATURES, generator=torch.Generator().manual_seed(0))).to_sparse_csr()
    rows, _known = smoothed_features(replace(graph, x=x), dim=dim, seed=0)
    assert rows.shape == (NODES, dim)
    assert bool((rows[:, :rank].abs().sum(0) > 0).all())
    assert not bool(rows[:, rank:].any())


def test_nothing_of_nodes_times_features_is_formed() -> None:
    """Here A^2 X would take 160 GB: the promise is that memory grows with edges, words and columns only."""
    nodes = 200_000
    ids = torch.arange(nodes)
    words = sparse_csr(torch.arange(nodes + 1), ids, torch.ones(nodes), (nodes, nodes))
    graph = GraphData(
        name="long", x=words, edge_index=_path(0, nodes), y=ids % 2, class_names=("a", "b"),
        split=Split(ids[:4], ids[4:8], ids[8:]),
    )  # fmt: skip
    rows, _known = smoothed_features(graph, dim=2, seed=0)
    assert rows.shape == (nodes, 2)


@pytest.mark.parametrize("sparse", [False, True])
def test_features_that_say_nothing_are_refused(sparse: bool) -> None:
    """A table of NaN, or of rounding, would be found out much later, by a student that learns nothing."""
    graph = community_graph()
    x = torch.zeros_like(graph.x).to_sparse_csr() if sparse else torch.full_like(graph.x, 0.1)
    with pytest.raises(DataError, match="'tiny' are zero, or the same.*structure.encoder=laplacian"):
        smoothed_features(replace(graph, x=x), dim=4, seed=0)


def test_two_connected_nodes_are_too_few(dense_graph: GraphData) -> None:
    """The same limit and the same words as for eigenvectors."""
    pair = replace(dense_graph, edge_index=torch.tensor([[0], [1]]))
    with pytest.raises(DataError, match="has 2 nodes with edges; structure needs at least 3"):
        smoothed_features(pair, dim=4, seed=0)


@pytest.mark.parametrize(
    ("encoder", "dim", "widths"),
    [
        ("laplacian+smoothed", 6, [3, 3]),
        ("smoothed+laplacian", 5, [3, 2]),
        ("deepwalk+laplacian+smoothed", 8, [3, 3, 2]),
    ],
)
def test_joined_tables_stand_side_by_side(encoder: str, dim: int, widths: list[int], tiny_graph: GraphData) -> None:
    """Each part must be what it is alone, so that one can tell what it adds; left-over columns go first."""
    table = encode_structure(tiny_graph, encoder, dim=dim, seed=0, num_nodes=NODES)
    assert table.encoder == encoder
    assert table.width == dim
    for name, width, part in zip(encoder.split("+"), widths, table.rows.split(widths, 1), strict=True):
        alone = encode_structure(tiny_graph, name, dim=width, seed=0, num_nodes=NODES)
        assert torch.equal(part, alone.rows)


def test_a_node_is_known_when_one_part_knows_it() -> None:
    """Edges among documents without words still say where the node is."""
    table = encode_structure(_with_wordless_component(), "laplacian+smoothed", dim=8, seed=0, num_nodes=NODES)
    assert bool(table.known[-4:].all())
    assert not bool(table.rows[-4:, 4:].any())


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("laplacian+smoohted", "Unknown encoder 'smoohted'.*Did you mean 'smoothed'?"),
        ("laplacian+", "Unknown encoder ''.*Known: deepwalk, laplacian, smoothed"),
        ("smoothed+laplacian+smoothed", "names a part twice"),
    ],
)
def test_wrong_joins_are_refused(encoder: str, message: str) -> None:
    """Said when the settings are read, before a teacher has been trained."""
    with pytest.raises(ConfigError, match=message):
        StructureConfig(encoder=encoder)


def test_every_part_needs_a_column() -> None:
    """A part of width 0 would fail inside scipy."""
    with pytest.raises(ConfigError, match="at least 2 with encoder 'laplacian\\+smoothed' \\(got 1\\)"):
        StructureConfig(encoder="laplacian+smoothed", dim=1)
    assert StructureConfig(encoder="laplacian+smoothed", dim=2).dim == 2
