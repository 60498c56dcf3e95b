"""The symmetric normalised adjacency that structure encoders multiply with."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import symmetric_neighbours
from graph2mlp.errors import DataError

__all__ = ["check_connected", "normalised_adjacency"]


def normalised_adjacency(graph: GraphData, *, self_loops: bool) -> tuple[Tensor, Tensor]:
    """`D^-1/2 max(Adj, Adj^T) D^-1/2` as torch CSR float32, each edge once, and which nodes have edges `[N]` bool.

    With `self_loops` every node with edges has one; rows of nodes without edges stay empty in value.

    Raises:
        DataError: fewer than 3 nodes have edges.
    """
    found = symmetric_neighbours(*graph.edges(), self_loops=self_loops)
    connected = found.count > int(self_loops)
    check_connected(graph, int(connected.sum()))
    scale = torch.where(connected, found.strength().rsqrt(), 0)
    values = scale.repeat_interleave(found.count).mul_(scale[found.ids])
    return found.matrix(values if found.weight is None else values.mul_(found.weight)), connected


def check_connected(graph: GraphData, count: int) -> None:
    """Raise DataError when too few nodes have edges."""
    if count < 3:
        raise DataError(
            f"Graph '{graph.name}' has {count} nodes with edges; structure needs at least 3. "
            "Use a method that reads features only, such as blend_features."
        )
