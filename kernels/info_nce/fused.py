"""InfoNCE on a GPU: attention with keys = values for the student's gradient, one transposed sweep for the teacher's.

Both sweeps leave the positive pair out of the sum; `split.py` adds it afterwards, row by row. Each program owns the
rows it writes, so nothing is atomic and two runs agree bit by bit. Logits are natural; exponentials are base 2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.info_nce.split import Positives
from graph2mlp.kernels.launch import Tiles, padded, precision
from graph2mlp.kernels.rows import scatter_rows
from graph2mlp.kernels.tiles import load_tile

__all__ = ["fused"]

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
_LOWEST = tl.constexpr(-1e30)  # a finite start for the running maximum: a row without negatives needs no special case

_PEAK = 4096.0  # of coefficients before they are rounded: room on both sides in float16

# By padded width and bytes per feature: no spills on sm_90, two operands in flight (tests/kernels/test_sm90.py).
_MEAN_TILES = {
    (64, 2): Tiles(128, 128, 8, 3),
    (128, 2): Tiles(128, 64, 8, 3),
    (256, 2): Tiles(128, 64, 8, 2),
    (64, 4): Tiles(128, 32, 8, 2),
    (128, 4): Tiles(128, 16, 8, 2),
}
_SUM_TILES = {
    (64, 2): Tiles(128, 64, 8, 3),
    (128, 2): Tiles(128, 64, 8, 2),
    (256, 2): Tiles(64, 64, 8, 2),
    (64, 4): Tiles(128, 32, 8, 2),
    (128, 4): Tiles(128, 16, 8, 2),
}


@triton.jit
def _left_out(own, other, n_other, partner, partners, own_label, labels, PAIRED: tl.constexpr, LABELLED: tl.constexpr):
    """Pairs that are no negatives: beyond the end, positive, or of the anchor's label.

    PAIRED says where the indices of the positives lie: 0 nowhere (row i belongs to row i), 1 with the rows this program
    owns, 2 with the rows that stream by.
    """
    out = (other >= n_other)[None, :]
    if PAIRED == 0:
        out = out | (own[:, None] == other[None, :])
    elif PAIRED == 1:
        out = out | (partner[:, None] == other[None, :])
    else:
        passing = tl.load(partners + other, mask=other < n_other, other=-1)
        out = out | (own[:, None] == passing[None, :])
    if LABELLED:
        label = tl.load(labels + other, mask=other < n_other, other=0)
        out = out | (own_label[:, None] == label[None, :])
    return out


@triton.jit
def softmax_mean(
    queries, keys, partners, labels, lse, mean, n_queries, n_keys,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PAIRED: tl.constexpr, LABELLED: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`lse_i = log sum_j exp(x_ij)` and `mean_i = sum_j softmax_j(x_ij) k_j` over the negatives of row i, one pass."""
    first = tl.program_id(0) * ROWS
    own = first + tl.arange(0, ROWS)
    q = load_tile(queries, first, n_queries, ROWS, D, UPCAST)
    partner = own
    own_label = own
    if PAIRED == 1:
        partner = tl.load(partners + own, mask=own < n_queries, other=-1)
    if LABELLED:
        own_label = tl.load(labels + own, mask=own < n_queries, other=0)
    top = tl.full([ROWS], _LOWEST, tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, D], tl.float32)
    for start in range(0, n_keys, COLUMNS):
        other = start + tl.arange(0, COLUMNS)
        k = load_tile(keys, start, n_keys, COLUMNS, D, UPCAST)
        x = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        out = _left_out(own, other, n_keys, partner, partners, own_label, labels, PAIRED, LABELLED)
        x = tl.where(out, float("-inf"), x)
        higher = tl.maximum(top, tl.max(x, 1))  # drops NaN, but the exponential below does not
        e = tl.exp2((x - higher[:, None]) * _LOG2E)
        fade = tl.exp2((top - higher) * _LOG2E)
        mass = mass * fade + tl.sum(e, 1)
        if MEAN:
            total = tl.dot(e.to(k.dtype), k, total * fade[:, None], input_precision=PRECISION)
        top = higher
    inside = own < n_queries
    empty = mass == 0
    tl.store(lse + own, tl.where(empty, top, top + tl.log2(mass) * _LN2), mask=inside)
    if MEAN:
        total = total / tl.where(empty, 1.0, mass)[:, None]
        offsets = own[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
        tl.store(mean + offsets, total, mask=inside[:, None])


@triton.jit
def weighted_sum(
    queries, keys, partners, labels, own_lse, own_share, key_lse, key_share, out, n_queries, n_keys,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    PAIRED: tl.constexpr, LABELLED: tl.constexpr, OWN: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`out_i = sum_j (b_j exp(x_ij - B_j) [+ a_i exp(x_ij - A_i)]) k_j` over the negatives; A, B, a, b known."""
    first = tl.program_id(0) * ROWS
    own = first + tl.arange(0, ROWS)
    q = load_tile(queries, first, n_queries, ROWS, D, UPCAST)
    partner = own
    own_label = own
    if PAIRED == 1:
        partner = tl.load(partners + own, mask=own < n_queries, other=-1)
    if LABELLED:
        own_label = tl.load(labels + own, mask=own < n_queries, other=0)
    if OWN:
        lse_i = tl.load(own_lse + own, mask=own < n_queries, other=0.0)
        share_i = tl.load(own_share + own, mask=own < n_queries, other=0.0)
    total = tl.zeros([ROWS, D], tl.float32)
    for start in range(0, n_keys, COLUMNS):
        other = start + tl.arange(0, COLUMNS)
        k = load_tile(keys, start, n_keys, COLUMNS, D, UPCAST)
        lse_j = tl.load(key_lse + other, mask=other < n_keys, other=0.0)
        share_j = tl.load(key_share + other, mask=other < n_keys, other=0.0)
        x = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        skip = _left_out(own, other, n_keys, partner, partners, own_label, labels, PAIRED, LABELLED)
        x = tl.where(skip, float("-inf"), x)
        c = share_j[None, :] * tl.exp2((x - lse_j[None, :]) * _LOG2E)
        if OWN:
            c += share_i[:, None] * tl.exp2((x - lse_i[:, None]) * _LOG2E)
        total = tl.dot(c.to(k.dtype), k, total, input_precision=PRECISION)
    offsets = own[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
    tl.store(out + offsets, total, mask=(own < n_queries)[:, None])


def fused(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    positives: Tensor | None,
    labels: Tensor | None,
    symmetric: bool,
    need_student: bool,
    need_teacher: bool,
    *,
    mean_tiles: Tiles | None = None,
    sum_tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: losses `[N]` and the gradients of `sum_i weight_i L_i`, for `x_ij = s_i . t_j` as given."""
    pairs = Positives.of(student, teacher, positives)
    # Ranks tell labels apart as well as any 64-bit label does, in half the registers.
    ranks = None if labels is None else torch.unique(labels, return_inverse=True)[1].int()
    partners = None if positives is None else positives.int()
    sweep = _Sweeps(padded(student), padded(teacher), partners, ranks, mean_tiles, sum_tiles)
    lse, mean = sweep.mean(need_student and not symmetric)
    losses, sigma = pairs.loss(lse)
    share = weight * sigma
    s, t = student.float(), teacher.float()
    d_student, d_teacher = losses.new_empty(0), losses.new_empty(0)
    if not symmetric:
        if need_student:
            d_student = share[:, None] * (mean[:, : student.size(1)] - pairs.rows(t))
        if need_teacher:
            d_teacher = sweep.swapped().sum(None, None, lse, share)[:, : teacher.size(1)]
            d_teacher = d_teacher - scatter_rows(share[:, None] * s, positives, len(t))
    else:
        column_lse, _ = sweep.swapped().mean(False)
        column_losses, column_sigma = pairs.loss(column_lse)
        losses, share, column_share = (losses + column_losses) / 2, share / 2, weight * column_sigma / 2
        both = (share + column_share)[:, None]
        if need_student:
            d_student = sweep.sum(lse, share, column_lse, column_share)[:, : student.size(1)] - both * t
        if need_teacher:
            d_teacher = sweep.swapped().sum(column_lse, column_share, lse, share)[:, : teacher.size(1)] - both * s
    return losses, d_student, d_teacher


class _Sweeps:
    """The two kernels over one pair of padded matrices."""

    def __init__(
        self,
        queries: Tensor,
        keys: Tensor,
        positives: Tensor | None,
        labels: Tensor | None,
        mean_tiles: Tiles | None,
        sum_tiles: Tiles | None,
        paired: int = 1,
    ) -> None:
        self.queries, self.keys, self.paired = queries, keys, paired
        self.positives, self.labels = positives, labels
        width = (max(64, queries.size(1)), queries.element_size())
        self.mean_tiles, self.sum_tiles = mean_tiles or _MEAN_TILES[width], sum_tiles or _SUM_TILES[width]

    def swapped(self) -> _Sweeps:
        """The transposed matrix: teacher rows own the output, student rows and their positives stream by."""
        return _Sweeps(
            self.keys, self.queries, self.positives, self.labels, self.mean_tiles, self.sum_tiles, 3 - self.paired
        )

    def mean(self, wanted: bool) -> tuple[Tensor, Tensor]:
        lse = self.queries.new_empty(len(self.queries), dtype=torch.float32)
        mean = torch.empty_like(self.queries, dtype=torch.float32) if wanted else lse
        self._run(softmax_mean, self.mean_tiles, {"lse": lse, "mean": mean}, {"MEAN": wanted})
        return lse, mean

    def sum(self, own_lse: Tensor | None, own_share: Tensor | None, key_lse: Tensor, key_share: Tensor) -> Tensor:
        out = torch.empty_like(self.queries, dtype=torch.float32)
        # Shares are as small as 1/N times the loss: float16 holds them only relative to the largest.
        peak = (
            key_share.abs().max() if own_share is None else torch.maximum(key_share.abs().max(), own_share.abs().max())
        )
        peak = torch.where(peak == 0, 1, peak) / _PEAK
        rows = {"key_lse": key_lse, "key_share": key_share / peak, "out": out}
        own = {"own_lse": key_lse, "own_share": key_share}
        if own_lse is not None and own_share is not None:
            own = {"own_lse": own_lse, "own_share": own_share / peak}
        self._run(weighted_sum, self.sum_tiles, {**own, **rows}, {"OWN": own_lse is not None})
        return out * peak

    def _run(self, kernel: Any, tiles: Tiles, rows: dict[str, Tensor], flags: dict[str, bool]) -> None:
        lse = next(iter(rows.values()))
        arguments: dict[str, Any] = {
            "queries": self.queries,
            "keys": self.keys,
            # A pointer that is never followed must still be one.
            "partners": lse if self.positives is None else self.positives,
            "labels": lse if self.labels is None else self.labels,
            **rows,
            "n_queries": len(self.queries),
            "n_keys": len(self.keys),
        }
        constants = {
            "D": self.queries.size(1),
            "ROWS": tiles.rows,
            "COLUMNS": tiles.columns,
            "PAIRED": 0 if self.positives is None else self.paired,
            "LABELLED": self.labels is not None,
            "PRECISION": precision(self.queries),
            **flags,
        }
        launch.run(kernel, (triton.cdiv(len(self.queries), tiles.rows),), arguments, constants, tiles)
