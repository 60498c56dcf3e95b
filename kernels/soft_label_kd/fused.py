"""Soft-label distillation on a GPU: one pass, whole rows in registers, loss and gradients written together."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.launch import Tiles

__all__ = ["fused"]

# By padded number of classes: 8 numbers of each matrix per thread. No spills on sm_90 (tests/kernels/test_sm90.py).
_TILES = {width: Tiles(1024 // width, width, 4, 1) for width in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)}


@triton.jit
def _softmax(x):
    """Probabilities and log-sum-exp of each row. `max` drops NaN, but the exponential does not."""
    top = tl.max(x, 1)
    e = tl.exp(x - top[:, None])
    mass = tl.sum(e, 1)
    return e / mass[:, None], top + tl.log(mass)


@triton.jit
def soft_label_rows(
    student, teacher, weight, labels, hard, losses, d_student, d_teacher, rows, tau,
    CLASSES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    HARD: tl.constexpr, NEED_STUDENT: tl.constexpr, NEED_TEACHER: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`tau^2 KL + hard CE` of ROWS rows, and the gradients times the rows' weights."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = (column < CLASSES)[None, :]
    inside = (row < rows)[:, None] & real
    offsets = row[:, None].to(tl.int64) * CLASSES + column[None, :]
    s = tl.load(student + offsets, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(teacher + offsets, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + row, mask=row < rows, other=0.0)
    p_s, lse_s = _softmax(tl.where(real, s / tau, float("-inf")))
    p_t, lse_t = _softmax(tl.where(real, t / tau, float("-inf")))

    # KL = sum p_T (exp(y) - 1 - y), y = log(p_S / p_T): no term cancels. Small y by the series, since exp(y) - 1 loses
    # its digits there.
    y = (s - t) / tau - (lse_s - lse_t)[:, None]
    small = tl.abs(y) < 0.5
    z = tl.where(small, y, 0.0)
    series = 0.5 + z * (1 / 6 + z * (1 / 24 + z * (1 / 120 + z * (1 / 720 + z * (1 / 5040 + z * (1 / 40320))))))
    bend = p_t * (z * z * series)
    spread = tl.where(p_t == 0, 0.0, p_t * y)
    gap = tl.where(small, spread + bend, p_s - p_t)
    divergence = tl.sum(tl.where(small, bend, gap - spread), 1)
    # p_S - p_T sums to 0; what is left is the rounding of the two log-sum-exps, the same in all y of the row.
    excess = tl.sum(gap, 1)[:, None]
    gap -= p_t * excess
    spread -= p_t * excess
    loss = tau * tau * divergence
    step = tau * gap
    if HARD:
        own = tl.load(hard + row, mask=row < rows, other=0.0)
        label = tl.load(labels + row, mask=row < rows, other=0)
        q, lse = _softmax(tl.where(real, s, float("-inf")))
        mine = column[None, :] == label[:, None]
        entropy = lse - tl.sum(tl.where(mine, s, 0.0), 1)
        # A label that is no class must not become a number.
        own = tl.where((own != 0) & ((label < 0) | (label >= CLASSES)), float("nan"), own)
        loss += tl.where(own == 0, 0.0, own * entropy)
        step += own[:, None] * (q - tl.where(mine, 1.0, 0.0))
    tl.store(losses + row, loss, mask=row < rows)
    if NEED_STUDENT:
        tl.store(d_student + offsets, w[:, None] * step, mask=inside)
    if NEED_TEACHER:
        tl.store(d_teacher + offsets, -tau * w[:, None] * (spread + p_t * divergence[:, None]), mask=inside)


def fused(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    hard: Tensor | None,
    tau: float,
    need_student: bool,
    need_teacher: bool,
    *,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: `L_i = tau^2 KL_i + hard_i CE_i`, and the gradients of `sum_i weight_i L_i`."""
    count, classes = student.shape
    width = max(2, triton.next_power_of_2(classes))
    tiles = tiles or _TILES[width]
    losses = student.new_empty(count, dtype=torch.float32)
    gradients = [losses.new_empty(count, classes) if needed else None for needed in (need_student, need_teacher)]
    # A pointer that is never followed must still be one.
    d_student, d_teacher = (losses if gradient is None else gradient for gradient in gradients)
    arguments: dict[str, Any] = {
        "student": student.contiguous(),
        "teacher": teacher.contiguous(),
        "weight": weight.contiguous(),
        "labels": losses if labels is None else labels.long().contiguous(),
        "hard": losses if hard is None else hard.contiguous(),
        "losses": losses,
        "d_student": d_student,
        "d_teacher": d_teacher,
        "rows": count,
        "tau": tau,
    }
    constants = {
        "CLASSES": classes,
        "ROWS": tiles.rows,
        "COLUMNS": width,
        "HARD": hard is not None,
        "NEED_STUDENT": need_student,
        "NEED_TEACHER": need_teacher,
    }
    launch.run(soft_label_rows, (triton.cdiv(count, tiles.rows),), arguments, constants, tiles)
    given = (losses.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return (losses, *given)  # type: ignore[return-value]
