"""The symmetric normalised adjacency that structure encoders multiply with."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData, csr_neighbours
from graph2mlp.errors import DataError

__all__ = ["check_connected", "normalised_adjacency"]


def normalised_adjacency(graph: GraphData, *, self_loops: bool) -> tuple[Tensor, Tensor]:
    """`D^-1/2 (Adj + Adj^T) D^-1/2` as torch CSR float32, each edge once, and which nodes have edges `[N]` bool.

    With `self_loops` every node with edges has one; rows of nodes without edges stay empty in value.

    Raises:
        DataError: fewer than 3 nodes have edges.
    """
    both = torch.cat([graph.edge_index, graph.edge_index.flip(0)], 1)
    pointer, neighbours = csr_neighbours(both, graph.num_nodes, self_loops=self_loops)
    del both
    degree = pointer.diff()
    connected = degree > int(self_loops)
    check_connected(graph, int(connected.sum()))
    scale = degree.clamp(min=1).float().rsqrt() * connected
    values = scale.repeat_interleave(degree).mul_(scale[neighbours])
    size = (graph.num_nodes, graph.num_nodes)
    return torch.sparse_csr_tensor(pointer, neighbours, values, size, check_invariants=False), connected


def check_connected(graph: GraphData, count: int) -> None:
    """Raise DataError when too few nodes have edges."""
    if count < 3:
        raise DataError(
            f"Graph '{graph.name}' has {count} nodes with edges; structure needs at least 3. "
            "Use a method that reads features only, such as glnn."
        )
