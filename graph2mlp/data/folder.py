"""A graph in a folder: `nodes.csv` or `nodes.parquet`, and `edges.csv` or `edges.parquet`; or folders of such files.

Nodes: `id` (any text or whole number; without it a node is called by its row, from 0), `label` (or `y`; empty where
unknown: a word or whole number, of several labels the words separated by `;` or `-` for none of them, or a quantity),
optionally `split` (train, val, test or empty); every other column is a feature.
Edges: `source` and `target` (or `src` and `dst`), by id; optionally `weight`, a positive number. Other columns are not
used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph2mlp.data.arrays import assemble
from graph2mlp.data.columns import Columns, positions_of
from graph2mlp.data.graph import GraphData
from graph2mlp.data.label_arrays import AUTO
from graph2mlp.data.labels import encode_labels, split_parts
from graph2mlp.data.parts import has_table, read_manifest, read_parts
from graph2mlp.errors import DataError

__all__ = ["is_graph_folder", "read_folder"]

_NODE_WORDS = ("id", "label", "y", "split")
_STEMS = ("nodes", "edges")
_ENDS = (("source", "src"), ("target", "dst"))
_WEIGHT = "weight"


def is_graph_folder(path: Path) -> bool:
    """Whether `path` looks like such a folder: it has a table of nodes or of edges."""
    return path.is_dir() and any(has_table(path, stem) for stem in _STEMS)


def read_folder(folder: Path, seed: int, *, undirected: bool = False, task: str = AUTO) -> GraphData:
    """The graph in `folder`; without a column `split` it is drawn by `seed` (see `assemble`).

    Raises:
        DataError: a table or column is missing, an id comes twice, or an edge names a node that is not there.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    rows = read_manifest(folder, _STEMS)
    nodes = read_parts(folder, "nodes", _NODE_WORDS, needs=[("label", "y")], rows=rows)
    ends = [name for names in _ENDS for name in names]
    edges = read_parts(folder, "edges", ends, needs=_ENDS, numbers=[_WEIGHT], rows=rows)
    label = nodes.first("label", "y")
    if not nodes.number_names:
        there = ", ".join(nodes.words)
        raise DataError(f"{nodes.path} has no feature columns (it has: {there}). An MLP needs at least one number.")
    ids = _ids(nodes)
    where = f"{nodes.path}, column '{label}'"
    y, class_names = encode_labels(nodes.words[label], where, task)
    parts = {}
    if "split" in nodes.words:
        parts = split_parts(nodes.words["split"].astype(str), f"{nodes.path}, column 'split'")
    return assemble(
        name=folder.resolve().name,
        where=str(folder),
        x=nodes.numbers,
        edge_index=np.stack([_ends(edges, names, ids, nodes.path) for names in _ENDS]),
        edge_weight=edges.numbers[:, 0] if edges.number_names else None,
        y=y,
        parts=parts,
        seed=seed,
        class_names=class_names,
        names=ids if "id" in nodes.words else None,
        feature_names=nodes.number_names,
        notes=_notes(edges),
        undirected=undirected,
        task=task,
    )


def _ids(nodes: Columns) -> NDArray[Any]:
    if "id" not in nodes.words:
        return np.arange(len(nodes))
    ids = nodes.words["id"]
    if ids.dtype.kind == "U" and bool((ids == "").any()):
        row = int(np.nonzero(ids == "")[0][0]) + 1
        raise DataError(f"{nodes.path}, row {row}: the id is empty. Every node needs one.")
    values, counts = np.unique(ids, return_counts=True)
    if bool((counts > 1).any()):
        name = values[counts > 1][0]
        rows = [int(row) + 1 for row in np.nonzero(ids == name)[0][:2]]
        raise DataError(
            f"{nodes.path}: the id '{name}' is in rows {rows[0]} and {rows[1]}. Each node needs an id of its own."
        )
    return ids


def _ends(edges: Columns, names: tuple[str, ...], ids: NDArray[Any], nodes: Path) -> NDArray[np.int64]:
    column = edges.first(*names)
    wanted = edges.words[column]
    found = positions_of(wanted, ids)
    if bool((found < 0).any()):
        row = int(np.nonzero(found < 0)[0][0])
        name, known = str(wanted[row])[:40], str(ids[0])[:40] if len(ids) else ""
        raise DataError(
            f"{edges.path}, row {row + 1}: {column} '{name}' is no id of {nodes} (ids look like '{known}'; "
            f"{int((found < 0).sum())} such edges). Add the node, or remove the edge."
        )
    return found


def _notes(edges: Columns) -> tuple[str, ...]:
    if not edges.unread:
        return ()
    listed = ", ".join(f"'{name}'" for name in edges.unread)
    return (f"{edges.path.name}: {listed} not used: an edge has a '{_WEIGHT}' or none, and nothing else",)
