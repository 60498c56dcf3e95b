"""Graphs in `.npz` files: both layouts, and files that are broken or hostile."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.data.npz import read_graph, read_raw
from graph2mlp.errors import DataError
from tests.graphs import save_npz


class _Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _benchmark_arrays(*, dense: bool = False) -> dict[str, Any]:
    """Two classes of 60 nodes in the gnn-benchmark layout: a directed ring, a self-loop, weights other than 1."""
    count = 120
    ring = sp.csr_matrix((np.full(count, 3.0), (np.arange(count), (np.arange(count) + 1) % count)), (count, count))
    adjacency = (ring + sp.csr_matrix(([1.0], ([0], [0])), (count, count))).tocsr()
    x = sp.random(count, 20, 0.1, format="csr", random_state=np.random.RandomState(0)) * 4
    arrays = {"labels": np.arange(count) % 2, "class_names": np.array(["left", "right"])}
    for prefix, matrix in (("adj", adjacency), ("attr", x)):
        for part in ("data", "indices", "indptr"):
            arrays[f"{prefix}_{part}"] = getattr(matrix, part)
        arrays[f"{prefix}_shape"] = np.array(matrix.shape)
    if dense:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("attr")}
        arrays["attr_matrix"] = x.toarray()
    return arrays


def test_plain_layout_round_trip(dense_graph: GraphData, tmp_path: Path) -> None:
    """What a user saves is what we train on: edges as they are, the stored split, the file's name."""
    graph = read_graph(save_npz(dense_graph, tmp_path / "mine.npz"), seed=0)
    assert graph.name == "mine"
    assert graph.class_names == ("0", "1", "2")
    for name in ("x", "edge_index", "y"):
        assert torch.equal(getattr(graph, name), getattr(dense_graph, name)), name
    for name, part in graph.split.parts().items():
        assert torch.equal(part, getattr(dense_graph.split, name)), name


def test_masks_are_read_as_positions(dense_graph: GraphData, tmp_path: Path) -> None:
    """PyG stores masks; both forms must give the same split."""
    masks = {name: np.zeros(61, bool) for name in ("train", "val", "test")}
    for name, mask in masks.items():
        mask[getattr(dense_graph.split, name).numpy()] = True
    graph = read_graph(save_npz(dense_graph, tmp_path / "g.npz", **masks), seed=0)
    assert torch.equal(graph.split.test, dense_graph.split.test)


@pytest.mark.parametrize("dense", [False, True])
def test_benchmark_layout(dense: bool, tmp_path: Path) -> None:
    """Values are kept, edges made undirected and unweighted, self-loops dropped; PyG's reader would binarise."""
    arrays = _benchmark_arrays(dense=dense)
    np.savez(tmp_path / "ring.npz", **arrays)
    graph = read_graph(tmp_path / "ring.npz", seed=0)
    assert graph.edge_weight is None
    assert [note for note in graph.notes if "adj_data is not used" in note]
    assert graph.is_sparse is not dense
    assert graph.class_names == ("left", "right")
    attr = tuple(_benchmark_arrays()[f"attr_{part}"] for part in ("data", "indices", "indptr"))
    want = sp.csr_matrix(attr, (120, 20)).toarray().astype(np.float32)
    assert np.array_equal(graph.x.to_dense().numpy(), want)
    edges = set(zip(*graph.edge_index.tolist(), strict=True))
    assert edges == {(i, (i + step) % 120) for i in range(120) for step in (1, -1)}
    assert (len(graph.split.train), len(graph.split.val), len(graph.split.test)) == (40, 60, 20)


def test_benchmark_layout_with_a_rare_class(tmp_path: Path) -> None:
    """The note of it calls the class by its name, beside that on the weights."""
    labels = np.r_[np.zeros(108, int), np.ones(12, int)]
    np.savez(tmp_path / "ring.npz", **{**_benchmark_arrays(), "labels": labels})
    notes = read_graph(tmp_path / "ring.npz", seed=0).notes
    assert [note for note in notes if "'right' 4 / 3 / 5" in note]
    assert [note for note in notes if "adj_data is not used" in note]


