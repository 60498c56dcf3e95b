"""The same loss through d x d Gram matrices: O(N d^2) time, O(d^2) memory, exact over all N^2 pairs.

The derivation and the reason for each form are in README.md beside this file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["rsd"]

_CHUNK = 8192  # rows turned to float64 at a time


def rsd(student: Tensor, teacher: Tensor, *, precise: bool = True) -> Tensor:
    """`(1/N^2) sum_ij (t_i . t_j - s_i . s_j)^2` over all pairs, diagonal included (NOSMOG, Tian et al. 2023).

    Shapes: `student [N, A]`, `teacher [N, B]`, floating point; scalar in the student's type. `precise` accumulates
    the Gram matrices in float64; without it equal widths use float32, which is right to 1e-7 unless the two sides
    differ by a rotation only. Gradients for both sides; no second derivative.

    Raises:
        ValueError: the rows do not match, or a side is not a floating-point matrix.
    """
    for name, side in (("student", student), ("teacher", teacher)):
        if side.dim() != 2 or not side.is_floating_point():
            raise ValueError(f"rsd: {name} must be a floating-point [N, d] matrix, got {side.dtype} {list(side.shape)}")
    if len(student) != len(teacher) or not len(student):
        raise ValueError(
            f"rsd: student has {len(student)} rows and teacher {len(teacher)}; they must match and not be 0"
        )
    loss: Tensor = _RSD.apply(student, teacher, precise)  # type: ignore[no-untyped-call]
    return loss


def _gram(a: Tensor, b: Tensor, precise: bool) -> Tensor:
    """`a^T b`, accumulated in float64 chunk by chunk when `precise`."""
    if not precise:
        return a.T @ b
    total = torch.zeros(a.size(1), b.size(1), dtype=torch.float64, device=a.device)
    for rows_a, rows_b in zip(a.split(_CHUNK), b.split(_CHUNK), strict=True):
        total.addmm_(rows_a.double().T, rows_b.double())
    return total


class _RSD(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, precise: bool) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.precise = precise
        if student.size(1) == teacher.size(1):
            # Difference form: no large terms cancel when the student is close to the teacher.
            difference, total = student - teacher, student + teacher
            cross = _gram(difference, total, precise)
            squares = (_gram(total, total, precise) * _gram(difference, difference, precise)).sum()
            value = 0.5 * (squares + (cross * cross.T).sum())
        else:
            # Three large terms that cancel: float64 whatever the caller wants.
            norms = [
                _gram(a, b, True).square().sum()
                for a, b in ((teacher, teacher), (teacher, student), (student, student))
            ]
            value = norms[0] - 2 * norms[1] + norms[2]
        # Rounding may leave -1e-17; clamp would turn NaN into a number, so compare instead.
        value = torch.where(value < 0, torch.zeros_like(value), value)
        return (value / len(student) ** 2).to(student.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():
            # torch's own once_differentiable says nothing when the upstream gradient is a constant.
            raise RuntimeError("rsd has no second derivative; call it without create_graph=True")
        student, teacher = ctx.saved_tensors
        scale = 4.0 * upstream / len(student) ** 2
        gradients = [
            scale * _pull_back(a, b, ctx.precise) if needed else None
            for needed, a, b in zip(ctx.needs_input_grad, (student, teacher), (teacher, student), strict=False)
        ]
        return gradients[0], gradients[1], None


def _pull_back(s: Tensor, t: Tensor, precise: bool) -> Tensor:
    """`(S S^T - T T^T) S` in the type of S."""
    if s.size(1) == t.size(1):
        d = s - t
        return s @ _gram(d, s, precise).to(s.dtype) + d @ _gram(t, s, precise).to(s.dtype)
    # The two products cancel when the Gram matrices agree: subtract in float64.
    parts = zip(s.split(_CHUNK), t.split(_CHUNK), strict=True)
    ss, ts = _gram(s, s, True), _gram(t, s, True)
    return torch.cat([(a.double() @ ss - b.double() @ ts).to(s.dtype) for a, b in parts])
