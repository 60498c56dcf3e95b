"""Positions from the spectrum: eigenvectors of the normalised adjacency."""

from __future__ import annotations

import inspect

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from graph2mlp.data.graph import GraphData, csr_neighbours
from graph2mlp.errors import DataError

__all__ = ["laplacian_eigenvectors"]


def laplacian_eigenvectors(graph: GraphData, *, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `dim` leading eigenvectors of `D^-1/2 A D^-1/2` -> (`[N, dim]` float32, `known [N]` bool).

    They are the smoothest functions on the graph, those of the smallest eigenvalues of the normalised Laplacian
    (Belkin and Niyogi, 2003). Nodes without edges are left out before the decomposition: each would have an
    eigenvector of its own (value 1 with self-loops) and eat a dimension. Each row is scaled to length 1, so that its
    direction says where the node is; signs are fixed by the largest entry. Fewer than `dim + 1` connected nodes leave
    the last columns zero.
    """
    pointer, neighbours = csr_neighbours(graph.edge_index, graph.num_nodes)
    adjacency = sp.csr_matrix(
        (np.ones(len(neighbours)), neighbours.numpy(), pointer.numpy()), (graph.num_nodes, graph.num_nodes)
    )
    adjacency = adjacency.maximum(adjacency.T)  # positions do not depend on the direction of an edge
    degree = np.asarray(adjacency.sum(1)).ravel()
    connected = np.nonzero(degree)[0]
    if len(connected) < 3:
        raise DataError(
            f"Graph '{graph.name}' has {len(connected)} nodes with edges; structure needs at least 3. "
            "Use a method that reads features only, such as glnn."
        )
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
