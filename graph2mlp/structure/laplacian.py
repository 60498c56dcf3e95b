"""Positions from the spectrum: eigenvectors of the normalised adjacency."""

from __future__ import annotations

import inspect

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError
from graph2mlp.structure.adjacency import check_connected, normalised_adjacency
from graph2mlp.structure.subspace import leading_eigenvectors

__all__ = ["LARGE", "laplacian_eigenvectors"]

LARGE = 50_000
"""Nodes above which the eigenvectors are approximated."""


def laplacian_eigenvectors(graph: GraphData, *, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `dim` leading eigenvectors of `D^-1/2 A D^-1/2` -> (`[N, dim]` float32, `known [N]` bool).

    They are the smoothest functions on the graph, those of the smallest eigenvalues of the normalised Laplacian
    (Belkin and Niyogi, 2003). Nodes without edges are left out before the decomposition: each would have an
    eigenvector of its own (value 1 with self-loops) and eat a dimension. Each row is scaled to length 1, so that its
    direction says where the node is; signs are fixed by the largest entry. Fewer than `dim + 1` connected nodes leave
    the last columns zero.

    Up to `LARGE` nodes by ARPACK, to its full accuracy; beyond by filtered subspace iteration in float32, whose time
    and memory are bounded (see `leading_eigenvectors`).
    """
    if graph.num_nodes > LARGE:
        return _large(graph, dim, seed)
    found = graph.in_neighbours
    parts = (found.values().double().numpy(), found.ids.numpy(), found.pointer.numpy())
    adjacency = sp.csr_matrix(parts, (graph.num_nodes, graph.num_nodes))
    adjacency = adjacency.maximum(adjacency.T)  # positions do not depend on the direction of an edge
    degree = np.asarray(adjacency.sum(1)).ravel()
    connected = np.nonzero(degree)[0]
    check_connected(graph, len(connected))
    scale = sp.diags(degree[connected] ** -0.5)
    normalised = scale @ adjacency[connected][:, connected] @ scale
    count = min(dim, len(connected) - 1)
    # A fixed start makes the iteration repeatable; ARPACK would draw its own. Newer versions of scipy also draw
    # restarts, from a fresh generator unless they are given one.
    start = np.random.RandomState(seed).rand(len(connected))
    fixed = {"rng": np.random.default_rng(seed)} if "rng" in inspect.signature(eigsh).parameters else {}
    try:
        values, vectors = eigsh(normalised, k=count, which="LA", v0=start, **fixed)
    except ArpackNoConvergence as error:
        raise DataError(
            f"The eigenvectors of graph '{graph.name}' did not converge ({error}). Lower structure.dim, or use "
            "structure.encoder=deepwalk."
        ) from None
    vectors = vectors[:, np.argsort(-values)]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(count)]
    vectors = vectors * np.sign(largest)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows = np.zeros((graph.num_nodes, dim), dtype=np.float32)
    rows[connected, :count] = vectors
    return torch.from_numpy(rows), torch.from_numpy(degree > 0)


def _large(graph: GraphData, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same table of a large graph, approximately."""
    adjacency, connected = normalised_adjacency(graph, self_loops=False)
    count = min(dim, int(connected.sum()) - 1)
    rows = leading_eigenvectors(adjacency, count, support=connected, seed=seed)
    largest = rows[rows.abs().argmax(0), torch.arange(count)]
    rows = rows * torch.sign(largest)
    rows /= rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    if count == dim:
        return rows, connected
    return torch.cat([rows, rows.new_zeros(len(rows), dim - count)], 1), connected
