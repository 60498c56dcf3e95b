"""Geom-GCN's text files and Platonov's arrays: rows belong to ids, the seed names the split, damage is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph2mlp.data.heterophilous import geom_gcn_files, read_geom_gcn, read_platonov
from graph2mlp.errors import DataError

# Nodes 2, 0, 1 in that order; word lists for film, columns of 0 and 1 otherwise.
NODES = {"film": "2\t3,1\t0\n0\t4\t1\n1\t0,0,2\t1\n", "texas": "2\t0,1,0,1,0\t0\n0\t0,0,0,0,1\t1\n1\t1,0,1,0,0\t1\n"}
FEATURES = [[0, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0]]


def _geom_gcn(folder: Path, name: str) -> Path:
    """A path of three nodes; split k trains on node k % 3 and tests on the one before."""
    nodes, edges = (folder / file for file in list(geom_gcn_files(name, 0))[:2])
    nodes.write_text("node_id\tfeature\tlabel\n" + NODES[name])
    edges.write_text("node_id\tnode_id\n0\t1\n1\t0\n1\t2\n2\t2\n")
    for split in range(10):
        masks = {part: np.eye(3, dtype=np.uint8)[(split + k) % 3] for k, part in enumerate(("train", "val", "test"))}
        np.savez(folder / f"{name}_split_0.6_0.2_{split}.npz", **{f"{k}_mask": mask for k, mask in masks.items()})
    return folder


def _platonov(**changed: Any) -> dict[str, Any]:
    masks = {f"{part}_masks": np.eye(3, dtype=bool)[(np.arange(10) + k) % 3] for k, part in enumerate(("train", "val"))}
    arrays = {
        "node_features": np.array(FEATURES, np.float32),
        "node_labels": np.array([1, 1, 0]),
        "edges": np.array([[0, 1], [1, 2], [2, 2]]),
        **masks,
        "test_masks": np.eye(3, dtype=bool)[(np.arange(10) + 2) % 3],
    }
    return {key: value for key, value in {**arrays, **changed}.items() if value is not None}


@pytest.mark.parametrize("name", NODES)
def test_rows_belong_to_the_ids(name: str, tmp_path: Path) -> None:
    """The lines of film are not in the order of the ids: read as they come, every feature has another node's label."""
    raw, split = read_geom_gcn(_geom_gcn(tmp_path, name), name, seed=4)
    assert raw.features.toarray().tolist() == FEATURES
    assert raw.labels.tolist() == [1, 1, 0]
    assert sorted(zip(*raw.edge_index().tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([1], [2], [0])


def test_platonov_arrays_become_a_graph(tmp_path: Path) -> None:
    """The file lists an undirected edge once; both directions must be there, and self-loops gone."""
    np.savez(tmp_path / "g.npz", **_platonov())
    raw, split = read_platonov(tmp_path / "g.npz", seed=13)
    assert raw.features.toarray().tolist() == FEATURES
    assert sorted(zip(*raw.edge_index().tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0], [1], [2])


@pytest.mark.parametrize("kind", ["geom-gcn", "platonov"])
def test_seed_chooses_among_ten_splits(kind: str, tmp_path: Path) -> None:
    """Seeds 0 to 9 are the ten published splits, and seed 10 is the first again, not an error."""
    np.savez(tmp_path / "g.npz", **_platonov())
    _geom_gcn(tmp_path, "texas")

    def train(seed: int) -> list[int]:
        _, split = (
            read_platonov(tmp_path / "g.npz", seed) if kind == "platonov" else read_geom_gcn(tmp_path, "texas", seed)
        )
        return list(split.train.tolist())

    assert [train(seed) for seed in range(10)] == [[seed % 3] for seed in range(10)]
    assert train(11) == train(1)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (0, "head\n0\t0,x\t1\n", "is not a node file of Geom-GCN"),
        (0, "head\n0\t0,1\n", "is not a node file of Geom-GCN"),
        (0, "head\n0\t0,1\t1\n0\t1,1\t0\n", "not numbered from 0 on"),
        (0, "head\n0\t0,1\t1\n1\t1\t0\n", "is not a node file of Geom-GCN"),
        (0, "", "is not a node file of Geom-GCN"),
        (0, "head\n0\t0,1\t9999999999\n", "1 nodes need whole labels from 0 to 0"),
        (1, "head\n0\t1\t2\n", "it has 3 columns"),
        (1, "head\n0\tx\n", "is not an edge file of Geom-GCN"),
        (1, "head\n0\t3\n", "an edge names node 3, but nodes run from 0 to 2"),
        (1, "head\n-1\t0\n", "an edge names node -1"),
        (2, "not an archive", "is not a readable .npz file"),
    ],
)
def test_damaged_text_files_are_named(file: int, text: str, message: str, tmp_path: Path) -> None:
    """A negative id would pick a row from the end; half a download would give half a graph."""
    path = _geom_gcn(tmp_path, "texas") / list(geom_gcn_files("texas", 0))[file]
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_geom_gcn(tmp_path, "texas", seed=0)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("words", ["-1", "1,99999999999999999999"])
def test_damaged_word_lists_are_refused(words: str, tmp_path: Path) -> None:
    """A word before the first is no word."""
    path = _geom_gcn(tmp_path, "film") / "out1_node_feature_label.txt"
    path.write_text(f"head\n0\t{words}\t1\n1\t0\t0\n2\t1\t0\n")
    with pytest.raises(DataError, match="is not a node file of Geom-GCN"):
        read_geom_gcn(tmp_path, "film", seed=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edges": None}, "lacks edges"),
        ({"edges": np.array([[0, 3]])}, "an edge names node 3"),
        ({"edges": np.array([[0.5, 1.0]])}, "edges must hold integers, got float64"),
        ({"node_labels": np.array([0, -1, 1])}, "3 nodes need whole labels from 0 to 2"),
        ({"node_features": np.array([["a"]] * 3)}, "node_features must hold numbers"),
        ({"edges": np.array([0, 1])}, "edges \\[E, 2\\], got"),
        ({"node_labels": np.array([0, 1])}, "node_labels \\(2,\\)"),
        ({"train_masks": np.eye(3, dtype=bool)}, "train_masks must have shape"),
        ({"test_masks": np.ones((10, 2), bool)}, "the test mask must have shape \\(3,\\)"),
    ],
)
def test_damaged_arrays_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message says which array, what it has and what it should have."""
    np.savez(tmp_path / "g.npz", **_platonov(**changed))
    with pytest.raises(DataError, match=message):
        read_platonov(tmp_path / "g.npz", seed=0)
