"""Graphs of several node types: the type to classify, joined along meta-paths, is a graph like any other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError, suggest

__all__ = ["graph_from_hetero"]

_MOST_EDGES = 1 << 26
"""Pairs that one meta-path may join: a hub of 8,000 neighbours joins 64 million."""


def graph_from_hetero(
    data: Any, target: str, metapaths: Sequence[Sequence[str]] = (), *, name: str = "graph", **options: Any
) -> GraphData:
    """Nodes of type `target` of a PyG `HeteroData`, two of them joined where a meta-path leads from one to the other.

    A meta-path is the node types on the way, `("movie", "actor", "movie")`; types that several relations join take all
    of them, in both directions. Without `metapaths` it is `target` itself, where it has edges of its own, and every
    `target - other - target`. Features, labels, masks and class names are those of the target type; options: see
    `graph_from_pyg`. How often a pair is joined is not kept.

    Raises:
        DataError: the type is not there or lacks features or labels; a meta-path does not exist, does not end at the
            target, or joins more than 67 million pairs.
    """
    from torch_geometric.data import Data

    from graph2mlp.data.convert import graph_from_pyg

    where = f"Graph '{name}'"
    if target not in data.node_types:
        raise DataError(f"{where} has no node type '{target}'. {suggest(target, data.node_types)}")
    store = data[target]
    if missing := [key for key in ("x", "y") if store.get(key) is None]:
        raise DataError(f"{where}: node type '{target}' has no '{missing[0]}'. Only a type with both can be learned.")
    nodes = len(store.x)
    wanted = [tuple(path) for path in metapaths] or _short_paths(data, target)
    if not wanted:
        raise DataError(f"{where}: no relation leads from '{target}' to itself in one step or two. Name a meta-path.")
    joined = sp.csr_matrix((nodes, nodes), dtype=np.int32)
    for path in wanted:
        joined = joined + _along(data, path, target, where)
    joined = sp.csr_matrix(joined)
    joined.setdiag(0)
    joined.eliminate_zeros()
    pairs = joined.tocoo()
    edge_index = torch.from_numpy(np.stack([pairs.row, pairs.col]).astype(np.int64))
    also = ("train_mask", "val_mask", "test_mask", "class_names")
    held = {key: store[key] for key in also if store.get(key) is not None}
    return graph_from_pyg(Data(x=store.x, edge_index=edge_index, y=store.y, **held), name=name, **options)


def _short_paths(data: Any, target: str) -> list[tuple[str, ...]]:
    near = sorted({b if a == target else a for a, _, b in data.edge_types if target in (a, b)})
    return [(target, target) if other == target else (target, other, target) for other in near]


def _along(data: Any, path: tuple[str, ...], target: str, where: str) -> sp.csr_matrix:
    """Which target nodes `[N, N]` the meta-path joins."""
    words = " - ".join(path)
    if len(path) < 2 or path[0] != target or path[-1] != target:
        raise DataError(f"{where}: meta-path {words} must lead from '{target}' to '{target}'.")
    found: sp.csr_matrix | None = None
    for a, b in itertools.pairwise(path):
        step = _step(data, a, b)
        if step is None:
            there = ", ".join(f"{one[0]} - {one[2]}" for one in data.edge_types)
            raise DataError(f"{where}: no edges between '{a}' and '{b}' (meta-path {words}). There are: {there}.")
        if found is not None:
            # An upper bound of the result, before anything of its size is made.
            into, out_of = (np.asarray(one, np.int64).ravel() for one in (found.sum(0), step.sum(1)))
            pairs = int(into @ out_of)
            if pairs > _MOST_EDGES:
                raise DataError(
                    f"{where}: meta-path {words} joins up to {pairs:,} pairs at '{a}', more than {_MOST_EDGES:,}. "
                    "Remove the nodes that almost everything is joined to, or take another meta-path."
                )
            step = found @ step
        found = step.astype(bool).astype(np.int32)  # joined or not: how often would grow, and overflow
    assert found is not None
    return found


def _step(data: Any, a: str, b: str) -> sp.csr_matrix | None:
    """Which nodes of type `a` have an edge with which of type `b`, whatever its relation and direction."""
    if not {a, b} <= set(data.node_types):  # asking the data for a type would make it
        return None
    size = (data[a].num_nodes, data[b].num_nodes)
    found = None
    for first, relation, last in data.edge_types:
        for ends, turned in (((first, last), False), ((last, first), True)):
            if ends != (a, b):
                continue
            edges = data[first, relation, last].edge_index
            source, end = edges.flip(0) if turned else edges
            one = sp.csr_matrix((np.ones(len(source), bool), (source.numpy(), end.numpy())), shape=size)
            found = one if found is None else found + one
    return None if found is None else found.astype(np.int32)
