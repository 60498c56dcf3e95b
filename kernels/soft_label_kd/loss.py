"""The public function: checks, row weights, shares of the cross-entropy; then the opaque operator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_index, check_pair, check_positive, check_weight
from graph2mlp.kernels.dispatch import backend, select
from graph2mlp.kernels.operator import PairLoss, shares, statistics_dtype
from graph2mlp.kernels.soft_label_kd.chunked import chunked
from graph2mlp.kernels.soft_label_kd.reference import reference

__all__ = ["soft_label_kd"]

_WIDEST = 1024  # classes kept in registers by the fused kernel


def soft_label_kd(
    student: Tensor,
    teacher: Tensor,
    *,
    tau: float = 1.0,
    labels: Tensor | None = None,
    ce_weight: float = 0.0,
    index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -1,
    reduction: Literal["batchmean", "mean", "sum", "none"] = "batchmean",
) -> Tensor:
    """The teacher's soft labels (Hinton et al. 2015; over all nodes: GLNN, Zhang et al. 2022), and hard ones if known.

    `L_i = tau^2 KL(softmax(z_T,i / tau) || softmax(z_S,i / tau)) + ce_weight * CE(z_S,i, y_i)`, the second term for
    labelled rows only. The loss keeps its digits when the student is close to the teacher; the CPU's gradient has an
    absolute error of 1e-7. A class that both sides rule out with -inf counts nothing; one that only the student rules
    out makes the loss infinite.

    Shapes: logits `student [N, C]`, `teacher [N, C]`; float32 scalar (float64 for float64 logits), or `[N]` with
    `reduction="none"`. Gradients for both sides (`p_S - p_T` per row for the student at tau = 1); no second derivative.

    Args:
        tau: temperature of the soft labels; the cross-entropy has none.
        labels: `[N]` classes; `ignore_index` where there is no label.
        ce_weight: of the cross-entropy; needs `labels`.
        index: `[K]`, the labelled rows; without it all rows whose label is not `ignore_index`.
        weight: `[N]`, of each row in both terms; the means divide by their sum. A row of weight 0 is left out, even if
            it holds NaN.
        reduction: `batchmean` takes the mean of each term over its own rows, `mean` divides the first term by C as well
            (which is what `kl_div` does by default, and so some published code); `sum` and `none` divide by nothing.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    _check(student, teacher, tau, labels, ce_weight, index, weight, reduction)
    labels = labels if ce_weight else None
    if backend() == "dense":
        return reference(
            student,
            teacher,
            tau=tau,
            labels=labels,
            ce_weight=ce_weight,
            index=index,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
        )
    mean = reduction in ("batchmean", "mean")
    width = student.size(1) if reduction == "mean" else 1
    if weight is None:
        share = 1 / (len(student) * width) if mean else 1.0
        every = torch.full((len(student),), share, dtype=statistics_dtype(student, teacher), device=student.device)
    else:
        every = weight.to(statistics_dtype(student, teacher))
        student, teacher = (torch.where((every == 0)[:, None], 0, side) for side in (student, teacher))
        every = shares(every) / width if mean else every
    hard = None
    if labels is not None:
        hard = ce_weight * _labelled(labels, index, ignore_index, every)
        if mean:
            # Undoes what `every` divides by: this term has fewer rows and a mean of its own.
            own = (every * hard).sum() / ce_weight
            hard = torch.where(own == 0, 0, hard / own)
    if reduction == "none":
        losses = _operator.rows(student, teacher, labels, hard, tau)
        return losses if weight is None else torch.where(every == 0, 0, every * losses)
    return _operator.total(student, teacher, every, labels, hard, tau)


def _labelled(labels: Tensor, index: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    """How often each row counts in the cross-entropy, `[N]`: 0 or 1, or as often as `index` names it."""
    given = (labels != ignore_index).to(like.dtype)
    if index is None:
        return given
    return given * torch.zeros_like(given).index_add_(0, index, torch.ones_like(index, dtype=given.dtype))


def _check(
    student: Tensor,
    teacher: Tensor,
    tau: float,
    labels: Tensor | None,
    ce_weight: float,
    index: Tensor | None,
    weight: Tensor | None,
    reduction: str,
) -> None:
    check_pair("soft_label_kd", student, teacher)
    if student.size(1) != teacher.size(1):
        raise KernelError(
            f"soft_label_kd: student has {student.size(1)} classes and teacher {teacher.size(1)}; column c of one is "
            "column c of the other, so they must match."
        )
    check_positive("soft_label_kd", "tau", tau)
    if reduction not in ("batchmean", "mean", "sum", "none"):
        raise KernelError(f"soft_label_kd: reduction must be batchmean, mean, sum or none, got '{reduction}'.")
    if not 0 <= ce_weight < math.inf:
        raise KernelError(f"soft_label_kd: ce_weight must be 0 or more and finite, got {ce_weight}.")
    if weight is not None:
        check_weight("soft_label_kd", weight, len(student))
    if labels is not None:
        check_index("soft_label_kd", "labels", labels, len(student))
    elif ce_weight or index is not None:
        raise KernelError("soft_label_kd: ce_weight and index need labels; pass labels, or leave both out.")
    if index is not None:
        # Compiled code cannot look at values; there torch's own bounds check speaks.
        below = None if torch.compiler.is_compiling() else len(student)
        check_index("soft_label_kd", "index", index, index.numel(), below=below)


def _core(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    labels: Tensor | None,
    hard: Tensor | None,
    tau: float,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    unsupported = None
    if statistics_dtype(student, teacher) == torch.float64 or student.size(1) > _WIDEST:
        unsupported = f"{student.dtype} logits of {student.size(1)} classes (not float64, at most {_WIDEST})"
    rest = (weight, labels, hard, tau, need_student, need_teacher)
    if select("soft_label_kd", student, teacher, unsupported=unsupported) == "triton":
        from graph2mlp.kernels.soft_label_kd.fused import fused  # triton has wheels for Linux only

        return fused(student, teacher, *rest)
    return chunked(student, teacher, *rest)


_operator = PairLoss("soft_label_kd", _core)
