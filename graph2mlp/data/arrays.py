"""From loose arrays to a valid `GraphData`: what every reader of a user's graph ends in, so that all have equal rules.

`GraphData` checks what a graph must be; here stands what only loose arrays can get wrong, said with the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.data.features import sparse_csr
from graph2mlp.data.graph import GraphData
from graph2mlp.data.splits import Split, per_class_split
from graph2mlp.errors import DataError

__all__ = [
    "DENSE_FROM",
    "PARTS",
    "Array",
    "assemble",
    "both_directions",
    "class_count",
    "feature_tensor",
    "numbered",
    "whole_labels",
]

Array: TypeAlias = NDArray[Any]

PARTS = ("train", "val", "test")
"""What a stored split must have; nodes in none of them only pass messages."""
DENSE_FROM = 0.25
"""Features with at least this share of non-zeros are stored dense: sparse rows stop paying there."""
_DRAWN = "no split is stored, so the seed draws one; a teacher from outside may have learned from its test nodes"
_SPARSE_WIDTH = 64
"""Dense features narrower than this stay dense, however many zeros they hold: there is nothing to save."""


def assemble(
    *,
    name: str,
    where: str,
    x: Array | sp.csr_matrix,
    edge_index: Array,
    y: Array,
    parts: Mapping[str, Array],
    seed: int,
    class_names: tuple[str, ...] = (),
    names: Array | None = None,
    notes: tuple[str, ...] = (),
    undirected: bool = False,
) -> GraphData:
    """The graph of `x [N, F]`, `edge_index [2, E]`, `y [N]`; `where` (a file, or what was given) begins each complaint.

    `parts` holds `train`, `val` and `test` as positions or masks, or nothing: then 20 / 30 nodes per class are drawn
    by `seed`. `undirected` adds the direction that is missing of each edge, and drops repeats.

    Raises:
        DataError: anything is of the wrong shape or type, out of range, not finite, or contradictory.
    """
    labels = whole_labels(y, "y", where)
    for what, array in (("x", x), ("edge_index", edge_index)):
        if array.ndim != 2:
            raise DataError(f"{where}: {what} must have 2 dimensions, got shape {array.shape}.")
    if x.shape[0] != len(labels):
        raise DataError(f"{where}: x has {x.shape[0]} rows, but there are {len(labels)} labels: one each per node.")
    edges = torch.from_numpy(_numbers(edge_index, "edge_index", np.integer, where).astype(np.int64, copy=False))
    count = class_count(labels, where)
    if class_names and len(class_names) < count:
        raise DataError(f"{where}: labels run to {count - 1}, but there are {len(class_names)} class names.")
    split = _stored_split(parts, len(labels), where)
    if split is None:
        notes = (*notes, _DRAWN)
    return GraphData(
        name=name,
        x=feature_tensor(x if sp.issparse(x) else _numbers(np.asarray(x), "x", np.number, where)),
        edge_index=both_directions(edges) if undirected else edges,
        y=torch.from_numpy(labels),
        split=split or per_class_split(labels, seed),
        class_names=class_names or numbered(count),
        names=names,
        notes=notes,
    )


def whole_labels(y: Array, name: str, where: str) -> NDArray[np.int64]:
    """Labels as `[N]` int64, `-1` for unknown.

    Raises:
        DataError: they are no labels of single-label classification.
    """
    only = "Only single-label classification is done so far."
    if np.issubdtype(y.dtype, np.floating) or np.iscomplexobj(y):
        raise DataError(
            f"{where}: labels {name} must be integers (a class number per node, -1 for unknown), got {y.dtype}. "
            f"{only} Cast them if they are class numbers; regression has to wait."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{where}: labels {name} must be integers (a class number per node), got {y.dtype}.")
    if y.ndim != 1:
        raise DataError(f"{where}: labels must be int64 [nodes], got shape {y.shape}. {only}")
    if not y.size:
        raise DataError(f"{where}: there are no labels, so there are no nodes.")
    return y.astype(np.int64)


def class_count(labels: NDArray[np.int64], where: str) -> int:
    """C, one more than the largest label; refused beyond one class per node, where the numbers are no class numbers."""
    count = int(labels.max()) + 1
    if count > max(2, len(labels)):
        raise DataError(
            f"{where}: the largest label is {count - 1}, more than the graph's {len(labels)} nodes. "
            "Number the classes 0, 1, 2, ... without gaps."
        )
    return count


def numbered(count: int) -> tuple[str, ...]:
    """Class names where nothing better is known."""
    return tuple(str(c) for c in range(count))


def feature_tensor(features: Array | sp.csr_matrix) -> Tensor:
    """`[N, F]` float32; CSR where that is stored and sparse enough, or dense but wide and mostly zeros."""
    if not sp.issparse(features):
        dense = _single(features)
        wide = dense.shape[1] >= _SPARSE_WIDTH and np.count_nonzero(dense) < DENSE_FROM * dense.size
        if not wide:
            return torch.from_numpy(np.ascontiguousarray(dense))
    stored: Any = sp.csr_matrix(features)
    if stored.nnz >= DENSE_FROM * stored.shape[0] * stored.shape[1]:
        return torch.from_numpy(_single(stored.toarray()))
    csr = stored.sorted_indices()
    pointer, columns = (torch.from_numpy(part.astype(np.int64)) for part in (csr.indptr, csr.indices))
    return sparse_csr(pointer, columns, torch.from_numpy(_single(csr.data)), csr.shape)


def both_directions(edge_index: Tensor) -> Tensor:
    """Each edge both ways and once, sorted: `[2, E] -> [2, E']`."""
    both: Tensor = torch.unique(torch.cat([edge_index, edge_index.flip(0)], 1), dim=1)
    return both


def _numbers(array: Array, name: str, kind: type, where: str) -> Array:
    """The array `name`, which must hold numbers of `kind`: a cast would cut 0.5 down to node 0."""
    if not np.issubdtype(array.dtype, kind) or np.iscomplexobj(array):
        # An empty list has no type of its own; numpy calls it float.
        if not array.size:
            return array
        wanted = "integers" if kind is np.integer else "numbers"
        raise DataError(f"{where}: {name} must hold {wanted}, got {array.dtype}.")
    return array


def _single(values: Array) -> NDArray[np.float32]:
    """As float32; what does not fit becomes infinite, which `GraphData` refuses by name."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)


def _stored_split(parts: Mapping[str, Array], nodes: int, where: str) -> Split | None:
    found = sorted(parts)
    if not found:
        return None
    if len(found) < len(PARTS):
        # Drawing a split of our own would put the user's test nodes into training.
        raise DataError(f"{where} holds {' and '.join(found)} only. Store train, val and test, or none of them.")

    def positions(name: str) -> Tensor:
        array = parts[name]
        if array.dtype != bool:
            return torch.from_numpy(_numbers(array, name, np.integer, where).astype(np.int64))
        if array.shape != (nodes,):
            raise DataError(f"{where}: mask {name} has shape {array.shape}, expected {(nodes,)}.")
        return torch.from_numpy(np.nonzero(array)[0].astype(np.int64))

    return Split(*(positions(name) for name in PARTS))
