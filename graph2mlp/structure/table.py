"""`StructureTable`: what a student knows about the edges, as one vector per node, and the rule for unseen nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.features import all_finite
from graph2mlp.data.graph import GraphData
from graph2mlp.data.neighbours import Neighbours
from graph2mlp.errors import DataError
from graph2mlp.tensor_files import save_tensors

__all__ = ["PAD", "StructureTable"]

_NUMBERS = 1 << 24
"""Numbers of neighbours' rows that are held at once."""

PAD = -1
"""Fills a row of neighbour ids up to the longest row of its batch."""


@dataclass(frozen=True, eq=False)
class StructureTable:
    """One structure vector per node id, and one rule that serves training and deployment alike.

    A request is a list of node ids: `[i]` itself for a node of the table, the neighbours of a node that is not in it.
    The answer is the mean of the known rows, `sum_j known_j rows_j / max(1, sum_j known_j)`: zeros when none is known.
    Weights of edges do not enter it: a request names neighbours only.

    Shapes: `rows [N, P]` float32, `known [N]` bool. A node without edges, or unseen in training, is not known; its row
    is zero.
    """

    encoder: str
    rows: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or self.known.shape != (len(self.rows),) or self.known.dtype != torch.bool:
            raise DataError(
                f"A structure table needs rows [N, P] and known [N] bool, got {list(self.rows.shape)} and "
                f"{self.known.dtype} {list(self.known.shape)}."
            )
        if not all_finite(self.rows):
            raise DataError(f"The structure table of '{self.encoder}' holds NaN or infinite numbers.")

    @property
    def width(self) -> int:
        return self.rows.size(1)

    def for_known(self, ids: Tensor) -> Tensor:
        """Rows of nodes in the table: `ids [B]` -> `[B, P]`."""
        return self.rows[ids]

    def for_unseen(self, neighbours: Tensor) -> Tensor:
        """Mean over known neighbours: `neighbours [B, K]` int64, padded with `PAD` -> `[B, P]`."""
        out = torch.empty(len(neighbours), self.width)
        # One node with many neighbours makes K large for all, so a few requests are answered at once.
        size = max(1, _NUMBERS // max(1, neighbours.size(1) * self.width))
        for part, means in zip(neighbours.split(size), out.split(size), strict=True):
            present = (part != PAD) & self.known[part]
            total = (self.rows[part] * present.unsqueeze(-1)).sum(1)
            torch.div(total, present.sum(1, keepdim=True).clamp(min=1), out=means)
        return out

    def for_nodes(self, graph: GraphData, ids: Tensor, *, cold: bool = False) -> Tensor:
        """What `for_unseen` says to `neighbour_requests(graph, ids, cold=cold)`, without that array: `[B, P]`."""
        if cold:
            return torch.zeros(len(ids), self.width)
        out = self.for_known(ids)
        unseen = torch.isin(ids, graph.split.unseen)
        if bool(unseen.any()):
            out[unseen] = self._means_of(graph.node_ids, graph.in_neighbours, ids[unseen])
        return out

    def neighbour_means(self, graph: GraphData, ids: Tensor | None = None) -> Tensor:
        """What `for_unseen` would say of every node of the observed `graph`, were it new: `[N_observed, P]`.

        Or of the nodes at positions `ids [B]` only, `[B, P]`, in memory that grows with their edges.
        """
        found = graph.in_neighbours
        if ids is not None:
            return self._means_of(graph.node_ids, found, ids)
        known = self.known[graph.node_ids]
        with_count = torch.cat([self.rows[graph.node_ids], known.float().unsqueeze(1)], 1)
        total: Tensor = found.matrix(known[found.ids].float()) @ with_count
        return total[:, :-1] / total[:, -1:].clamp(min=1)

    def _means_of(self, node_ids: Tensor, found: Neighbours, ids: Tensor) -> Tensor:
        start, count = found.pointer[ids], found.count[ids]
        ends = count.cumsum(0)
        offsets = ends - count
        edges = torch.arange(int(count.sum())) + (start - offsets).repeat_interleave(count)
        sources = node_ids[found.ids[edges]]
        known = self.known[sources].float()
        # One sum over known rows for each node; the row of an unknown node is zero.
        total = F.embedding_bag(sources, self.rows, offsets, mode="sum", per_sample_weights=known)
        seen = torch.zeros(len(ids)).index_add_(0, torch.arange(len(ids)).repeat_interleave(count), known)
        return total / seen.clamp(min=1).unsqueeze(1)

    def save(self, path: Path) -> None:
        """Write as safetensors, in one step."""
        save_tensors(path, {"rows": self.rows, "known": self.known}, {"encoder": self.encoder})

    @classmethod
    def load(cls, path: Path) -> StructureTable:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                return cls(metadata["encoder"], file.get_tensor("rows"), file.get_tensor("known"))
        except (SafetensorError, OSError, KeyError) as error:
            raise DataError(f"{path} is not a structure table ({error}). Run distill again.") from None
