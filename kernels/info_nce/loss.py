"""The public function: checks, sampling, scaling; then the opaque operator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_index, check_pair, check_positive, check_weight
from graph2mlp.kernels.dispatch import TILES_KIB, backend, select
from graph2mlp.kernels.info_nce.chunked import chunked
from graph2mlp.kernels.info_nce.reference import reference
from graph2mlp.kernels.operator import PairLoss, statistics_dtype
from graph2mlp.kernels.rows import sampled, unit_rows

__all__ = ["info_nce"]

# Widest rows, by bytes per feature, that the fused kernels hold in registers: float32 takes three times the products.
_WIDEST = {2: 256, 4: 128}


def info_nce(
    student: Tensor,
    teacher: Tensor,
    *,
    tau: float | Tensor = 0.075,
    symmetric: bool = False,
    positives: Tensor | None = None,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    normalize: bool = True,
    max_samples: int | None = None,
    generator: torch.Generator | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Each student row must find its teacher row among all teacher rows (G-CRD, Joshi et al. 2022; CPC, 2018).

    `L_i = -log( exp(x_ip) / sum_j exp(x_ij) )`, `x_ij = s_i . t_j / tau`, p = i unless `positives` says otherwise.
    Exact over all pairs in O((N + M) d) memory, also when the loss is close to 0.

    Shapes: `student [N, d]`, `teacher [M, d]`; float32 scalar (float64 for float64 rows), or `[N]` with
    `reduction="none"`. Gradients for both sides, and for `tau` if it is a tensor; no second derivative.

    Args:
        tau: temperature; a scalar tensor learns.
        symmetric: also let each teacher row find its student row; the mean of both directions.
        positives: `[N]`, the teacher row that belongs to each student row. Without it N = M.
        weight: `[N]`, of each row; `mean` divides by their sum, and is 0 if that is. A row of weight 0 is no anchor: it
            has neither loss nor gradient in this direction, even if it holds NaN. Teacher rows stay negatives whatever
            their weight.
        labels: `[N]`; rows with the anchor's label are not its negatives. Needs N = M.
        normalize: scale all rows to length 1 first. Rows of zeros stay zeros and get no gradient.
        max_samples: use at most so many rows, drawn with `generator`.
        compute_dtype: round features to this type before they are multiplied, e.g. `torch.bfloat16`.

    Raises:
        KernelError: shapes, types or settings that do not fit.
    """
    _check(student, teacher, tau, symmetric, positives, weight, labels, reduction, compute_dtype)
    chosen = sampled("info_nce", student, max_samples, generator)
    if chosen is not None:
        student = student[chosen]
        teacher = teacher[chosen] if positives is None else teacher
        positives, weight, labels = (None if one is None else one[chosen] for one in (positives, weight, labels))
    if backend() == "dense":
        return reference(
            student,
            teacher,
            tau=tau,
            symmetric=symmetric,
            positives=positives,
            weight=weight,
            labels=labels,
            normalize=normalize,
            reduction=reduction,
        )
    s, t = _features(student, teacher, tau, weight, symmetric, normalize, compute_dtype)
    return _operator.reduced(s, t, weight, reduction, positives, labels, symmetric)


def _check(
    student: Tensor,
    teacher: Tensor,
    tau: float | Tensor,
    symmetric: bool,
    positives: Tensor | None,
    weight: Tensor | None,
    labels: Tensor | None,
    reduction: str,
    compute_dtype: torch.dtype | None,
) -> None:
    check_pair("info_nce", student, teacher, same_rows=positives is None, same_width=True)
    if isinstance(tau, Tensor):
        if tau.numel() != 1:
            raise KernelError(f"info_nce: tau must be a number or a scalar tensor, got shape {list(tau.shape)}.")
    else:
        check_positive("info_nce", "tau", tau)
    if compute_dtype is not None and not compute_dtype.is_floating_point:
        raise KernelError(f"info_nce: compute_dtype must be a floating-point type, got {compute_dtype}.")
    if reduction not in ("mean", "sum", "none"):
        raise KernelError(f"info_nce: reduction must be mean, sum or none, got '{reduction}'.")
    if weight is not None:
        check_weight("info_nce", weight, len(student))
    if positives is not None:
        check_index("info_nce", "positives", positives, len(student))
        if symmetric or labels is not None:
            raise KernelError(
                "info_nce: symmetric and labels need row i to belong to row i; leave positives out, or reorder teacher."
            )
    if labels is not None:
        check_index("info_nce", "labels", labels, len(student))


def _features(
    student: Tensor,
    teacher: Tensor,
    tau: float | Tensor,
    weight: Tensor | None,
    symmetric: bool,
    normalize: bool,
    compute_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """Rows whose plain products are the logits. Autograd goes through here, which also makes `tau` learnable."""
    dtype = statistics_dtype(student, teacher)
    s, t = student.to(dtype), teacher.to(dtype)
    if weight is not None and not symmetric:
        s = torch.where((weight == 0)[:, None], 0, s)  # before any product: 0 x NaN is NaN
    if normalize:
        s, t = unit_rows(s), unit_rows(t)
    s = s / tau
    return s.to(compute_dtype or student.dtype), t.to(compute_dtype or teacher.dtype)


def _core(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    positives: Tensor | None,
    labels: Tensor | None,
    symmetric: bool,
    need_student: bool,
    need_teacher: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if positives is not None:
        check_index("info_nce", "positives", positives, len(student), below=len(teacher))
    rest = (weight, positives, labels, symmetric, need_student, need_teacher)
    unsupported = _unsupported(student, teacher)
    if select("info_nce", student, teacher, unsupported=unsupported, shared_kib=TILES_KIB) == "triton":
        from graph2mlp.kernels.info_nce.fused import fused  # triton has wheels for Linux only

        return fused(student, teacher, *rest)
    return chunked(student, teacher, *rest)


def _unsupported(student: Tensor, teacher: Tensor) -> str | None:
    kind = str(student.dtype).removeprefix("torch.")
    if student.dtype != teacher.dtype:
        return f"student is {kind}, teacher {str(teacher.dtype).removeprefix('torch.')}"
    widest = _WIDEST.get(student.element_size(), 0)
    return None if student.size(1) <= widest else f"{kind} rows {student.size(1)} wide (at most {widest})"


_operator = PairLoss("info_nce", _core)
