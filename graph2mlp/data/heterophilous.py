"""Graphs whose edges often join different classes, each with its ten published splits, the seed choosing one.

Geom-GCN's text files (Pei et al. 2020: Actor, WebKB) and the `.npz` files of Platonov et al. 2023, whose Chameleon and
Squirrel are filtered: the versions before hold every node many times over, so that test nodes sit among training nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from graph2mlp.data.npz import RawGraph, load_arrays
from graph2mlp.data.splits import Split
from graph2mlp.errors import DataError

__all__ = ["NUM_SPLITS", "geom_gcn_files", "read_geom_gcn", "read_platonov"]

NUM_SPLITS = 10

_PARTS = ("train", "val", "test")


def geom_gcn_files(name: str, seed: int) -> dict[str, str]:
    """What `read_geom_gcn` reads of the graph `name`: file -> where Geom-GCN's repository keeps it."""
    split = f"{name}_split_0.6_0.2_{seed % NUM_SPLITS}.npz"
    graph = ("out1_node_feature_label.txt", "out1_graph_edges.txt")
    return {**{file: f"new_data/{name}/{file}" for file in graph}, split: f"splits/{split}"}


def read_geom_gcn(folder: Path, name: str, seed: int) -> tuple[RawGraph, Split]:
    """Graph (edges made undirected) and split `seed % 10` (48 / 32 / 20 %) from the files of `geom_gcn_files`.

    A line of the node file is `id, features, class`, split by tabs. Features are 0 or 1 per word, or, in the graph
    `film` (Actor), the numbers of the words a node has.

    Raises:
        DataError: a file is missing or does not hold that.
    """
    nodes, edges, split = (folder / file for file in geom_gcn_files(name, seed))
    features, labels = _read_nodes(nodes, words=name == "film")
    _check_labels(nodes, labels)
    pairs = _read_edges(edges)
    return _raw_graph(edges, features, labels, pairs), _mask_split(load_arrays(split), "{}_mask", len(labels), split)


def read_platonov(path: Path, seed: int) -> tuple[RawGraph, Split]:
    """Graph (edges made undirected) and split `seed % 10` from `node_features [N, F]`, `node_labels [N]`,
    `edges [E, 2]` and `train_masks`, `val_masks`, `test_masks` `[splits, N]`.

    Raises:
        DataError: an array is missing or has another shape.
    """
    arrays = load_arrays(path)
    needed = ("node_features", "node_labels", "edges", *(f"{part}_masks" for part in _PARTS))
    if missing := [key for key in needed if key not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}. Expected a file of the heterophilous-graphs repository.")
    features, labels, pairs = (arrays[key] for key in needed[:3])
    if features.ndim != 2 or labels.shape != features.shape[:1] or pairs.ndim != 2 or pairs.shape[1] != 2:
        shapes = ", ".join(f"{key} {arrays[key].shape}" for key in needed[:3])
        raise DataError(f"{path}: expected node_features [N, F], node_labels [N] and edges [E, 2], got {shapes}.")
    if features.dtype.kind not in "iufb":
        raise DataError(f"{path}: node_features must hold numbers, got {features.dtype}. Download the file again.")
    _check_labels(path, labels)
    masks = {}
    for part in _PARTS:
        stored = arrays[f"{part}_masks"]
        if stored.ndim != 2 or len(stored) < NUM_SPLITS:
            raise DataError(f"{path}: {part}_masks must have shape [{NUM_SPLITS}, nodes], got {stored.shape}.")
        masks[part] = stored[seed % NUM_SPLITS]
    raw = _raw_graph(path, sp.csr_matrix(features, dtype=np.float32), labels, pairs)
    return raw, _mask_split(masks, "{}", len(labels), path)


def _raw_graph(path: Path, features: sp.csr_matrix, labels: np.ndarray, pairs: np.ndarray) -> RawGraph:
    count = len(labels)
    if pairs.dtype.kind not in "iu":
        raise DataError(f"{path}: edges must hold integers, got {pairs.dtype}. Download the file again.")
    bad = pairs[(pairs < 0) | (pairs >= count)]
    if bad.size:
        raise DataError(f"{path}: an edge names node {bad[0]}, but nodes run from 0 to {count - 1}. Download it again.")
    adjacency = sp.csr_matrix((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), (count, count))
    names = tuple(str(c) for c in range(int(labels.max()) + 1))
    return RawGraph(adjacency, features, labels.astype(np.int64), names).undirected()


def _check_labels(path: Path, labels: np.ndarray) -> None:
    count = len(labels)
    if labels.dtype.kind not in "iu" or not count or labels.min() < 0 or labels.max() >= count:
        raise DataError(f"{path}: {count} nodes need whole labels from 0 to {count - 1}. Download the file again.")


def _read_nodes(path: Path, *, words: bool) -> tuple[sp.csr_matrix, np.ndarray]:
    """Features `[N, F]` and labels `[N]`, rows in the order of the ids, whatever the order of the lines."""
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
        ids = np.array([int(row[0]) for row in rows])
        values = [np.array(row[1].split(","), dtype=np.int64) for row in rows]
        labels = np.array([int(row[2]) for row in rows])
        if not rows or not np.array_equal(np.sort(ids), np.arange(len(ids))):
            raise ValueError(f"its {len(ids)} nodes are not numbered from 0 on, each once")
        if words:
            pointer = np.cumsum([0, *map(len, values)])
            columns = np.concatenate(values)
            features = sp.csr_matrix((np.ones(len(columns), np.float32), columns, pointer))
            features.check_format()
            features.sum_duplicates()
            features.data[:] = 1  # a word that is listed twice
        else:
            features = sp.csr_matrix(np.stack(values), dtype=np.float32)
    except (OSError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is not a node file of Geom-GCN ({error}). Download it again.") from None
    order = np.argsort(ids)
    return features[order], labels[order]


def _read_edges(path: Path) -> np.ndarray:
    """Pairs of node ids `[E, 2]`."""
    try:
        pairs = np.loadtxt(path, dtype=np.int64, delimiter="\t", skiprows=1, ndmin=2)
        if pairs.shape[1] != 2:
            raise ValueError(f"it has {pairs.shape[1]} columns, not 2")
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not an edge file of Geom-GCN ({error}). Download it again.") from None
    return pairs


def _mask_split(arrays: Mapping[str, np.ndarray], key: str, count: int, path: Path) -> Split:
    parts = []
    for part in _PARTS:
        mask = arrays.get(key.format(part))
        if mask is None or mask.shape != (count,):
            got = "nothing" if mask is None else f"shape {mask.shape}"
            raise DataError(f"{path}: the {part} mask must have shape ({count},), got {got}. Download the file again.")
        parts.append(torch.from_numpy(np.nonzero(mask)[0].astype(np.int64)))
    return Split(*parts)
