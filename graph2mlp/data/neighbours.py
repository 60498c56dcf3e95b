"""Who points at whom: the edges of a graph as rows of in-neighbours, each once, with the weight of the edge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

__all__ = ["Neighbours", "both_directions", "csr_neighbours", "symmetric_neighbours"]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """In-neighbours as CSR: node i has `ids[pointer[i]:pointer[i + 1]]`, ascending, each once.

    Shapes: `pointer [N + 1]` and `ids [E]` int64; `weight [E]` float32, positive, None where every edge weighs 1.
    """

    pointer: Tensor
    ids: Tensor
    weight: Tensor | None = None

    @cached_property
    def count(self) -> Tensor:
        """How many neighbours each node has, `[N]`."""
        return self.pointer.diff()

    def targets(self) -> Tensor:
        """The node at the other end of each edge, `[E]`, beside `ids`."""
        return torch.repeat_interleave(torch.arange(len(self.count)), self.count)

    def values(self) -> Tensor:
        """The weight of each edge, `[E]` float32."""
        return torch.ones(len(self.ids)) if self.weight is None else self.weight

    def strength(self) -> Tensor:
        """The sum of each node's weights, `[N]` float32: its degree where there are none."""
        if self.weight is None:
            return self.count.float()
        return torch.zeros(len(self.count)).index_add_(0, self.targets(), self.weight)

    def matrix(self, values: Tensor) -> Tensor:
        """A torch CSR matrix `[N, N]` (row: target, column: source) with these `values [E]`."""
        size = (len(self.count), len(self.count))
        return torch.sparse_csr_tensor(self.pointer, self.ids, values, size, check_invariants=False)

    def sample(self, nodes: Tensor, draws: Tensor) -> Tensor:
        """A neighbour of each of `nodes [B]`, as likely as its weight says; the node itself where it has none.

        `draws [B]` are uniform in [0, 1).
        """
        if not len(self.ids):
            return nodes
        start, count = self.pointer[nodes], self.count[nodes]
        if self.weight is None:
            place = start + (draws * count).long()
        else:
            low, high = self._summed[start], self._summed[start + count]
            place = torch.searchsorted(self._summed, low + draws * (high - low), right=True) - 1
            place = torch.minimum(torch.maximum(place, start), start + count - 1)  # a sum of floats may be off by a bit
        return torch.where(count > 0, self.ids[place.clamp(max=len(self.ids) - 1)], nodes)

    @cached_property
    def _summed(self) -> Tensor:
        """Sums of the weights before each edge, `[E + 1]` float64."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), self.values().double().cumsum(0)])


def csr_neighbours(
    edge_index: Tensor,
    num_nodes: int,
    weight: Tensor | None = None,
    *,
    self_loops: bool = False,
    merge: np.ufunc = np.add,
) -> Neighbours:
    """The in-neighbours of `num_nodes` nodes, of `edge_index [2, E]` (source, target) and its weights `[E]`.

    Repeated edges are kept once, their weights merged (added, or by another `merge`), so the result depends on the
    graph only. Self-loops are left out, or with `self_loops` every node has one, of weight 1.
    """
    source, target = edge_index
    key = torch.mul(target, num_nodes).add_(source)
    other = source != target
    key = key[other]
    if self_loops:
        key = torch.cat([key, torch.arange(num_nodes) * (num_nodes + 1)])
    # numpy sorts in place, and many times faster than torch.unique, which also needs three times the memory.
    keys, values = key.numpy(), None
    if weight is None:
        keys.sort()
    else:
        own = torch.ones(num_nodes if self_loops else 0)
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], torch.cat([weight[other], own]).numpy()[order]
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    if not first.all():
        keys = keys[first]
        values = None if values is None else merge.reduceat(values, np.nonzero(first)[0])
    key = torch.from_numpy(keys)
    pointer = torch.zeros(num_nodes + 1, dtype=torch.long)
    target = torch.div(key, num_nodes, rounding_mode="floor")
    pointer[1:] = torch.cumsum(torch.bincount(target, minlength=num_nodes), 0)
    return Neighbours(pointer, key.sub_(target.mul_(num_nodes)), None if values is None else torch.from_numpy(values))


def symmetric_neighbours(
    edge_index: Tensor, num_nodes: int, weight: Tensor | None = None, *, self_loops: bool = False
) -> Neighbours:
    """The same over both directions of each edge: where both are there, the larger weight counts."""
    if weight is not None:
        # Repeats are added up before the directions are compared.
        once = csr_neighbours(edge_index, num_nodes, weight)
        edge_index, weight = torch.stack([once.ids, once.targets()]), once.weight
    both = torch.cat([edge_index, edge_index.flip(0)], 1)
    weights = None if weight is None else torch.cat([weight, weight])
    return csr_neighbours(both, num_nodes, weights, self_loops=self_loops, merge=np.maximum)


def both_directions(edge_index: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Each edge both ways and once, sorted: `[2, E] -> [2, E']`, self edges included.

    Weights `[E] -> [E']`: those of repeats are added; where both directions are there, the larger counts for both.
    """
    both, place = torch.unique(torch.cat([edge_index, edge_index.flip(0)], 1), dim=1, return_inverse=True)
    if weight is None:
        return both, None
    forth, back = (torch.zeros(both.size(1)).index_add_(0, part, weight) for part in place.chunk(2))
    return both, torch.maximum(forth, back)
