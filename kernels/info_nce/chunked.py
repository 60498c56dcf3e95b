"""InfoNCE in plain torch: a block of rows at a time, gradients finished on the way, O((N + M) d) memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graph2mlp.kernels.info_nce.split import Positives
from graph2mlp.kernels.operator import statistics_dtype
from graph2mlp.kernels.rows import scatter_rows

__all__ = ["chunked"]

_BOUND = 20.0  # of logits that may share an exponential: rounding x - bound costs 1e-7 for each 2 of it

_BUFFER = 8 * 2**20  # numbers in the block of logits: 32 MiB in float32, where the products reach their full speed


def chunked(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    positives: Tensor | None,
    labels: Tensor | None,
    symmetric: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]` and the gradients of `sum_i weight_i L_i`, for `x_ij = s_i . t_j` as given."""
    blocks = _Blocks(student, teacher, positives, labels)
    pairs = Positives.of(student, teacher, positives)
    run = _symmetric if symmetric else _one_direction
    return run(blocks, pairs, weight, need_student, need_teacher)


@dataclass(frozen=True, eq=False)
class _Block:
    """Rows `where` of the matrix: `x [B, M]`, -inf at the positive and at rows with the anchor's label."""

    where: slice
    x: Tensor


class _Blocks:
    """The N x M matrix of logits, one block of rows at a time, always in the same buffer."""

    def __init__(self, student: Tensor, teacher: Tensor, positives: Tensor | None, labels: Tensor | None) -> None:
        self.dtype = statistics_dtype(student, teacher)
        # bfloat16 features are rounded to 8 bits already; their gradient products lose no more, and run much faster.
        half = student.dtype == teacher.dtype == torch.bfloat16
        self.fast = torch.bfloat16 if half else self.dtype
        self.student, self.teacher = student.to(self.dtype), teacher.to(self.dtype)
        self.keys = teacher.to(self.fast)
        self.positives = torch.arange(len(student), device=student.device) if positives is None else positives
        self.labels = labels
        self.rows = min(len(student), max(1, _BUFFER // len(teacher)))
        self.buffer = torch.empty(self.rows, len(teacher), dtype=self.dtype, device=student.device)

    def __iter__(self) -> Iterator[_Block]:
        for start in range(0, len(self.student), self.rows):
            where = slice(start, min(start + self.rows, len(self.student)))
            x = self.buffer[: where.stop - start]
            torch.mm(self.student[where], self.teacher.T, out=x)
            if self.labels is not None:
                x.masked_fill_(self.labels[where, None] == self.labels[None, :], -torch.inf)
            x.scatter_(1, self.positives[where, None], -torch.inf)
            yield _Block(where, x)

    def bound(self) -> float:
        """No logit is larger; NaN if there is one among the features."""
        lengths = [torch.linalg.vector_norm(side, dim=1).max() for side in (self.student, self.teacher)]
        return float(lengths[0] * lengths[1])

    def times_keys(self, coefficients: Tensor) -> Tensor:
        """`[B, M] -> [B, d]`"""
        return (coefficients.to(self.fast) @ self.keys).to(self.dtype)

    def add_to_keys(self, total: Tensor, coefficients: Tensor, queries: Tensor) -> None:
        """`total [M, d] += coefficients^T [M, B] queries [B, d]`"""
        if self.fast == self.dtype:
            total.addmm_(coefficients.T, queries)
        else:
            total += coefficients.to(self.fast).T @ queries.to(self.fast)


def _one_direction(
    blocks: _Blocks, pairs: Positives, weight: Tensor, need_student: bool, need_teacher: bool
) -> tuple[Tensor, Tensor, Tensor]:
    losses, share = torch.empty_like(pairs.x), torch.empty_like(pairs.x)
    d_student = torch.empty_like(blocks.student) if need_student else losses.new_empty(0)
    d_teacher = torch.zeros_like(blocks.teacher) if need_teacher else losses.new_empty(0)
    for block in blocks:
        where, x = block.where, block.x
        top = x.amax(1, keepdim=True).clamp_(min=torch.finfo(x.dtype).min)  # a row without negatives has none
        mass = torch.exp_(x.sub_(top)).sum(1)
        off = Positives(pairs.x[where], None)
        losses[where], sigma = off.loss(top[:, 0] + mass.log())
        share[where] = weight[where] * sigma
        scale = torch.where(mass == 0, 0, share[where] / mass)[:, None]
        if need_student:
            d_student[where] = blocks.times_keys(x) * scale
        if need_teacher:
            blocks.add_to_keys(d_teacher, x, blocks.student[where] * scale)
    if need_student:
        d_student -= share[:, None] * pairs.rows(blocks.teacher)
    if need_teacher:
        d_teacher -= scatter_rows(share[:, None] * blocks.student, pairs.index, len(d_teacher))
    return losses, d_student, d_teacher


def _symmetric(
    blocks: _Blocks, pairs: Positives, weight: Tensor, need_student: bool, need_teacher: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Both softmaxes must be known before any coefficient is, so the logits are computed twice."""
    exponentials = _Bounded(blocks) if blocks.bound() <= _BOUND else _Unbounded(blocks)
    rows, columns = exponentials.log_sums()
    (row_loss, row_sigma), (column_loss, column_sigma) = pairs.loss(rows), pairs.loss(columns)
    losses = (row_loss + column_loss) / 2
    d_student = torch.empty_like(blocks.student) if need_student else losses.new_empty(0)
    d_teacher = torch.zeros_like(blocks.teacher) if need_teacher else losses.new_empty(0)
    if not (need_student or need_teacher):
        return losses, d_student, d_teacher
    row_share, column_share = weight * row_sigma / 2, weight * column_sigma / 2
    for block in blocks:
        coefficients = exponentials.coefficients(block, rows, columns, row_share, column_share)
        if need_student:
            d_student[block.where] = blocks.times_keys(coefficients)
        if need_teacher:
            blocks.add_to_keys(d_teacher, coefficients, blocks.student[block.where])
    share = (row_share + column_share)[:, None]
    if need_student:
        d_student -= share * blocks.teacher
    if need_teacher:
        d_teacher -= share * blocks.student
    return losses, d_student, d_teacher


class _Bounded:
    """One exponential for both softmaxes, `e^(x - bound)`: no logit is larger, none so small that it would vanish."""

    def __init__(self, blocks: _Blocks) -> None:
        self.blocks, self.bound = blocks, blocks.bound()

    def log_sums(self) -> tuple[Tensor, Tensor]:
        """Log-sum-exps of all rows and of all columns."""
        rows = torch.empty_like(self.blocks.student[:, 0])
        columns = torch.zeros_like(rows)
        for block in self.blocks:
            e = block.x.sub_(self.bound).exp_()
            rows[block.where] = e.sum(1)
            columns += e.sum(0)
        return rows.log_().add_(self.bound), columns.log_().add_(self.bound)

    def coefficients(
        self, block: _Block, rows: Tensor, columns: Tensor, row_share: Tensor, column_share: Tensor
    ) -> Tensor:
        """`a_i e^(x_ij - A_i) + b_j e^(x_ij - B_j)`, `[B, M]`; 0 where a row or column has no negatives."""
        own = torch.where(row_share == 0, 0, row_share * torch.exp(self.bound - rows))[block.where, None]
        other = torch.where(column_share == 0, 0, column_share * torch.exp(self.bound - columns))
        return block.x.sub_(self.bound).exp_().mul_(own + other)


class _Unbounded:
    """The same for logits of any size: each softmax with a shift and an exponential of its own."""

    def __init__(self, blocks: _Blocks) -> None:
        self.blocks = blocks

    def log_sums(self) -> tuple[Tensor, Tensor]:
        """Log-sum-exps of all rows and of all columns."""
        rows = torch.empty_like(self.blocks.student[:, 0])
        columns = torch.full_like(rows, -torch.inf)
        for block in self.blocks:
            rows[block.where] = torch.logsumexp(block.x, 1)
            columns = torch.logaddexp(columns, torch.logsumexp(block.x, 0))
        return rows, columns

    def coefficients(
        self, block: _Block, rows: Tensor, columns: Tensor, row_share: Tensor, column_share: Tensor
    ) -> Tensor:
        """See `_Bounded`."""
        lowest = torch.finfo(rows.dtype).min  # exp(-inf - -inf) is NaN; a row without negatives has coefficients 0
        where, x = block.where, block.x
        coefficients = torch.exp(x - columns.clamp(min=lowest)).mul_(column_share)
        x.sub_(rows[where, None].clamp(min=lowest))
        return coefficients.add_(torch.exp_(x).mul_(row_share[where, None]))
