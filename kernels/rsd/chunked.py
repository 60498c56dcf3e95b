"""RSD in plain torch: the two passes of `gram.py`, a chunk of rows at a time, O(d^2) memory beside the gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graph2mlp.kernels.operator import statistics_dtype
from graph2mlp.kernels.rsd.gram import CHUNK, DifferenceGrams, Factors, Grams, Rows, SeparateGrams, closed_form

__all__ = ["chunked"]


def chunked(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    node_weight: Tensor | None,
    anchors: Tensor | None,
    diagonal: bool,
    precise: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: the loss, a scalar, and the gradients of `weight` times it."""
    difference = student.size(1) == teacher.size(1)
    statistics = statistics_dtype(student, teacher)
    # Unequal widths, and a diagonal that is subtracted, leave a small rest of large sums: never in float32.
    exact = precise or not difference or not diagonal
    passes = _Chunks(torch.float64 if exact else statistics, statistics, difference)
    rows = Rows(student, teacher, node_weight)
    return closed_form(passes, rows, weight, anchors, diagonal, need_student, need_teacher)


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows `where` of both sides in the type that is computed with; `weight [B, 1]`."""

    where: slice
    student: Tensor
    teacher: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class _Chunks:
    dtype: torch.dtype
    """The type that is computed with."""
    statistics: torch.dtype
    """The type of the gradients."""
    difference: bool
    """Which blocks of features the Gram matrices are of."""

    def _blocks(self, rows: Rows) -> Iterator[_Block]:
        for start in range(0, len(rows.student), CHUNK):
            where = slice(start, start + CHUNK)
            weight = None if rows.weight is None else rows.weight[where, None].to(self.dtype)
            yield _Block(where, rows.student[where].to(self.dtype), rows.teacher[where].to(self.dtype), weight)

    def grams(self, rows: Rows) -> Grams:
        """See `Passes`."""
        a, b = rows.student.size(1), rows.teacher.size(1)
        xx, yx, yy = (
            torch.zeros(size, dtype=self.dtype, device=rows.student.device) for size in ((a, a), (b, a), (b, b))
        )
        for block in self._blocks(rows):
            x, y = block.student, block.teacher
            if self.difference:
                x, y = x + y, x - y
            weighted_x, weighted_y = (x, y) if block.weight is None else (x * block.weight, y * block.weight)
            xx.addmm_(x.T, weighted_x)
            yx.addmm_(y.T, weighted_x)
            yy.addmm_(y.T, weighted_y)
        return DifferenceGrams(xx, yx, yy) if self.difference else SeparateGrams(xx, yx, yy)

    def pull_back(self, rows: Rows, factors: Factors, own_pair: Tensor | None, teacher: bool) -> Tensor:
        """See `Passes`."""
        out = torch.empty_like(
            rows.teacher if teacher else rows.student, dtype=self.statistics, memory_format=torch.contiguous_format
        )
        for block in self._blocks(rows):
            own, other = (block.teacher, block.student) if teacher else (block.student, block.teacher)
            if self.difference:
                other = block.student - block.teacher
            part = (own @ factors.own).addmm_(other, factors.other)
            if block.weight is not None:
                part *= block.weight
            if own_pair is not None:
                part.addcmul_(own, own_pair[block.where, None])
            out[block.where] = part
        return out
