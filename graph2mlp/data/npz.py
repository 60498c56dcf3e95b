"""Graphs in `.npz` files: the gnn-benchmark layout (CSR parts), or plain arrays `x, edge_index, y`."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graph2mlp.data.features import sparse_csr
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split, per_class_split
from graph2mlp.errors import DataError

__all__ = ["DENSE_FROM", "RawGraph", "read_graph", "read_raw"]

DENSE_FROM = 0.25
"""Features with at least this share of non-zeros are stored dense: sparse rows stop paying there."""


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as a file holds it: `adjacency [N, N]` scipy CSR, `features [N, F]` scipy CSR or dense, `labels [N]`."""

    adjacency: sp.csr_matrix
    features: sp.csr_matrix | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def undirected(self) -> RawGraph:
        """Unweighted, both directions, no self-loops."""
        adjacency = self.adjacency.tolil() if self.adjacency.nnz == 0 else self.adjacency
        both = ((adjacency + adjacency.T) != 0).astype(np.float32).tocsr()
        both.setdiag(0)
        both.eliminate_zeros()
        return RawGraph(both, self.features, self.labels, self.class_names)

    def largest_component(self) -> RawGraph:
        """The largest connected component, nodes in their order."""
        _, component = sp.csgraph.connected_components(self.adjacency, directed=False)
        keep = np.nonzero(component == np.bincount(component).argmax())[0]
        return RawGraph(self.adjacency[keep][:, keep], self.features[keep], self.labels[keep], self.class_names)

    def edge_index(self) -> Tensor:
        """`[2, E]` int64: row i of the adjacency lists the targets of node i."""
        coo = self.adjacency.tocoo()
        return torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))

    def x(self) -> Tensor:
        """`[N, F]` float32 with the stored values, CSR when sparse enough (see `DENSE_FROM`)."""
        features = self.features
        if isinstance(features, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
        if features.nnz >= DENSE_FROM * features.shape[0] * features.shape[1]:
            return torch.from_numpy(features.toarray().astype(np.float32))
        csr = features.astype(np.float32).sorted_indices()
        pointer, columns = (torch.from_numpy(part.astype(np.int64)) for part in (csr.indptr, csr.indices))
        return sparse_csr(pointer, columns, torch.from_numpy(csr.data), csr.shape)

    def graph(self, name: str, split: Split) -> GraphData:
        """The validated graph."""
        return GraphData(
            name=name,
            x=self.x(),
            edge_index=self.edge_index(),
            y=torch.from_numpy(self.labels.astype(np.int64)),
            split=split,
            class_names=self.class_names,
        )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file but those of Python objects, which would have to be unpickled."""
    arrays = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with loaded as file:
            for key in file.files:
                try:
                    arrays[key] = file[key]
                except ValueError as error:
                    if "Object arrays" not in str(error):
                        raise
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not a readable .npz file ({error}). Save it again with numpy.savez.") from None
    return arrays


def read_raw(path: Path) -> RawGraph:
    """Read the gnn-benchmark layout: `adj_*`, `attr_*` (CSR parts or `attr_matrix`), `labels`, `class_names`."""
    arrays = load_arrays(path)
    needed = {"adj_data", "adj_indices", "adj_indptr", "adj_shape", "labels"}
    if missing := sorted(needed - arrays.keys()):
        raise DataError(
            f"{path} lacks {', '.join(missing)}. Expected the gnn-benchmark layout (adj_*, attr_*, labels) "
            "or plain arrays x, edge_index, y."
        )
    if "attr_data" in arrays:
        features: sp.csr_matrix | np.ndarray = _csr(arrays, "attr", path)
    elif "attr_matrix" in arrays:
        features = arrays["attr_matrix"].astype(np.float32)
    else:
        raise DataError(f"{path} has no node features (attr_data or attr_matrix).")
    labels = _numbers(arrays, "labels", np.integer, path).astype(np.int64)
    if labels.ndim != 1 or not labels.size:
        raise DataError(f"{path}: labels must be a list of integers, got shape {labels.shape}.")
    count = int(labels.max()) + 1
    names = tuple(str(name) for name in arrays.get("class_names", ()))
    return RawGraph(_csr(arrays, "adj", path), features, labels, names if len(names) == count else _numbered(count))


def read_graph(path: Path, seed: int) -> GraphData:
    """A user's `.npz` file as a graph; without stored masks the split is 20 / 30 nodes per class.

    Plain layout: `x [N, F]`, `edge_index [2, E]`, `y [N]`, optionally `train`, `val`, `test` (positions, or masks of
    length N). Edges are taken as they are; store both directions of an undirected edge.
    """
    arrays = load_arrays(path)
    if "adj_data" in arrays:
        raw = read_raw(path).undirected()
        return raw.graph(path.stem, per_class_split(raw.labels, seed))
    if missing := sorted({"x", "edge_index", "y"} - arrays.keys()):
        raise DataError(
            f"{path} lacks {', '.join(missing)} (it has: {', '.join(sorted(arrays)) or 'nothing'}). Expected "
            "x [nodes, features], edge_index [2, edges] and y [nodes], or the gnn-benchmark layout."
        )
    y = arrays["y"]
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: labels y must be integers, got {y.dtype}.")
    for name, dimensions in (("x", 2), ("edge_index", 2)):
        if arrays[name].ndim != dimensions:
            raise DataError(f"{path}: {name} must have {dimensions} dimensions, got shape {arrays[name].shape}.")
    if y.ndim != 1:
        raise DataError(f"{path}: labels must be int64 [nodes], got shape {y.shape}.")
    count = int(y.max()) + 1 if y.size else 0
    return GraphData(
        name=path.stem,
        x=torch.from_numpy(_single(_numbers(arrays, "x", np.number, path))),
        edge_index=torch.from_numpy(_numbers(arrays, "edge_index", np.integer, path).astype(np.int64)),
        y=torch.from_numpy(y.astype(np.int64)),
        split=_stored_split(arrays, path) or per_class_split(y, seed),
        class_names=_numbered(count),
    )


def _numbers(arrays: dict[str, np.ndarray], name: str, kind: type, path: Path) -> np.ndarray:
    """The array `name`, which must hold numbers of `kind`: a cast would cut 0.5 down to node 0."""
    if not np.issubdtype(arrays[name].dtype, kind) or np.iscomplexobj(arrays[name]):
        wanted = "integers" if kind is np.integer else "numbers"
        raise DataError(f"{path}: {name} must hold {wanted}, got {arrays[name].dtype}.")
    return arrays[name]


def _single(values: np.ndarray) -> np.ndarray:
    """As float32; what does not fit becomes infinite, which `GraphData` refuses by name."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _stored_split(arrays: dict[str, np.ndarray], path: Path) -> Split | None:
    found = sorted(name for name in ("train", "val", "test") if name in arrays)
    if not found:
        return None
    if len(found) < 3:
        # Drawing a split of our own would put the user's test nodes into training.
        raise DataError(f"{path} holds {' and '.join(found)} only. Store train, val and test, or none of them.")

    def positions(name: str) -> Tensor:
        if arrays[name].dtype != bool:
            return torch.from_numpy(_numbers(arrays, name, np.integer, path).astype(np.int64))
        if arrays[name].shape != arrays["y"].shape:
            raise DataError(f"{path}: mask {name} has shape {arrays[name].shape}, expected {arrays['y'].shape}.")
        return torch.from_numpy(np.nonzero(arrays[name])[0].astype(np.int64))

    return Split(*(positions(name) for name in ("train", "val", "test")))


def _csr(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> sp.csr_matrix:
    try:
        parts = [arrays[f"{prefix}_{part}"] for part in ("data", "indices", "indptr")]
        matrix = sp.csr_matrix(tuple(parts), shape=tuple(int(n) for n in arrays[f"{prefix}_shape"]))
        matrix.check_format(full_check=True)
        return matrix
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: the {prefix} matrix is broken ({error}).") from None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(c) for c in range(count))