def test_largest_component_keeps_the_order() -> None:
    """The published splits number the nodes of the component in their old order."""
    from graph2mlp.data.npz import RawGraph

    adjacency = sp.csr_matrix((np.ones(3), ([0, 2, 4], [3, 4, 5])), (6, 6))
    raw = RawGraph(adjacency, np.arange(6.0)[:, None], np.arange(6), tuple("abcdef"))
    part = raw.undirected().largest_component()
    assert part.labels.tolist() == [2, 4, 5]
    assert part.features.ravel().tolist() == [2, 4, 5]
    assert part.adjacency.toarray().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_pickled_objects_are_not_executed(dense_graph: GraphData, tmp_path: Path) -> None:
    """A graph file comes from anywhere; opening it must not run what its author put in."""
    mark = tmp_path / "executed"
    bomb = np.array([_Bomb(mark)], dtype=object)
    file = save_npz(dense_graph, tmp_path / "g.npz", extra=bomb)
    assert read_graph(file, seed=0).num_nodes == 61, "an object array that nobody needs does no harm"
    with pytest.raises(DataError, match="lacks x"):
        read_graph(save_npz(dense_graph, tmp_path / "h.npz", x=bomb), seed=0)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(_Bomb(mark)))
    with pytest.raises(DataError, match="not a readable .npz"):
        read_graph(tmp_path / "plain.npz", seed=0)
    assert not mark.exists()


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"y": np.zeros(0, int)}, "labels"),
    "labels as numbers": ({"y": np.zeros(61)}, "must be integers"),
    "labels in a column": ({"y": np.arange(61)[:, None] % 3}, "labels must be int64"),
    "features as text": ({"x": np.array([["a"] * 3] * 61)}, "x"),
    "edges as text": ({"edge_index": np.array([["a"], ["b"]])}, "edge_index"),
    "half an edge": ({"edge_index": np.array([[0.5], [1.0]])}, "edge_index"),
    "half a node in the split": ({"train": np.array([0.5, 1.0])}, "train"),
    "an edge beyond the nodes": ({"edge_index": np.array([[0], [61]])}, "names node 61"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_arrays_are_named(name: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """A user's own file is where mistakes happen: a traceback from numpy does not say which array is wrong."""
    change, message = BROKEN[name]
    with pytest.raises(DataError, match=message):
        read_graph(save_npz(dense_graph, tmp_path / "g.npz", **change), seed=0)


@pytest.mark.parametrize("missing", ["x", "edge_index", "y"])
def test_missing_arrays_are_named(missing: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """The message says what is there and what is expected."""
    arrays = {"x": np.ones((3, 2)), "edge_index": np.zeros((2, 1), int), "y": np.zeros(3, int)}
    del arrays[missing]
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(DataError, match=f"lacks {missing} .*it has: "):
        read_graph(tmp_path / "g.npz", seed=0)


@pytest.mark.parametrize("missing", ["adj_data", "labels", "attr_data", "attr_indptr"])
def test_missing_benchmark_arrays_are_named(missing: str, tmp_path: Path) -> None:
    """Half a matrix is no matrix."""
    arrays = _benchmark_arrays()
    del arrays[missing]
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(DataError, match=missing if missing != "attr_indptr" else "attr matrix is broken"):
        read_raw(tmp_path / "g.npz")


def test_broken_benchmark_matrix_is_refused(tmp_path: Path) -> None:
    """An index beyond the width would crash the process in the first product."""
    arrays = _benchmark_arrays()
    arrays["attr_indices"] = arrays["attr_indices"] + 1000
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.raises(DataError, match="attr matrix is broken"):
        read_raw(tmp_path / "g.npz")


@pytest.mark.parametrize("content", ["text", "npy", "truncated", "flipped"])
def test_unreadable_files(content: str, dense_graph: GraphData, tmp_path: Path) -> None:
    """Whatever the file really is, the answer is one line that names it."""
    file = save_npz(dense_graph, tmp_path / "g.npz")
    whole = file.read_bytes()
    if content == "npy":
        with file.open("wb") as stream:
            np.save(stream, np.eye(3))
    else:
        flipped = whole[:300] + bytes([whole[300] ^ 0xFF]) + whole[301:]
        file.write_bytes({"text": b"hello", "truncated": whole[: len(whole) // 2], "flipped": flipped}[content])
    with pytest.raises(DataError, match="g.npz is not a readable .npz"):
        read_graph(file, seed=0)


def test_unlabelled_nodes_are_not_test_nodes(tmp_path: Path) -> None:
    """-1 means unknown: a node without a label can only be answered wrongly, which lowers every accuracy."""
    y = np.arange(150) % 2
    y[130:] = -1
    np.savez(tmp_path / "g.npz", x=np.ones((150, 3)), edge_index=np.zeros((2, 0), int), y=y)
    graph = read_graph(tmp_path / "g.npz", seed=0)
    assert not bool((graph.y[graph.split.test] == -1).any())
