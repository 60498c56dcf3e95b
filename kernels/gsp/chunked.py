"""GSP in plain torch: a block of rows at a time, gradients finished on the way, O(N d) memory."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.kernels.gsp.pairs import Pairs
from graph2mlp.kernels.operator import statistics_dtype
from graph2mlp.kernels.rows import scatter_rows

__all__ = ["chunked"]

_BUFFER = 2**21  # numbers in one block: five of 8 MiB in float32, where the products reach their full speed


def chunked(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    anchors: Tensor | None,
    kernel: str,
    divergence: str,
    tau: float,
    gamma: float,
    sign: int,
    diagonal: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]` and the gradients of `sum_i weight_i L_i`, for rows as `loss.py` prepares them."""
    pairs = Pairs.of(len(student), anchors, diagonal, weight)
    dtype = statistics_dtype(student, teacher)
    rows = min(len(student), max(1, _BUFFER // len(pairs.ids)))
    factor = -gamma if kernel == "rbf" else float(sign)
    s, t = (
        _Side(side.to(dtype), anchors, kernel, factor, rows, needed)
        for side, needed in ((student, need_student), (teacher, need_teacher))
    )
    losses = torch.empty_like(weight)
    for start in range(0, len(student), rows):
        block = _Block(slice(start, min(start + rows, len(student))), pairs)
        if divergence == "mse":
            losses[block.where] = _squares(block, s, t, weight)
        else:
            losses[block.where] = _divergences(block, s, t, weight[block.where, None] / tau, tau)
    return losses, s.gradient(), t.gradient()


class _Block:
    """Rows `where` of the N x M matrix, and which of its entries pair a row with itself."""

    def __init__(self, where: slice, pairs: Pairs) -> None:
        self.where, self.pairs = where, pairs
        own, column = pairs.own(where)
        self.own = (own, column)

    def leave_out(self, x: Tensor, value: float) -> Tensor:
        """`x [B, M]` with `value` at the pairs that take no part, in place."""
        if not self.pairs.diagonal:
            x[self.own] = value
        return x


class _Side:
    """One side's similarities, a block of rows at a time in the same buffer, and their pull-back to features."""

    def __init__(
        self, side: Tensor, anchors: Tensor | None, kernel: str, factor: float, rows: int, needed: bool
    ) -> None:
        self.rows, self.anchors, self.kernel, self.factor, self.needed = side, anchors, kernel, factor, needed
        self.columns = side if anchors is None else side[anchors]
        self.distance = kernel in ("l2", "rbf")
        self.buffer = side.new_empty(rows, len(self.columns))
        self.row_norms, self.column_norms = (x.square().sum(1) for x in (self.rows, self.columns))
        nothing = side.new_empty(0)
        self.d_rows, self.d_columns = (torch.zeros_like(x) if needed else nothing for x in (side, self.columns))

    def similarity(self, block: _Block) -> Tensor:
        """`[B, M]`; for `poly` before it is squared."""
        x = self.buffer[: block.where.stop - block.where.start]
        torch.mm(self.rows[block.where], self.columns.T, out=x)
        if self.distance:
            x.mul_(-2).add_(self.row_norms[block.where, None]).add_(self.column_norms)
            x[block.own] = 0  # known without rounding, and where an error under the root would be largest
            x.clamp_(min=0)
        if self.kernel == "l2":
            x.sqrt_().mul_(self.factor)
        elif self.kernel == "rbf":
            x.mul_(self.factor).exp_()
        return x

    def value(self, x: Tensor) -> Tensor:
        """`K` from what `similarity` gives, which may be the same memory."""
        return x.square() if self.kernel == "poly" else x

    def pull(self, block: _Block, x: Tensor, coefficients: Tensor, *, both: bool = False) -> None:
        """Add the gradient, given that of the similarities `x`, which are lost.

        With `both` the coefficients hold what comes from row i and from row j, so the columns get nothing more.
        """
        w = coefficients
        if self.kernel == "poly":
            w = x.mul_(2).mul_(coefficients)
        elif self.kernel == "rbf":
            w = x.mul_(2 * self.factor).mul_(coefficients)
        elif self.kernel == "l2":
            # K = sign r, so the slope sign / r is 1 / K; 0 where the distance is.
            w = torch.div(coefficients, x.masked_fill_(x == 0, torch.inf), out=x)
        rows = self.rows[block.where]
        self.d_rows[block.where] = self._spread(w, rows, self.columns)
        if not both:
            self.d_columns += self._spread(w.T, self.columns, rows)

    def _spread(self, w: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """`sum_j w_ij y_j`, or `sum_j w_ij (x_i - y_j)` for distances."""
        return w.sum(1, keepdim=True) * own - w @ other if self.distance else w @ other

    def gradient(self) -> Tensor:
        """Of both parts that a row plays; empty if it is not needed."""
        if not self.needed:
            return self.d_rows
        return self.d_rows + scatter_rows(self.d_columns, self.anchors, len(self.d_rows))


def _squares(block: _Block, s: _Side, t: _Side, weight: Tensor) -> Tensor:
    """Row losses; the coefficient of a pair is known at once, so a square matrix needs one pull-back for i and j."""
    square = s.anchors is None
    share = 2 * weight / block.pairs.members
    x, y = s.similarity(block), t.similarity(block)
    difference = block.leave_out(s.value(x) - t.value(y), 0)
    losses = difference.square().sum(1) / block.pairs.members[block.where]
    coefficients = difference.mul_(share[block.where, None] + share if square else share[block.where, None])
    if s.needed:
        s.pull(block, x, coefficients, both=square)
    if t.needed:
        t.pull(block, y, coefficients.neg_(), both=square)
    return losses


def _divergences(block: _Block, s: _Side, t: _Side, share: Tensor, tau: float) -> Tensor:
    """Row losses `KL(P || Q)`, P of the teacher; coefficients `Q - P` and `P (log P - log Q - KL)`, both over tau."""
    x, y = s.similarity(block), t.similarity(block)
    q, p = (_log_softmax(block.leave_out(side.value(one) / tau, -torch.inf)) for side, one in ((s, x), (t, y)))
    gap = block.leave_out(p - q, 0)  # -inf - -inf
    p.exp_()
    change = q.exp_().sub_(p)
    # `change` sums to 0, but for the rounding of both log-sum-exps, which it takes out of the loss.
    losses = (p * gap).add_(change).sum(1)
    if s.needed:
        s.pull(block, x, change.mul_(share))
    if t.needed:
        t.pull(block, y, gap.sub_(losses[:, None]).mul_(p).mul_(share))
    return losses


def _log_softmax(x: Tensor) -> Tensor:
    """In place. A row of -inf alone stays one: it has no members, and its exponentials are 0."""
    return x.sub_(torch.logsumexp(x, 1, keepdim=True).clamp_(min=torch.finfo(x.dtype).min))
