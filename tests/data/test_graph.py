"""`GraphData` is the only gate for input: what is wrong must be said here, in one clear line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from graph2mlp.data.features import dense_rows
from graph2mlp.data.graph import HIDDEN_LABEL, GraphData
from graph2mlp.data.neighbours import csr_neighbours
from graph2mlp.data.splits import Split
from graph2mlp.errors import DataError
from tests.graphs import NODES, community_graph, task_graph


def _with_value(value: float, *, sparse: bool) -> GraphData:
    """The tiny graph with one bad feature."""
    graph = community_graph(sparse=sparse)
    x = graph.x.to_dense().clone()
    x[3, 2] = value
    return replace(graph, x=x.to_sparse_csr() if sparse else x)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "features of another type": ({"x": torch.ones(NODES, 3, dtype=torch.float64)}, "must be float32"),
    "features of one dimension": ({"x": torch.ones(NODES)}, "must be float32"),
    "no features": ({"x": torch.ones(NODES, 0)}, "empty"),
    "edges the wrong way round": ({"edge_index": torch.zeros(7, 2, dtype=torch.long)}, "int64 \\[2, edges\\]"),
    "edges as int32": ({"edge_index": torch.zeros(2, 3, dtype=torch.int32)}, "int64"),
    "an edge beyond the nodes": ({"edge_index": torch.tensor([[0], [NODES]])}, f"names node {NODES}"),
    "a negative node": ({"edge_index": torch.tensor([[0], [-2]])}, "names node -2"),
    "too few labels": ({"y": torch.zeros(NODES - 1, dtype=torch.long)}, f"int64 \\[{NODES}\\]"),
    "labels as numbers": ({"y": torch.zeros(NODES)}, "labels must be"),
    "a label beyond the classes": ({"y": torch.full((NODES,), 3)}, "got 3 to 3"),
    "a label below -1": ({"y": torch.full((NODES,), -2)}, "-2"),
    "one class": ({"class_names": ("a",), "y": torch.zeros(NODES, dtype=torch.long)}, "at least 2 classes"),
    "two classes of one name": ({"class_names": ("a", "b", "a")}, "two classes are called 'a', so .* Rename one"),
    "names that no bundle holds": ({"names": np.arange(NODES) / 2}, "names of nodes must be int64 or text"),
    "no labelled training node": (
        {"y": torch.full((NODES,), HIDDEN_LABEL)},
        "'tiny': 24 of 24 training or validation nodes have no label, such as node 0. Label them, or",
    ),
    "an unlabelled validation node": (
        {"y": torch.arange(NODES).remainder(3).index_fill(0, torch.tensor(13), HIDDEN_LABEL)},
        "1 of 24 training or validation nodes have no label, such as node 13",
    ),
    "a split beyond the nodes": (
        {"split": Split(torch.tensor([NODES]), torch.tensor([1]), torch.tensor([2]))},
        f"names node {NODES}",
    ),
    "a node in two parts": (
        {"split": Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([0]))},
        "more than once",
    ),
    "a node twice in a part": (
        {"split": Split(torch.tensor([0, 0]), torch.tensor([1]), torch.tensor([2]))},
        "more than once",
    ),
    "a mask as a split": ({"split": Split(torch.ones(NODES).bool(), torch.tensor([1]), torch.tensor([2]))}, "int64"),
    "no training node": ({"split": Split(torch.tensor([]).long(), torch.tensor([1]), torch.tensor([2]))}, "'train'"),
    "no validation node": ({"split": Split(torch.tensor([1]), torch.tensor([]).long(), torch.tensor([2]))}, "'val'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_graphs_are_refused(name: str, dense_graph: GraphData) -> None:
    """Each of these would train on nonsense or crash much later, far from its cause."""
    change, message = BAD[name]
    with pytest.raises(DataError, match=message):
        replace(dense_graph, **change)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_must_be_finite(value: float, sparse: bool) -> None:
    """One NaN turns the whole network into NaN after the first step."""
    with pytest.raises(DataError, match="1 feature values are NaN or infinite"):
        _with_value(value, sparse=sparse)


def test_names_of_features_stay_when_nodes_go() -> None:
    """What training sees is cut from the graph; the features are the same."""
    graph = replace(community_graph(production=True), feature_names=tuple("abcdefghijkl"))
    assert graph.observed().feature_names == graph.feature_names
    assert graph.observed().num_nodes < graph.num_nodes
    assert graph.fingerprint() == community_graph(production=True).fingerprint(), "a name changes no answer"


def test_sizes_and_rows(tiny_graph: GraphData) -> None:
    """The properties are what everything else is built from."""
    assert (tiny_graph.num_nodes, tiny_graph.num_features, tiny_graph.num_classes) == (61, 12, 3)
    assert tiny_graph.num_edges == tiny_graph.edge_index.size(1) > 100
    ids = torch.tensor([60, 5, 5])
    assert torch.equal(dense_rows(tiny_graph.features(ids)), tiny_graph.x.to_dense()[ids])
    assert torch.equal(tiny_graph.node_ids, torch.arange(61))


@pytest.mark.parametrize("sparse", [False, True])
def test_observed_hides_what_training_must_not_see(sparse: bool) -> None:
    """Unseen nodes are gone with all their edges; labels are left on train and val only."""
    graph = community_graph(sparse=sparse, production=True)
    seen = graph.observed()
    unseen = set(graph.split.unseen.tolist())
    assert len(unseen) == int(0.2 * 37)
    assert seen.num_nodes == graph.num_nodes - len(unseen)
    assert not unseen & set(seen.node_ids.tolist())
    assert torch.equal(seen.x.to_dense(), graph.x.to_dense()[seen.node_ids])
    # Edges, named by their ids in the full graph: exactly those between two observed nodes.
    want = {pair for pair in zip(*graph.edge_index.tolist(), strict=True) if not unseen & set(pair)}
    assert set(zip(*seen.node_ids[seen.edge_index].tolist(), strict=True)) == want
    for part in ("train", "val", "test"):
        assert torch.equal(seen.node_ids[getattr(seen.split, part)], getattr(graph.split, part))
    labelled = torch.cat([seen.split.train, seen.split.val])
    assert torch.equal(seen.y[labelled], graph.y[seen.node_ids[labelled]])
    assert bool((seen.y[seen.split.test] == HIDDEN_LABEL).all())
    assert not seen.split.unseen.numel()


def test_a_graph_is_printed_in_a_line() -> None:
    """As what it is, in the words of its task; hidden nodes show where there are some."""
    edges = community_graph().num_edges
    whole = f"GraphData('tiny', 61 nodes, {edges} edges, 12 features, 3 classes, train 12, val 12, test 37)"
    assert repr(community_graph()) == str(community_graph()) == whole
    assert repr(community_graph(production=True)).endswith("test 30, unseen 7)")
    assert "2 quantities" in repr(task_graph("regression"))


def test_observed_of_observed_keeps_the_first_ids() -> None:
    """Ids are global: a cut of a cut must not number the nodes anew."""
    seen = community_graph(production=True).observed()
    assert torch.equal(seen.observed().node_ids, seen.node_ids)


def test_fingerprint_follows_everything_a_teacher_reads(tiny_graph: GraphData) -> None:
    """It names cached teachers: two different graphs must never share one, and equal ones must."""
    base = tiny_graph.observed()
    assert base.fingerprint() == tiny_graph.observed().fingerprint()
    y = tiny_graph.y.clone()
    y[0] = 1
    x = tiny_graph.x.to_dense().clone()
    x[7] += 1
    split = replace(tiny_graph.split, val=tiny_graph.split.val[:-1])
    changed = [
        replace(tiny_graph, y=y),
        replace(tiny_graph, x=x.to_sparse_csr() if tiny_graph.is_sparse else x),
        replace(tiny_graph, split=split),
        replace(tiny_graph, edge_index=tiny_graph.edge_index[:, 1:]),
    ]
    assert len({graph.observed().fingerprint() for graph in [base, *changed]}) == 5


def test_fingerprint_of_the_observed_graph_ignores_test_labels(dense_graph: GraphData) -> None:
    """A teacher does not read them, so it need not be trained again when they change."""
    y = dense_graph.y.clone()
    y[dense_graph.split.test] = 0
    assert replace(dense_graph, y=y).observed().fingerprint() == dense_graph.observed().fingerprint()


def test_csr_neighbours() -> None:
    """In-neighbours, ascending, without self-loops and repeats; nodes without edges have an empty list."""
    edges = torch.tensor([[2, 0, 2, 1, 1, 3], [0, 1, 0, 0, 1, 0]])
    found = csr_neighbours(edges, 5)
    pointer, neighbours = found.pointer, found.ids
    lists = [neighbours[a:b].tolist() for a, b in zip(pointer.tolist(), pointer.tolist()[1:], strict=False)]
    assert lists == [[1, 2, 3], [0], [], [], []]
    none = csr_neighbours(torch.empty(2, 0, dtype=torch.long), 3)
    assert none.pointer.tolist() == [0, 0, 0, 0]
    assert not none.ids.numel()
