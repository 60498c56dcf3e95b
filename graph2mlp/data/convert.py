"""Graphs that live in Python already: arrays, PyG, NetworkX, DGL. The last two are only asked, never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graph2mlp.data.arrays import PARTS, assemble
from graph2mlp.data.graph import GraphData
from graph2mlp.data.label_arrays import AUTO, Array
from graph2mlp.data.labels import encode_labels, split_parts
from graph2mlp.errors import DataError

__all__ = ["graph_from_arrays", "graph_from_dgl", "graph_from_networkx", "graph_from_pyg"]


def graph_from_arrays(
    x: Any,
    edge_index: Any,
    y: Any,
    *,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    name: str = "graph",
    seed: int = 0,
    class_names: Sequence[str] = (),
    names: Any = None,
    undirected: bool = False,
    task: str = AUTO,
    edge_weight: Any = None,
    feature_names: Sequence[str] = (),
) -> GraphData:
    """A graph of arrays or tensors: `x [N, F]` (dense, scipy or torch sparse), `edge_index [2, E]`, and `y`.

    `y` is a class number per node `[N]`, columns of 0 and 1 `[N, C]`, or with `task="regression"` quantities, `[N]` or
    `[N, C]`. `train`, `val`, `test` are positions or masks, all or none: without them `seed` draws a split.
    `names [N]` are the caller's names of the nodes, `feature_names` those of the features (none: they have no names);
    `edge_weight [E]` positive numbers.

    Raises:
        DataError: the arrays do not make a graph.
    """
    parts = {part: _array(value) for part, value in zip(PARTS, (train, val, test), strict=True) if value is not None}
    return assemble(
        name=name,
        where=f"Graph '{name}'",
        x=_features(x),
        edge_index=_array(edge_index),
        y=_array(y),
        parts=parts,
        seed=seed,
        class_names=tuple(class_names),
        names=None if names is None else _array(names),
        undirected=undirected,
        task=task,
        edge_weight=None if edge_weight is None else _array(edge_weight),
        feature_names=tuple(map(str, feature_names)) if len(feature_names) else None,
    )


def graph_from_pyg(
    data: Any,
    *,
    name: str = "graph",
    seed: int = 0,
    class_names: Sequence[str] = (),
    undirected: bool = False,
    task: str = AUTO,
    where: str = "",
) -> GraphData:
    """A `torch_geometric.data.Data` with `x`, `edge_index`, `y` and, if it has them, `train_mask` and its relatives.

    Masks of several columns hold several splits: `seed` picks one, in turn. `y [N, 1]` is taken as `[N]`; a list of
    words, None where unknown, names its own classes (see `encode_labels`), else a list `class_names` of the graph does
    where none are given. `edge_weight [E]` is used where it is there; what else the graph holds (`edge_attr`, `pos`,
    ...) is not, and the notes say so.

    Raises:
        DataError: it is heterogeneous, several graphs in one, or lacks something.
    """
    where = where or f"Graph '{name}'"
    if hasattr(data, "node_types"):
        raise DataError(f"{where} is heterogeneous. {_one_type(data)}")
    if hasattr(data, "num_graphs") and data.num_graphs > 1:
        raise DataError(f"{where} holds {data.num_graphs} graphs. Give one of them: batch.get_example(0).")
    held = data.to_dict()
    listed = dict(held)
    if (words := _words(held.get("y"))) is not None:
        if class_names:
            raise DataError(
                f"{where}: the words of 'y' name the classes. Leave class_names out, or number 'y' by them."
            )
        y, class_names = encode_labels(words, f"{where}, y", task)
        held["y"] = torch.from_numpy(y)
    elif not class_names and _is_text(held.get("class_names")):
        class_names = tuple(listed.pop("class_names"))
    how: dict[str, Any] = {"name": name, "seed": seed, "class_names": class_names, "undirected": undirected}
    return _from_parts(held, listed, ("x", "edge_index", "y"), where, task=task, weight=held.get("edge_weight"), **how)


def graph_from_dgl(
    graph: Any,
    *,
    features: str = "feat",
    label: str = "label",
    weight: str = "weight",
    name: str = "graph",
    seed: int = 0,
    class_names: Sequence[str] = (),
    undirected: bool = False,
    task: str = AUTO,
) -> GraphData:
    """A homogeneous DGL graph: `ndata[features]`, `ndata[label]` and, if there, `ndata["train_mask"]` and relatives.

    `edata[weight]`, where it is there, are the weights of the edges.

    Raises:
        DataError: it is heterogeneous, or lacks something.
    """
    where = f"Graph '{name}'"
    if not getattr(graph, "is_homogeneous", True):
        raise DataError(f"{where} is heterogeneous. Take one node type with its own edges: dgl.edge_type_subgraph.")
    source, target = graph.edges()
    held = {**dict(graph.ndata), "edge_index": torch.stack([source, target]).long()}
    on_edges = {str(key): value for key, value in dict(graph.edata).items() if not str(key).startswith("_")}
    listed = {**held, **{f"edata['{key}']": value for key, value in on_edges.items() if key != weight}}
    how: dict[str, Any] = {"name": name, "seed": seed, "class_names": class_names, "undirected": undirected}
    keys = (features, "edge_index", label)
    return _from_parts(held, listed, keys, where, task=task, weight=on_edges.get(weight), **how)


def graph_from_networkx(
    graph: Any,
    features: str | Sequence[str] = "x",
    *,
    label: str = "y",
    split: str = "split",
    weight: str = "weight",
    name: str = "graph",
    seed: int = 0,
    task: str = AUTO,
) -> GraphData:
    """A NetworkX graph. Nodes of any name; the names are kept.

    `features` is one attribute of the nodes that holds a list of numbers, or several that hold a number each, which
    give the features their names; `label` (text or whole number; of several labels a list of them; a number with
    task="regression") may be missing at nodes where it is unknown; `split` ("train", "val", "test") may be missing
    altogether. An undirected graph gets both directions of each edge. The attribute `weight` of an edge is its weight,
    1 where only others have it; other attributes of edges are not used.

    Raises:
        DataError: an attribute is missing or does not hold what it should.
    """
    where = f"Graph '{name}'"
    wanted = [features] if isinstance(features, str) else list(features)
    rows, labels, parts = [], [], []
    for node, about in graph.nodes(data=True):
        if missing := [key for key in wanted if key not in about]:
            found = ", ".join(map(str, about)) or "nothing"
            raise DataError(f"{where}: node {node!r} has no attribute '{missing[0]}' (it has: {found}).")
        rows.append(about[features] if isinstance(features, str) else [about[key] for key in wanted])
        labels.append(_label_cell(about.get(label)))
        parts.append(str(about.get(split) or ""))
    try:
        x = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: features must be lists of numbers, all of one length ({error}).") from None
    position = {node: number for number, node in enumerate(graph.nodes)}
    edges = np.array([(position[edge[0]], position[edge[1]]) for edge in graph.edges], dtype=np.int64).reshape(-1, 2).T
    y, class_names = encode_labels(np.array(labels, dtype=str), where, task)
    whole = all(type(node) is int for node in graph.nodes)
    attributes = sorted({str(key) for *_ends, about in graph.edges(data=True) for key in about})
    return assemble(
        name=name,
        where=where,
        x=x[:, None] if x.ndim == 1 and len(x) else x,
        edge_index=edges,
        y=y,
        parts=split_parts(np.array(parts, dtype=str), where) if any(parts) else {},
        seed=seed,
        class_names=class_names,
        names=np.array(list(graph.nodes) if whole else [str(node) for node in graph.nodes]),
        notes=tuple(f"edge attribute '{key}' is not used" for key in attributes if key != weight),
        undirected=not graph.is_directed(),
        task=task,
        edge_weight=_edge_weights(graph, weight, where) if weight in attributes else None,
        feature_names=None if isinstance(features, str) else tuple(map(str, wanted)),
    )


def _words(y: Any) -> Array | None:
    """A list of words, lists of words and None as a column of labels (see `encode_labels`); None if it is none."""
    y = y.tolist() if isinstance(y, np.ndarray) else y
    if not isinstance(y, list | tuple) or not all(one is None or isinstance(one, str) or _is_text(one) for one in y):
        return None
    return np.array([_label_cell(one) for one in y], dtype=str)


def _is_text(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _label_cell(value: Any) -> str:
    """As a table would hold it (see `encode_labels`)."""
    if isinstance(value, list | tuple | set | frozenset):
        return ";".join(sorted(map(str, value))) or "-"
    return "" if value is None else str(value)


def _from_parts(
    held: Mapping[str, Any],
    listed: Mapping[str, Any],
    keys: tuple[str, str, str],
    where: str,
    *,
    class_names: Sequence[str],
    weight: Any,
    **how: Any,
) -> GraphData:
    """A graph of what PyG or DGL call by name: features, edges, labels (`keys`) and masks; `listed` is all there is."""
    for key in keys:
        if held.get(key) is None:
            there = ", ".join(sorted(str(one) for one, value in listed.items() if value is not None)) or "nothing"
            raise DataError(f"{where} has no '{key}' (it has: {there}). Set it before saving.")
        if not isinstance(held[key], Tensor):
            kind = type(held[key]).__name__
            raise DataError(f"{where}: '{key}' must be a tensor, got {kind}. Make it one with torch.as_tensor.")
    if weight is not None and not isinstance(weight, Tensor):
        raise DataError(f"{where}: the weights of edges must be a tensor, got {type(weight).__name__}.")
    x, edge_index, y = (held[key] for key in keys)
    masks = {part: held[f"{part}_mask"] for part in PARTS if held.get(f"{part}_mask") is not None}
    used = {*keys, *(f"{part}_mask" for part in PARTS), "num_nodes", "edge_weight"}
    left = sorted(str(key) for key, value in listed.items() if key not in used and value is not None)
    return assemble(
        where=where,
        x=_features(x),
        edge_index=_array(edge_index),
        y=_array(y[:, 0] if y.dim() == 2 and y.size(1) == 1 else y),
        parts={part: _mask(mask, how["seed"], f"{where}: '{part}_mask'") for part, mask in masks.items()},
        class_names=tuple(class_names),
        notes=(f"not used: {', '.join(left)}",) if left else (),
        edge_weight=None if weight is None else _array(weight),
        **how,
    )


def _mask(mask: Any, seed: int, what: str) -> Array:
    # Left out, a split of our own would put the user's test nodes into training.
    if not isinstance(mask, Tensor | np.ndarray | list | tuple):
        raise DataError(f"{what} must be a tensor or an array, got {type(mask).__name__}.")
    array = _array(mask)
    array = array[:, seed % array.shape[1]] if array.ndim == 2 and array.shape[1] else array
    # Some writers store masks as 0 and 1, which would otherwise be read as positions.
    return array.astype(bool) if array.dtype == np.uint8 else array


def _features(x: Any) -> Array | sp.csr_matrix:
    if isinstance(x, Tensor) and x.layout != torch.strided:
        csr = x.detach().to_sparse_csr()
        parts = (csr.values().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy())
        return sp.csr_matrix(parts, shape=tuple(csr.shape))
    return sp.csr_matrix(x) if sp.issparse(x) else _array(x)


def _array(value: Any) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.array(value)  # a copy: what the caller does with the arrays later must not reach the graph


def _one_type(data: Any) -> str:
    """What to do with several node types, in the words of this very graph."""
    types = list(data.node_types)
    labelled = [kind for kind in types if "y" in data[kind]]
    chosen = labelled[0] if labelled else types[0] if types else "paper"
    return (
        f"Its node types: {', '.join(map(str, types))}. Make a graph of the one to classify: "
        f"GraphData.from_hetero(data, '{chosen}').save('{chosen}.npz')"
    )


def _edge_weights(graph: Any, key: str, where: str) -> Array:
    """In the order of `graph.edges`; NetworkX itself counts an edge without the attribute as 1."""
    try:
        return np.array([float(about.get(key, 1)) for *_ends, about in graph.edges(data=True)])
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: the edge attribute '{key}' must be a number at every edge ({error}).") from None
