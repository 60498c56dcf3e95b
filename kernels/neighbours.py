"""The edges of a graph, sorted once so that losses over neighbours can run through them row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graph2mlp.errors import KernelError

__all__ = ["NeighbourIndex", "Segments"]

_BLOCK = 2**20  # gathered numbers at a time: they stay in the cache between the steps of one block


@dataclass(frozen=True, eq=False)
class NeighbourIndex:
    """In-neighbours of every node as CSR, and the same edges sorted the other way. Self-loops and repeats are legal.

    Node i has the in-neighbours `source[pointer[i]:pointer[i + 1]]`. Made once per graph by `from_edge_index`; index
    types are int32 while they suffice, which halves what is read per edge.
    """

    pointer: Tensor
    """`[N + 1]`: where the edges into each node begin."""
    source: Tensor
    """`[E]`: where each edge comes from."""
    target: Tensor
    """`[E]`, ascending: where each edge goes to."""
    out_pointer: Tensor
    """`[N + 1]`: where the edges out of each node begin in `out_edge`."""
    out_edge: Tensor
    """`[E]`: the edges in ascending order of their source, as positions in `source` and `target`."""

    @staticmethod
    def from_edge_index(edge_index: Tensor, num_nodes: int) -> NeighbourIndex:
        """From `edge_index [2, E]`, row 0 sources and row 1 targets, int32 or int64; the order of edges is free.

        Raises:
            KernelError: another type or shape, or an edge names a node that is not in `0 .. num_nodes - 1`.
        """
        if edge_index.dim() != 2 or len(edge_index) != 2 or edge_index.dtype not in (torch.int32, torch.int64):
            raise KernelError(
                "NeighbourIndex: edge_index must be int32 or int64 [2, edges], sources above targets; "
                f"got {str(edge_index.dtype).removeprefix('torch.')} {list(edge_index.shape)}."
            )
        if num_nodes < 1:
            raise KernelError(f"NeighbourIndex: num_nodes must be at least 1, got {num_nodes}.")
        edges = edge_index.long()
        if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= num_nodes):
            bad = int(edges[(edges < 0) | (edges >= num_nodes)][0])
            raise KernelError(f"NeighbourIndex: an edge names node {bad}, but nodes run from 0 to {num_nodes - 1}.")
        # Sorted by target, then source: sums over a row do not depend on the order in which edges were given.
        key, _ = torch.sort(edges[1] * num_nodes + edges[0])
        target, source = key // num_nodes, key % num_nodes
        by_source, out_edge = torch.sort(source, stable=True)
        nodes = torch.arange(num_nodes + 1, device=edges.device)
        parts = (
            torch.searchsorted(target, nodes), source, target, torch.searchsorted(by_source, nodes), out_edge,
        )  # fmt: skip
        narrow = max(num_nodes, len(source)) < 2**31
        return NeighbourIndex(*[part.to(torch.int32 if narrow else torch.int64) for part in parts])

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.pointer) - 1

    @property
    def num_edges(self) -> int:
        """E, repeated edges counted as often as they occur."""
        return len(self.source)

    @property
    def degree(self) -> Tensor:
        """`[N]`: how many edges go into each node."""
        return self.pointer.diff()

    @property
    def incoming(self) -> Segments:
        """The edges grouped by target."""
        return Segments(self.pointer, self.target, self.source)

    @property
    def outgoing(self) -> Segments:
        """The edges grouped by source, in the order `out_edge`."""
        own, other = (side.index_select(0, self.out_edge) for side in (self.source, self.target))
        return Segments(self.out_pointer, own, other)

    def to(self, device: torch.device | str) -> NeighbourIndex:
        """The same graph on another device."""
        parts = (self.pointer, self.source, self.target, self.out_pointer, self.out_edge)
        return NeighbourIndex(*[part.to(device) for part in parts])


@dataclass(frozen=True, eq=False)
class Segments:
    """Edges in consecutive groups, one for each node; what the losses need of them, in plain torch, without autograd.

    Every sum has one writer and a fixed order, so two runs agree bit by bit, with any number of threads.
    """

    pointer: Tensor
    """`[N + 1]`"""
    own: Tensor
    """`[E]`, ascending: the node that owns each edge."""
    other: Tensor
    """`[E]`: the node at the other end."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of each group: `values [E]` -> `[N]`, 0 for a group without edges."""
        return _reduce(values, "sum", self.pointer)

    def log_softmax(self, values: Tensor) -> Tensor:
        """`log softmax` within each group: `[E]` -> `[E]`."""
        top = _reduce(values, "max", self.pointer)
        shifted = values - top.index_select(0, self.own)
        return shifted.sub_(self.total(shifted.exp()).log_().index_select(0, self.own))

    def products(self, rows: Tensor) -> Tensor:
        """`x_own . x_other` for each edge: `rows [N, d]`, float32 or float64 -> `[E]`."""
        # torch refuses a sampled matrix with more entries than places, which repeated edges can make.
        if _has_sparse(rows) and len(self.own) <= len(rows) ** 2:
            wanted = self._matrix(rows.new_zeros(len(self.own)))
            found: Tensor = torch.sparse.sampled_addmm(wanted, rows, rows.T, beta=0).values()
            return found
        out = rows.new_empty(len(self.own))
        for where in self.blocks(rows.size(1)):
            own, other = (rows.index_select(0, side[where]) for side in (self.own, self.other))
            out[where] = own.mul_(other).sum(1)
        return out

    def sum(self, rows: Tensor, weight: Tensor) -> Tensor:
        """`out_i = sum over its edges of weight_e x_other`: `rows [N, d]`, `weight [E]`, same type -> `[N, d]`."""
        if _has_sparse(rows):
            total: Tensor = torch.sparse.mm(self._matrix(weight), rows, "sum")
            return total
        out = torch.zeros_like(rows)
        for where in self.blocks(rows.size(1)):
            self.add(out, where, rows.index_select(0, self.other[where]), weight[where])
        return out

    def blocks(self, width: int) -> Iterator[slice]:
        """All edges, as many at a time as make a block of bounded size when rows of `width` are gathered for them."""
        step = max(1, _BLOCK // width)
        for start in range(0, len(self.own), step):
            yield slice(start, min(start + step, len(self.own)))

    def add(self, total: Tensor, where: slice, block: Tensor, weight: Tensor) -> None:
        """`total_own += weight_e block_e` for the edges `where`: `total [N, d]`, `block [B, d]`, `weight [B]`."""
        first, last = int(self.own[where.start]), int(self.own[where.stop - 1])
        # A long group continues in the next block; blocks come in order, so its parts are added in order too.
        pointer = (self.pointer[first : last + 2] - where.start).clamp_(0, len(block))
        if _has_sparse(block):
            every = torch.arange(len(block), dtype=pointer.dtype, device=block.device)
            matrix = _csr(pointer, every, weight, len(block))
            total[first : last + 1] += torch.sparse.mm(matrix, block, "sum")
        else:
            total[first : last + 1] += _reduce(block * weight[:, None], "sum", pointer)

    def _matrix(self, values: Tensor) -> Tensor:
        return _csr(self.pointer, self.other, values, len(self.pointer) - 1)


def _has_sparse(rows: Tensor) -> bool:
    """Whether torch's own row-by-row sparse products run here. On a GPU they are cuSPARSE's, in no promised order."""
    return rows.device.type == "cpu"


def _reduce(values: Tensor, how: str, pointer: Tensor) -> Tensor:
    """Over each group of rows of `values`; no group is empty where the maximum is used."""
    reduced: Tensor = torch.segment_reduce(values, how, offsets=pointer, axis=0, unsafe=True)
    return reduced


def _csr(pointer: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    return torch.sparse_csr_tensor(
        pointer, columns, values, size=(len(pointer) - 1, width), check_invariants=False, requires_grad=False
    )
