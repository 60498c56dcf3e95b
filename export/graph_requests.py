"""Requests for the nodes of a graph, as a device would send them: for samples, accuracy and the bench."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from graph2mlp.data.features import SparseRows
from graph2mlp.data.graph import GraphData
from graph2mlp.export.requests import Requests, pad_lists
from graph2mlp.structure.requests import neighbour_requests

__all__ = ["node_requests"]


def node_requests(graph: GraphData, ids: Tensor, *, structure: bool, cold: bool = False) -> Requests:
    """The requests a device would send for nodes `ids [B]` of the graph; `cold`: as if they had no edges."""
    rows = graph.features(ids)
    neighbors = neighbour_requests(graph, ids, cold=cold).numpy() if structure else None
    if not isinstance(rows, SparseRows):
        return Requests(x=rows.numpy(), neighbors=neighbors, ids=ids.numpy())
    cuts = rows.offsets[1:-1].numpy()
    indices = pad_lists(np.split(rows.indices.numpy(), cuts), np.int64)
    values = pad_lists(np.split(rows.values.numpy(), cuts), np.float32, fill=0)
    return Requests(indices=indices, values=values, neighbors=neighbors, ids=ids.numpy())
