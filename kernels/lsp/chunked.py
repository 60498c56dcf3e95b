"""LSP in plain torch: one number per edge forward, sparse products backward. Nothing of size E x d is kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graph2mlp.kernels.lsp.similarity import Similarity
from graph2mlp.kernels.neighbours import NeighbourIndex, Segments
from graph2mlp.kernels.operator import statistics_dtype

__all__ = ["chunked"]


def chunked(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    graph: NeighbourIndex,
    similarity: Similarity,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]`, the KL of each node's neighbours, and the gradients of `sum_i weight_i L_i`."""
    dtype = statistics_dtype(student, teacher)
    if not graph.num_edges:
        sides = ((student, need_student), (teacher, need_teacher))
        d_student, d_teacher = (weight.new_zeros(side.shape if needed else 0) for side, needed in sides)
        return torch.zeros_like(weight), d_student, d_teacher
    s, t = (_Side(side.to(dtype), graph, similarity) for side in (student, teacher))
    rows, own = graph.incoming, graph.target
    log_q, log_p = (rows.log_softmax(similarity.value(side.raw)) for side in (s, t))
    p, gap = log_p.exp(), log_p - log_q
    losses = rows.total(p * gap).clamp_(min=0)  # of rounding; NaN stays NaN
    share = weight.double().index_select(0, own)
    d_student, d_teacher = weight.new_empty(0), weight.new_empty(0)
    if need_student:
        d_student = s.gradient(torch.where(share == 0, 0, share * (log_q.exp() - p)))
    if need_teacher:
        d_teacher = t.gradient(torch.where(share == 0, 0, share * p * (gap - losses.index_select(0, own))))
    return losses.to(dtype), d_student, d_teacher


class _Side:
    """The features of one side and the raw number of each of its edges, in float64: E numbers cost little."""

    def __init__(self, x: Tensor, graph: NeighbourIndex, similarity: Similarity) -> None:
        self.x, self.graph, self.similarity = x, graph, similarity
        if similarity.distance:
            self.raw = self._distances()
            return
        self.raw = graph.incoming.products(x).double()
        if similarity.normalized:
            length = torch.linalg.vector_norm(x, dim=1).double()
            self.inverse = torch.where(length == 0, 0, length.reciprocal())
            self.raw *= self._ends(self.inverse)

    def gradient(self, coefficient: Tensor) -> Tensor:
        """`sum_e coefficient_e d e / d x`, `[N, d]`."""
        pull = coefficient * self.similarity.pull(self.raw)
        if self.similarity.distance:
            return self._pull_together(pull)
        if not self.similarity.normalized:
            return self._both_ways(pull)
        out = self._both_ways(pull * self._ends(self.inverse))
        # What changes the length of a row changes no cosine: that part of the pull is taken out.
        lengthwise = pull * self.raw
        along = self.graph.incoming.total(lengthwise)
        along += self.graph.outgoing.total(lengthwise.index_select(0, self.graph.out_edge))
        along *= self.inverse.square()
        out.addcmul_(self.x, along.to(out.dtype)[:, None], value=-1)
        alone = (self.graph.pointer.diff() + self.graph.out_pointer.diff()) == 0
        return out.masked_fill_(alone[:, None], 0)  # not 0 times the features, which may be NaN

    def _ends(self, values: Tensor) -> Tensor:
        """`values_i values_j` for each edge."""
        return values.index_select(0, self.graph.source) * values.index_select(0, self.graph.target)

    def _both_ways(self, pull: Tensor) -> Tensor:
        pull = pull.to(self.x.dtype)
        out = self.graph.incoming.sum(self.x, pull)
        out += self.graph.outgoing.sum(self.x, pull.index_select(0, self.graph.out_edge))
        return out

    def _distances(self) -> Tensor:
        """From the differences themselves: `|x|^2 + |y|^2 - 2 x.y` would leave no digits between near neighbours."""
        out = self.x.new_empty(self.graph.num_edges)
        for where, gap in self._gaps(self.graph.incoming):
            out[where] = (gap.abs_() if self.similarity.kernel == "laplace" else gap.square_()).sum(1)
        return out.double()

    def _pull_together(self, pull: Tensor) -> Tensor:
        pull = pull.to(self.x.dtype)
        out = torch.zeros_like(self.x)
        for rows, order in ((self.graph.incoming, None), (self.graph.outgoing, self.graph.out_edge)):
            weight = pull if order is None else pull.index_select(0, order)
            for where, gap in self._gaps(rows):
                rows.add(out, where, gap.sign_() if self.similarity.kernel == "laplace" else gap, weight[where])
        return out

    def _gaps(self, rows: Segments) -> Iterator[tuple[slice, Tensor]]:
        """`x_other - x_own`, a block of edges at a time."""
        for where in rows.blocks(self.x.size(1)):
            yield where, self.x.index_select(0, rows.other[where]).sub_(self.x.index_select(0, rows.own[where]))
