"""The same graph as `.npz`, `.pt`, tables and Python objects must be the same graph, with its names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from graph2mlp.data.datasets import load_graph
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError, MissingExtraError
from tests.cli import invoke
from tests.graphs import community_graph
from tests.own_graphs import node_ids, pyg_data, save_folder, write_table


def assert_same(got: GraphData, want: GraphData) -> None:
    """Equal features, edges, labels and split; names and class names are compared by the tests."""
    for name in ("edge_index", "y"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    assert torch.equal(got.x.to_dense(), want.x.to_dense())
    for name, part in got.split.parts().items():
        assert torch.equal(part, getattr(want.split, name)), name


def test_pyg_file(dense_graph: GraphData, tmp_path: Path) -> None:
    """`torch.save(data)` is how nearly everyone stores a graph; torch alone refuses it."""
    torch.save(pyg_data(dense_graph), tmp_path / "mine.pt")
    graph = load_graph(str(tmp_path / "mine.pt"))
    assert_same(graph, dense_graph)
    assert graph.name == "mine"


def test_reading_a_file_allows_nothing_for_later(dense_graph: GraphData, tmp_path: Path) -> None:
    """The six classes are allowed for one file, not for every `torch.load` of the user's process."""
    before = set(torch.serialization.get_safe_globals())
    torch.save(pyg_data(dense_graph), tmp_path / "mine.pt")
    load_graph(str(tmp_path / "mine.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


def test_other_forms_of_a_pyg_file(dense_graph: GraphData, tmp_path: Path) -> None:
    """A dictionary, a dataset of one graph, labels in a column, masks of several splits."""
    data = pyg_data(dense_graph)
    torch.save(data.to_dict(), tmp_path / "dict.pt")
    InMemoryDataset.save([data], tmp_path / "dataset.pt")
    for name in ("dict.pt", "dataset.pt"):
        assert_same(load_graph(str(tmp_path / name)), dense_graph)
    data.y = data.y[:, None]
    data.train_mask, data.val_mask = (
        torch.stack([data.train_mask, data.val_mask], 1),
        torch.stack([data.val_mask, data.train_mask], 1),
    )
    data.test_mask = data.test_mask[:, None].expand(-1, 2)
    torch.save(data, tmp_path / "masks.pt")
    first, second, third = (load_graph(str(tmp_path / "masks.pt"), seed=seed) for seed in range(3))
    assert_same(first, dense_graph)
    assert torch.equal(second.split.train, dense_graph.split.val)
    assert torch.equal(third.split.train, dense_graph.split.train)


@pytest.mark.parametrize("form", [list, np.asarray, tuple])
def test_masks_that_are_no_tensors(dense_graph: GraphData, form: Callable[[Any], Any]) -> None:
    """Passed over, they gave way to a split of our own, with the user's test nodes in training."""
    data = pyg_data(dense_graph)
    for part in ("train", "val", "test"):
        data[f"{part}_mask"] = form(data[f"{part}_mask"].tolist())
    graph = GraphData.from_pyg(data)
    assert_same(graph, dense_graph)
    assert not graph.notes


def test_names_of_classes_in_a_pyg_graph(dense_graph: GraphData, tmp_path: Path) -> None:
    """Answers are words where the graph knows them, in its order; names that are given count for more."""
    data = pyg_data(dense_graph)
    data.class_names = ["red", "green", "blue"]
    torch.save(data, tmp_path / "mine.pt")
    graph = load_graph(str(tmp_path / "mine.pt"))
    assert graph.class_names == ("red", "green", "blue")
    assert not graph.notes
    given = GraphData.from_pyg(data, class_names=["r", "g", "b"])
    assert given.class_names == ("r", "g", "b")
    assert given.notes == ("not used: class_names",)
    data.class_names = {0: "red"}
    assert GraphData.from_pyg(data).notes == ("not used: class_names",)


def test_labels_of_a_pyg_graph_as_words(dense_graph: GraphData, tmp_path: Path) -> None:
    """As in a table: None is unknown, and of several labels a node has a list."""
    data = pyg_data(dense_graph)
    words = [("red", "green", "blue")[c] for c in dense_graph.y]
    data.y = [*words[:-1], None]
    torch.save(data, tmp_path / "mine.pt")
    graph = load_graph(str(tmp_path / "mine.pt"))
    assert graph.class_names == ("blue", "green", "red")
    assert [graph.class_names[c] for c in graph.y[:-1]] == words[:-1]
    assert int(graph.y[-1]) == -1
    data.y = np.array(words)
    assert [graph.class_names[c] for c in GraphData.from_pyg(data).y] == words
    with pytest.raises(DataError, match="the words of 'y' name the classes. Leave class_names out"):
        GraphData.from_pyg(data, class_names=["red", "green", "blue"])
    data.y = [["red", "big"], [], *[["red"]] * 59]
    assert GraphData.from_pyg(data, task="multilabel").y[:3].tolist() == [[1, 1], [0, 0], [0, 1]]


def test_what_is_not_used_is_said(dense_graph: GraphData, tmp_path: Path) -> None:
    """Kinds of edges that silently count for nothing would surprise their owner much later."""
    data = pyg_data(dense_graph)
    data.edge_attr = torch.ones(dense_graph.num_edges, 2)
    torch.save(data, tmp_path / "mine.pt")
    assert load_graph(str(tmp_path / "mine.pt")).notes == ("not used: edge_attr",)
    assert not GraphData.from_pyg(pyg_data(dense_graph)).notes
    folder = save_folder(dense_graph, tmp_path / "g")
    ids = node_ids(61)
    write_table(folder / "edges.csv", ["src", "dst", "since"], [[ids[0], ids[1], "2020"]])
    assert "'since' not used" in load_graph(str(folder)).notes[0]


def test_several_graphs_or_node_types_are_refused(dense_graph: GraphData, tmp_path: Path) -> None:
    """The message says, in names of this very file, what to save instead."""
    data = pyg_data(dense_graph)
    hetero = HeteroData()
    hetero["author"].x, hetero["paper"].x = torch.ones(2, 3), torch.ones(3, 3)
    hetero["paper"].y = torch.tensor([0, 1, 0])
    hetero["paper", "cites", "paper"].edge_index = torch.tensor([[0], [1]])
    torch.save(hetero, tmp_path / "hetero.pt")
    want = r"author, paper.*from_hetero\(data, 'paper'\)"
    with pytest.raises(DataError, match=want):
        load_graph(str(tmp_path / "hetero.pt"))
    InMemoryDataset.save([data, data], tmp_path / "several.pt")
    with pytest.raises(DataError, match="several graphs"):
        load_graph(str(tmp_path / "several.pt"))
    torch.save([data, data], tmp_path / "list.pt")
    with pytest.raises(DataError, match="list of 2"):
        load_graph(str(tmp_path / "list.pt"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", ["text", "numbers", "leading zeros"])
def test_folder(suffix: str, kind: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """Ids of any kind are kept, as text or as numbers; classes get their names."""
    made: dict[str, list[Any]] = {
        "text": node_ids(61),
        "numbers": [1000 - 7 * i for i in range(61)],
        "leading zeros": [f"{i:05d}" for i in range(61)],
    }
    graph = load_graph(str(save_folder(dense_graph, tmp_path / "mine", suffix=suffix, ids=made[kind])))
    assert_same(graph, dense_graph)
    assert graph.class_names == ("class a", "class b", "class c")
    assert graph.names is not None
    assert graph.names.tolist() == made[kind]
    assert graph.observed().names is not None
    assert graph.feature_names == tuple(f"f{i}" for i in range(12))


def test_ids_of_two_kinds_of_file_meet(dense_graph: GraphData, tmp_path: Path) -> None:
    """Numbers in parquet are text in csv: 7 is 7 in both."""
    ids = [3 * i for i in range(61)]
    folder = save_folder(dense_graph, tmp_path / "g", suffix=".parquet", ids=ids)
    (folder / "edges.parquet").unlink()
    edges = [[ids[a], ids[b]] for a, b in dense_graph.edge_index.T.tolist()]
    write_table(folder / "edges.csv", ["src", "dst"], edges)
    assert_same(load_graph(str(folder)), dense_graph)


def test_ids_beyond_int64_are_text(dense_graph: GraphData, tmp_path: Path) -> None:
    """Hashes of 64 bits without a sign; as negative numbers they would answer to names that nobody gave."""
    ids = np.array([2**64 - 1 - 7 * i if i % 2 else 7 * i for i in range(61)], np.uint64)
    for suffix in (".csv", ".parquet"):
        graph = load_graph(str(save_folder(dense_graph, tmp_path / suffix[1:], suffix=suffix, ids=ids)))
        assert graph.names is not None
        assert graph.names.tolist() == list(map(str, ids))
        assert_same(graph, dense_graph)


def test_folder_without_ids_and_split(tmp_path: Path) -> None:
    """The least a folder can hold: rows are ids, the split is drawn, a node without label is in no part of it."""
    rows = [["" if node > 130 else node % 2, node, 1] for node in range(150)]
    write_table(tmp_path / "nodes.csv", ["y", "age", "height"], rows)
    write_table(tmp_path / "edges.csv", ["source", "target"], [[0, 2], [4, 6]])
    graph = load_graph(str(tmp_path))
    assert graph.names is None
    assert graph.feature_names == ("age", "height")
    assert "no split is stored" in graph.notes[0], "a teacher from outside may know the test nodes"
    assert graph.edge_index.tolist() == [[0, 4], [2, 6]]
    assert int((graph.y == -1).sum()) == 19
    assert (len(graph.split.train), len(graph.split.val), len(graph.split.test)) == (40, 60, 31)


def test_a_rare_class_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Its share is drawn and noted by its name; a class of one node is named, too."""
    rows = [["pink" if node < 12 else "ab"[node % 2], node] for node in range(150)]
    write_table(tmp_path / "nodes.csv", ["y", "age"], rows)
    write_table(tmp_path / "edges.csv", ["source", "target"], [[0, 2], [4, 6]])
    graph = load_graph(str(tmp_path))
    assert [len(part) for part in graph.split.parts().values()] == [44, 63, 43, 0]
    assert "'pink' 4 / 3 / 5" in graph.notes[1]
    assert "'pink' 4 / 3 / 5" in " ".join(invoke("inspect", tmp_path).stdout.split())
    write_table(
        tmp_path / "nodes.csv", ["y", "age"], [["pink" if node < 1 else "ab"[node % 2], node] for node in range(150)]
    )
    with pytest.raises(DataError, match=r"1 of 3 classes \('pink'\) have fewer than 2 nodes"):
        load_graph(str(tmp_path))


def test_parquet_lists_are_features(dense_graph: GraphData, tmp_path: Path) -> None:
    """Embeddings come as one column of lists; nobody writes a thousand columns."""
    folder = save_folder(dense_graph, tmp_path / "g", suffix=".parquet")
    ids, x = node_ids(61), dense_graph.x.tolist()
    labels = [str(dense_graph.class_names[c]) for c in dense_graph.y]
    parts = ["train" if i < 12 else "val" if i < 24 else "test" for i in range(61)]
    rows = list(zip(ids, labels, parts, x, strict=True))
    write_table(folder / "nodes.parquet", ["id", "label", "split", "embedding"], rows)
    assert_same(load_graph(str(folder)), dense_graph)
    assert load_graph(str(folder)).feature_names == tuple(f"embedding[{i}]" for i in range(12))


def test_parquet_without_pyarrow_names_the_extra(
    dense_graph: GraphData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """csv needs no extra; parquet says which one it needs."""
    folder = save_folder(dense_graph, tmp_path / "g", suffix=".parquet")
    plain = save_folder(dense_graph, tmp_path / "h")
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert load_graph(str(plain)).num_nodes == 61
    with pytest.raises(MissingExtraError, match=r"graph2mlp\[tables\]"):
        load_graph(str(folder))


def test_undirected_adds_the_other_direction_once(dense_graph: GraphData, tmp_path: Path) -> None:
    """Half of the citation files store an edge once; a repeat would count twice in a user's own teacher."""
    source, target = dense_graph.edge_index
    once = dense_graph.edge_index[:, source < target]
    data = pyg_data(dense_graph)
    data.edge_index = torch.cat([once, once[:, :3]], 1)
    torch.save(data, tmp_path / "once.pt")
    as_stored = load_graph(str(tmp_path / "once.pt"))
    both = load_graph(str(tmp_path / "once.pt"), undirected=True)
    assert as_stored.num_edges == once.size(1) + 3
    assert set(zip(*both.edge_index.tolist(), strict=True)) == set(zip(*dense_graph.edge_index.tolist(), strict=True))
    assert both.num_edges == dense_graph.num_edges


def test_networkx(dense_graph: GraphData) -> None:
    """Nodes of any name, undirected edges, attributes on nodes."""
    ids = node_ids(61)
    graph = nx.Graph()
    part = {**dict.fromkeys(range(12), "train"), **dict.fromkeys(range(12, 24), "valid")}
    for node in range(61):
        about = {"x": dense_graph.x[node].tolist(), "y": "abc"[dense_graph.y[node]], "split": part.get(node, "test")}
        graph.add_node(ids[node], **about)
    graph.add_edges_from([(ids[a], ids[b]) for a, b in dense_graph.edge_index.T.tolist()], since=2)
    made = GraphData.from_networkx(graph)
    assert_same(made, community_graph_sorted(dense_graph))
    assert made.names is not None
    assert made.names.tolist() == ids
    assert made.class_names == ("a", "b", "c")
    assert made.notes == ("edge attribute 'since' is not used",)
    del graph.nodes[ids[4]]["x"]
    with pytest.raises(DataError, match="'user-28' has no attribute 'x'"):
        GraphData.from_networkx(graph)


def test_networkx_attributes_name_the_features() -> None:
    """One attribute with a list of numbers has one name for all of them, which is none."""
    graph = nx.Graph()
    for node in range(150):
        graph.add_node(node, age=node, height=1.0, x=[node, 1.0], y=node % 2)
    assert GraphData.from_networkx(graph, ["height", "age"]).feature_names == ("height", "age")
    assert GraphData.from_networkx(graph, "x").feature_names is None


def community_graph_sorted(graph: GraphData) -> GraphData:
    """The same edges in the order in which both directions are joined."""
    from dataclasses import replace

    from graph2mlp.data.neighbours import both_directions

    return replace(graph, edge_index=both_directions(graph.edge_index)[0])


def test_dgl_is_asked_by_its_interface(dense_graph: GraphData) -> None:
    """DGL is no dependency: what counts is `edges()`, `ndata`, `edata` and `is_homogeneous`."""
    data = pyg_data(dense_graph)
    ndata = {"feat": data.x, "label": data.y, **{f"{p}_mask": data[f"{p}_mask"] for p in ("train", "val", "test")}}
    graph = SimpleNamespace(
        edges=lambda: tuple(dense_graph.edge_index), ndata=ndata, edata={"w": data.edge_index[0]}, is_homogeneous=True
    )
    made = GraphData.from_dgl(graph)
    assert_same(made, dense_graph)
    assert made.notes == ("not used: edata['w']",)
    graph.is_homogeneous = False
    with pytest.raises(DataError, match="edge_type_subgraph"):
        GraphData.from_dgl(graph)
    with pytest.raises(DataError, match="has no 'feat'"):
        GraphData.from_dgl(SimpleNamespace(edges=graph.edges, ndata={}, edata={}))


@pytest.mark.parametrize("sparse", [False, True])
def test_saved_graph_is_the_same(sparse: bool, tmp_path: Path) -> None:
    """The bridge from Python to the command line: features as they are stored, names and class names included."""
    made = community_graph(sparse=sparse)
    graph = GraphData.from_arrays(
        made.x,
        made.edge_index,
        made.y,
        **{name: getattr(made.split, name) for name in ("train", "val", "test")},
        class_names=("red", "green", "blue"),
        names=node_ids(61),
        feature_names=[f"word {i}" for i in range(12)],
    )
    again = load_graph(str(graph.save(tmp_path / "g.npz")))
    assert_same(again, made)
    assert again.is_sparse is sparse
    assert again.class_names == ("red", "green", "blue")
    assert again.names is not None
    assert again.names.tolist() == node_ids(61)
    assert again.feature_names == tuple(f"word {i}" for i in range(12))
    assert load_graph(str(made.save(tmp_path / "plain.npz"))).feature_names is None
    assert again.fingerprint() == made.fingerprint()
    with pytest.raises(DataError, match=".npz"):
        graph.save(tmp_path / "g.pt")


def test_a_graph_with_hidden_nodes_is_not_saved(tmp_path: Path) -> None:
    """They would come back as nodes that training sees."""
    with pytest.raises(DataError, match="'tiny' hides 7 unseen nodes.*--setting production"):
        community_graph(production=True).save(tmp_path / "g.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("width", [3, 100])
def test_a_word_that_is_stored_twice_counts_twice(width: int, tmp_path: Path) -> None:
    """Counting words one by one gives such matrices, which torch refuses without saying whose they are."""
    words, ends = np.array([2, 0, 2, 1], np.int64), np.array([0, 3, 4, 4, 4])
    x = sp.csr_matrix((np.array([200, 7, 100, 5], np.uint8), words, ends), shape=(4, width))
    parts = {"train": np.array([0]), "val": np.array([1]), "test": np.array([2])}
    graph = GraphData.from_arrays(x, np.zeros((2, 0), int), np.array([0, 1, 0, 1]), **parts)
    assert graph.is_sparse is (width == 100)
    assert graph.x.to_dense()[:2, :3].tolist() == [[7.0, 0.0, 300.0], [0.0, 5.0, 0.0]]
    assert x.indices.tolist() == [2, 0, 2, 1], "the caller's matrix was changed"
    stored = {f"x_{part}": getattr(x, part) for part in ("data", "indices", "indptr", "shape")}
    np.savez(tmp_path / "g.npz", **stored, edge_index=np.zeros((2, 0), int), y=np.array([0, 1, 0, 1]), **parts)
    assert load_graph(str(tmp_path / "g.npz")).fingerprint() == graph.fingerprint()


def test_wide_and_mostly_zero_features_become_sparse(tmp_path: Path) -> None:
    """A bag of words is recognised in any format, or the same graph would train differently as `.pt` and as `.npz`."""
    rng = np.random.default_rng(0)
    x = (rng.random((150, 100)) < 0.05).astype(np.float32)
    y, edges = np.arange(150) % 2, np.zeros((2, 1), np.int64)
    np.savez(tmp_path / "g.npz", x=x, y=y, edge_index=edges)
    torch.save(Data(x=torch.tensor(x), y=torch.tensor(y), edge_index=torch.tensor(edges)), tmp_path / "g.pt")
    first, second = load_graph(str(tmp_path / "g.npz")), load_graph(str(tmp_path / "g.pt"))
    assert first.is_sparse
    assert first.fingerprint() == second.fingerprint()
    assert np.array_equal(first.x.to_dense().numpy(), x)
