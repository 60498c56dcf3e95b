"""From loose arrays to a valid `GraphData`: what every reader of a user's graph ends in, so that all have equal rules.

`GraphData` checks what a graph must be; here stands what only loose arrays can get wrong, said with the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph2mlp.data.features import sparse_csr
from graph2mlp.data.graph import GraphData
from graph2mlp.data.label_arrays import AUTO, Array, named, typed_labels
from graph2mlp.data.neighbours import both_directions
from graph2mlp.data.node_names import node_names
from graph2mlp.data.splits import Split, per_class_split, random_split, rare_notes
from graph2mlp.data.targets import known_rows
from graph2mlp.errors import DataError

__all__ = [
    "DENSE_FROM",
    "PARTS",
    "Array",
    "assemble",
    "feature_tensor",
]

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
    task: str = AUTO,
    edge_weight: Array | None = None,
    feature_names: tuple[str, ...] | None = None,
) -> GraphData:
    """The graph of `x [N, F]`, `edge_index [2, E]`, `edge_weight [E]` and `y [N]` or `[N, C]` (see `typed_labels`).

    `where` (a file, or what was given) begins each complaint. `parts` holds `train`, `val` and `test` as positions or
    masks, or nothing: then `seed` draws 20 / 30 nodes per class, shares of a class too small for that (see
    `per_class_split`), and of a task without classes 60 / 20 / 20 % of all. `undirected` adds the direction that is
    missing of each edge, and drops repeats (see `both_directions`).

    Raises:
        DataError: anything is of the wrong shape or type, out of range, not finite, or contradictory.
    """
    labels = typed_labels(y, task, where)
    _check_shapes(x, edge_index, len(labels), where)
    edges = torch.from_numpy(_numbers(edge_index, "edge_index", np.integer, where).astype(np.int64, copy=False))
    weight = None if edge_weight is None else _weights(edge_weight, edges.size(1), where)
    if undirected:
        edges, weight = both_directions(edges, weight)
    class_names = _column_names(labels, class_names, where)
    split = _stored_split(parts, len(labels), where)
    if split is None:
        split, drawn = _drawn_split(labels, seed, class_names)
        notes = (*notes, *drawn)
    return GraphData(
        name=name,
        x=feature_tensor(x if sp.issparse(x) else _numbers(np.asarray(x), "x", np.number, where)),
        edge_index=edges,
        edge_weight=weight,
        y=torch.from_numpy(labels),
        split=split,
        class_names=class_names,
        names=None if names is None else node_names(names, where),
        feature_names=feature_names,
        notes=notes,
    )


def _check_shapes(x: Array | sp.csr_matrix, edge_index: Array, nodes: int, where: str) -> None:
    for what, array in (("x", x), ("edge_index", edge_index)):
        if array.ndim != 2:
            raise DataError(f"{where}: {what} must have 2 dimensions, got shape {array.shape}.")
    if edge_index.shape[0] != 2:
        turned = " It seems to be transposed." if edge_index.shape[1] == 2 else ""
        raise DataError(f"{where}: edge_index must be [2, edges], got {list(edge_index.shape)}.{turned}")
    if x.shape[0] != nodes:
        raise DataError(f"{where}: x has {x.shape[0]} rows, but there are {nodes} labels: one each per node.")


def _column_names(labels: Array, given: tuple[str, ...], where: str) -> tuple[str, ...]:
    columns = named(labels, where)
    if given and (len(given) < len(columns) if labels.ndim == 1 else len(given) != len(columns)):
        raise DataError(
            f"{where}: labels need {len(columns)} names of classes, labels or quantities, got {len(given)}."
        )
    return tuple(map(str, given)) or columns


def _drawn_split(labels: Array, seed: int, names: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    """The split, and what to note of it."""
    if labels.ndim == 1:
        split = per_class_split(labels, seed, names=names)
        return split, (_DRAWN, *rare_notes(labels, split, names))
    known = torch.nonzero(known_rows(torch.from_numpy(labels))).squeeze(1)
    return random_split(len(known), seed).of(known), (_DRAWN,)


def feature_tensor(features: Array | sp.csr_matrix) -> Tensor:
    """`[N, F]` float32; CSR where that is stored and sparse enough, or dense but wide and mostly zeros.

    Stored entries of one row and column are added, in a copy.
    """
    if not sp.issparse(features):
        dense = _single(features)
        wide = dense.shape[1] >= _SPARSE_WIDTH and np.count_nonzero(dense) < DENSE_FROM * dense.size
        if not wide:
            return torch.from_numpy(np.ascontiguousarray(dense))
    held: Any = sp.csr_matrix(features)
    # Before entries are added: 200 + 100 is not a number of eight bits.
    stored: Any = sp.csr_matrix((_single(held.data), held.indices, held.indptr), shape=held.shape)
    if stored.nnz >= DENSE_FROM * stored.shape[0] * stored.shape[1]:
        return torch.from_numpy(stored.toarray())
    csr = stored.copy()
    csr.sum_duplicates()  # sorts, too: torch takes each column of a row once, in order
    pointer, columns = (torch.from_numpy(part.astype(np.int64)) for part in (csr.indptr, csr.indices))
    return sparse_csr(pointer, columns, torch.from_numpy(csr.data), csr.shape)


def _weights(array: Array, edges: int, where: str) -> Tensor:
    if array.shape not in ((edges,), (edges, 1)):
        raise DataError(f"{where}: edge_weight must be one number for each of {edges} edges, got shape {array.shape}.")
    numbers = _numbers(array.reshape(-1), "edge_weight", np.number, where)
    return torch.from_numpy(np.ascontiguousarray(_single(numbers)))


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
            if array.shape == (nodes,) and nodes > 2 and bool(np.isin(array, (0, 1)).all()):
                raise DataError(
                    f"{where}: {name} holds {nodes} numbers, all 0 or 1, like a mask, but numbers are positions of "
                    "nodes. Store it as booleans."
                )
            return torch.from_numpy(_numbers(array, name, np.integer, where).astype(np.int64))
        if array.shape != (nodes,):
            raise DataError(f"{where}: mask {name} has shape {array.shape}, expected {(nodes,)}.")
        return torch.from_numpy(np.nonzero(array)[0].astype(np.int64))

    return Split(*(positions(name) for name in PARTS))
