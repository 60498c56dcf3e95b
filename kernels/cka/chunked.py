"""CKA in plain torch, a chunk of rows at a time: O(d^2) memory beside the gradients. README.md derives them."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.kernels.operator import statistics_dtype

__all__ = ["chunked"]

_CHUNK = 8192  # rows turned to float64 at a time


def chunked(
    student: Tensor, teacher: Tensor, weight: Tensor, precise: bool, need_student: bool, need_teacher: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Core`: the similarity, a scalar, and the gradients of `weight` times it."""
    statistics = statistics_dtype(student, teacher)
    dtype = torch.float64 if precise else statistics
    s, t = _Centred(student, dtype), _Centred(teacher, dtype)
    s_s, t_s, t_t = _grams(s, t)
    # A constant side leaves rounding alone, and 0 / 0 of that could be any number.
    constant = s.is_constant(s_s) | t.is_constant(t_t)
    s_norm, t_norm = s_s.norm(), t_t.norm()
    inverse = torch.where(constant, 0, 1 / (s_norm * t_norm))
    value = torch.where(constant, 0, t_s.square().sum() * inverse)

    gradients = []
    for own, other, gram, cross, norm, needed in (
        (s, t, s_s, t_s, s_norm, need_student),
        (t, s, t_t, t_s.T, t_norm, need_teacher),
    ):
        if not needed:
            gradients.append(weight.new_empty(0))
            continue
        own_factor = torch.where(constant, 0, gram * (-2 * weight * value / norm.square()))
        other_factor = torch.where(constant, 0, cross * (2 * weight * inverse))
        gradients.append(_products(own, own_factor, other, other_factor, statistics))
    # Rounding may leave 1 + 1e-16, and 1 less that under a square root is NaN; NaN itself passes.
    return torch.where(value > 1, 1, value).to(weight.dtype), gradients[0], gradients[1]


class _Centred:
    """A side less its mean row, in chunks of the type that is computed with."""

    def __init__(self, side: Tensor, dtype: torch.dtype) -> None:
        self.side, self.dtype = side, dtype
        self.mean = torch.stack([rows.to(dtype).sum(0) for rows in side.split(_CHUNK)]).sum(0) / len(side)

    def chunks(self) -> list[slice]:
        return [slice(start, start + _CHUNK) for start in range(0, len(self.side), _CHUNK)]

    def __getitem__(self, where: slice) -> Tensor:
        return self.side[where].to(self.dtype) - self.mean

    def is_constant(self, gram: Tensor) -> Tensor:
        """Whether what centring left, in `gram`, is no more than rounding of the mean."""
        rounding = 32 * torch.finfo(self.dtype).eps
        return gram.trace() <= rounding**2 * len(self.side) * self.mean.double().square().sum()


def _grams(s: _Centred, t: _Centred) -> list[Tensor]:
    """`s^T s`, `t^T s`, `t^T t`, given in float64: squares of their entries leave the range of float32 too soon."""
    a, b = s.side.size(1), t.side.size(1)
    totals = [torch.zeros(size, dtype=s.dtype, device=s.side.device) for size in ((a, a), (b, a), (b, b))]
    for where in s.chunks():
        rows_s, rows_t = s[where], t[where]
        for total, left, right in zip(totals, (rows_s, rows_t, rows_t), (rows_s, rows_s, rows_t), strict=True):
            total.addmm_(left.T, right)
    return [total.double() for total in totals]


def _products(own: _Centred, own_factor: Tensor, other: _Centred, other_factor: Tensor, dtype: torch.dtype) -> Tensor:
    """`own @ own_factor + other @ other_factor`, `[N, d]`. They cancel as the value nears 1."""
    out = torch.empty(own.side.shape, dtype=dtype, device=own.side.device)
    own_factor, other_factor = own_factor.to(own.dtype), other_factor.to(own.dtype)
    for where in own.chunks():
        out[where] = (own[where] @ own_factor).addmm_(other[where], other_factor)
    return out
