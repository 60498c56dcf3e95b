"""Soft-label distillation in plain torch: a block of rows at a time, gradients finished on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.operator import statistics_dtype

__all__ = ["chunked"]

_BUFFER = 2**17  # numbers in a block: its few temporaries stay in the cache
_VECTOR = 16  # below one vector per row, torch's softmax over the last dimension takes one number at a time
_FAR = 32.0  # exp of it times a probability overflows nowhere and keeps its digits


def chunked(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    hard: Tensor | None,
    tau: float,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: `L_i = tau^2 KL_i + hard_i CE_i`, and the gradients of `sum_i weight_i L_i`."""
    dtype = statistics_dtype(student, teacher)
    losses = student.new_empty(len(student), dtype=dtype)
    d_student = losses.new_empty(student.shape if need_student else 0)
    d_teacher = losses.new_empty(teacher.shape if need_teacher else 0)
    scale = (weight * tau)[:, None]
    step = max(1, _BUFFER // student.size(1))
    for start in range(0, len(student), step):
        where = slice(start, start + step)
        log_s, log_t = (_log_softmax(side[where].to(dtype), tau) for side in (student, teacher))
        p, gap, spread = _parts(log_s, log_t)
        divergence = torch.sum(torch.sub(gap, spread, out=log_s), 1, out=losses[where])
        if need_student:
            torch.mul(gap, scale[where], out=d_student[where])
        if need_teacher:
            torch.mul(p.mul_(divergence[:, None]).add_(spread), -scale[where], out=d_teacher[where])
    losses *= tau**2
    if labels is not None and hard is not None:
        _add_cross_entropy(student, weight, labels, hard, losses, d_student)
    return losses, d_student, d_teacher


def _log_softmax(logits: Tensor, tau: float) -> Tensor:
    """`[B, C]`; with few classes a view of `[C, B]`, whose rows are long."""
    logits = logits if tau == 1 else logits / tau
    if logits.size(1) >= _VECTOR:
        return torch.log_softmax(logits, 1)
    return torch.log_softmax(logits.T.contiguous(), 0).T


def _parts(log_s: Tensor, log_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`p = p_T` (in the memory of `log_t`), `gap = p_S - p_T`, `spread = p_T log(p_S / p_T)`: `KL = sum(gap - spread)`.

    `gap` sums to 0, so it may join the loss, where it takes away what would cancel when the student is good.
    """
    ratio = log_s - log_t
    p = log_t.exp_()
    # False also for NaN: where both sides rule out a class, the ratio is -inf + inf.
    if float(ratio.amax()) < _FAR:
        return p, torch.expm1(ratio).mul_(p), ratio.mul_(p)
    gap = torch.where(ratio < 1, torch.expm1(ratio).mul_(p), log_s.exp().sub_(p))
    return p, gap, torch.where(p == 0, 0, ratio.mul_(p))


def _add_cross_entropy(
    student: Tensor, weight: Tensor, labels: Tensor, hard: Tensor, losses: Tensor, d_student: Tensor
) -> None:
    """`L_i += hard_i CE_i`, in place, for the rows where `hard` is not 0; their logits are not tempered."""
    rows = hard.nonzero()[:, 0]
    classes, own = labels[rows].long(), hard[rows]
    if bool(((classes < 0) | (classes >= student.size(1))).any()):
        raise KernelError(
            f"soft_label_kd: labels must lie in 0..{student.size(1) - 1}, "
            f"got {int(classes.min())}..{int(classes.max())}. Rows without a label carry ignore_index."
        )
    log_p = _log_softmax(student[rows].to(losses.dtype), 1.0)
    losses[rows] -= own * log_p.gather(1, classes[:, None])[:, 0]
    if d_student.numel():
        gradient = log_p.exp_().scatter_add_(1, classes[:, None], torch.full_like(own, -1)[:, None])
        d_student.index_add_(0, rows, gradient * (weight[rows] * own)[:, None])
