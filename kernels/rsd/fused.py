"""RSD on a GPU: one pass over both sides for the Gram matrices, one for each gradient.

A program of the first pass sums one Gram matrix over at most 4096 rows and writes that partial sum; torch adds the
partial sums in float64, always in the same order. A program of the second pass owns the rows that it writes. Features
are turned to float32 as they are loaded, so sums and differences of half types keep their digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.launch import Tiles, padded
from graph2mlp.kernels.rsd.gram import DifferenceGrams, Factors, Grams, Rows, closed_form

__all__ = ["fused"]

# By padded width: no spills on sm_90 (tests/kernels/test_sm90.py). For `partial_grams`, `rows` are summed by one
# program, `columns` of them at a time; for `times_factors`, `columns` are features.
_GRAM_TILES = {64: Tiles(4096, 32, 4, 3), 128: Tiles(4096, 32, 8, 3)}
_PULL_BACK_TILES = {64: Tiles(64, 32, 4, 3), 128: Tiles(128, 32, 8, 3)}
_PRECISION = "tf32x3"  # one tf32 product keeps 11 bits, three keep float32's 24


@triton.jit
def partial_grams(
    student, teacher, weight, out, n_rows,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WEIGHTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`X^T W X`, `Y^T W X` or `Y^T W Y` (X = S + T, Y = S - T) over ROWS rows. `out` is `[parts, 3, D, D]`."""
    kind = tl.program_id(0)
    part = tl.program_id(1)
    left_sign = tl.where(kind == 0, 1.0, -1.0)
    right_sign = tl.where(kind == 2, -1.0, 1.0)
    features = tl.arange(0, D)
    total = tl.zeros([D, D], tl.float32)
    for start in range(part * ROWS, tl.minimum(part * ROWS + ROWS, n_rows), COLUMNS):
        index = start + tl.arange(0, COLUMNS)
        inside = index < n_rows
        offsets = index[:, None].to(tl.int64) * D + features[None, :]
        s = tl.load(student + offsets, mask=inside[:, None], other=0.0).to(tl.float32)
        t = tl.load(teacher + offsets, mask=inside[:, None], other=0.0).to(tl.float32)
        right = s + right_sign * t
        if WEIGHTED:
            right = right * tl.load(weight + index, mask=inside, other=0.0)[:, None]
        total = tl.dot(tl.trans(s + left_sign * t), right, total, input_precision=PRECISION)
    cells = features[:, None] * D + features[None, :]
    tl.store(out + (part * 3 + kind).to(tl.int64) * D * D + cells, total)


@triton.jit
def times_factors(
    own, student, teacher, weight, own_pair, factors, out, n_rows,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TEACHER: tl.constexpr,
    WEIGHTED: tl.constexpr, DIAGONAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`out_i = w_i (own_i P + (s_i - t_i) R) + c_i own_i`; `factors` is `[P; R]` transposed, `[D, 2 D]`.

    One product a step: two need more registers than there are.
    """
    index = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = index < n_rows
    rows = index[:, None].to(tl.int64) * D
    features = tl.arange(0, D)
    total = tl.zeros([ROWS, D], tl.float32)
    for start in range(0, 2 * D, COLUMNS):
        some = start % D + tl.arange(0, COLUMNS)
        s = tl.load(student + rows + some[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
        t = tl.load(teacher + rows + some[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
        left = tl.where(start < D, t if TEACHER else s, s - t)
        factor = tl.load(factors + features[:, None] * (2 * D) + (start + tl.arange(0, COLUMNS))[None, :])
        total = tl.dot(left, tl.trans(factor), total, input_precision=PRECISION)
    if WEIGHTED:
        total = total * tl.load(weight + index, mask=inside, other=0.0)[:, None]
    if DIAGONAL:
        row = tl.load(own + rows + features[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
        total += tl.load(own_pair + index, mask=inside, other=0.0)[:, None] * row
    tl.store(out + rows + features[None, :], total, mask=inside[:, None])


def fused(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    node_weight: Tensor | None,
    anchors: Tensor | None,
    diagonal: bool,
    precise: bool,
    need_student: bool,
    need_teacher: bool,
    *,
    gram_tiles: Tiles | None = None,
    pull_back_tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: the loss, a scalar, and the gradients of `weight` times it. `precise` changes nothing here."""
    rows = Rows(padded(student), padded(teacher), None if node_weight is None else node_weight.float())
    width = max(64, rows.student.size(1))
    passes = _Kernels(gram_tiles or _GRAM_TILES[width], pull_back_tiles or _PULL_BACK_TILES[width])
    loss, *gradients = closed_form(passes, rows, weight, anchors, diagonal, need_student, need_teacher)
    d_student, d_teacher = (g[:, : student.size(1)].contiguous() if g.numel() else g for g in gradients)
    return loss, d_student, d_teacher


@dataclass(frozen=True)
class _Kernels:
    gram_tiles: Tiles
    pull_back_tiles: Tiles

    def grams(self, rows: Rows) -> Grams:
        """See `Passes`."""
        count, width = rows.student.shape
        parts = triton.cdiv(count, self.gram_tiles.rows)
        out = torch.empty(parts, 3, width, width, dtype=torch.float32, device=rows.student.device)
        arguments = {
            "student": rows.student,
            "teacher": rows.teacher,
            # A pointer that is never followed must still be one.
            "weight": out if rows.weight is None else rows.weight,
            "out": out,
            "n_rows": count,
        }
        constants = {
            "D": width,
            "ROWS": self.gram_tiles.rows,
            "COLUMNS": self.gram_tiles.columns,
            "WEIGHTED": rows.weight is not None,
            "PRECISION": _PRECISION,
        }
        launch.run(partial_grams, (3, parts), arguments, constants, self.gram_tiles)
        return DifferenceGrams(*out.sum(0, dtype=torch.float64))

    def pull_back(self, rows: Rows, factors: Factors, own_pair: Tensor | None, teacher: bool) -> Tensor:
        """See `Passes`."""
        count, width = rows.student.shape
        out = torch.empty(count, width, dtype=torch.float32, device=rows.student.device)
        arguments = {
            "own": rows.teacher if teacher else rows.student,
            "student": rows.student,
            "teacher": rows.teacher,
            "weight": out if rows.weight is None else rows.weight,
            "own_pair": out if own_pair is None else own_pair.float(),
            # Transposed: tensor cores take the second factor of a tf32 product column by column.
            "factors": torch.cat([factors.own.T, factors.other.T], 1).float(),
            "out": out,
            "n_rows": count,
        }
        constants = {
            "D": width,
            "ROWS": self.pull_back_tiles.rows,
            "COLUMNS": min(width, self.pull_back_tiles.columns),
            "TEACHER": teacher,
            "WEIGHTED": rows.weight is not None,
            "DIAGONAL": own_pair is not None,
            "PRECISION": _PRECISION,
        }
        grid = (triton.cdiv(count, self.pull_back_tiles.rows),)
        launch.run(times_factors, grid, arguments, constants, self.pull_back_tiles)
        return out
