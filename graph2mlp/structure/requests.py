"""What a device sends for a node: its own id when the table holds it, its neighbours' ids when it does not."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.data.graph import GraphData
from graph2mlp.structure.table import PAD

__all__ = ["neighbour_requests"]


def neighbour_requests(graph: GraphData, ids: Tensor, *, cold: bool = False) -> Tensor:
    """The `neighbors` input for nodes `ids [B]` of the full graph -> `[B, K]` int64, padded with `PAD`.

    An observed node asks for itself (K = 1), an unseen one for its in-neighbours; with `cold` everyone arrives
    without edges (K = 1, all padding).
    """
    if cold:
        return torch.full((len(ids), 1), PAD)
    unseen = torch.zeros(graph.num_nodes, dtype=torch.bool)
    unseen[graph.split.unseen] = True
    if not bool(unseen[ids].any()):
        return ids.unsqueeze(1)
    found = graph.in_neighbours
    start, count = found.pointer[ids], torch.where(unseen[ids], found.count[ids], 1)
    out = torch.full((len(ids), max(1, int(count.max()))), PAD)
    column = torch.arange(out.size(1)).expand_as(out)
    filled = column < count.unsqueeze(1)
    flat = (start.unsqueeze(1) + column)[filled].clamp(max=max(0, len(found.ids) - 1))
    out[filled] = found.ids[flat]
    return torch.where(unseen[ids].unsqueeze(1), out, torch.where(column == 0, ids.unsqueeze(1), PAD))
