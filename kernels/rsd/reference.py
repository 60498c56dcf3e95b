"""The formula as published, with both N x N matrices: the yardstick for `gram.py`, for small N only."""

from __future__ import annotations

from torch import Tensor

__all__ = ["reference"]


def reference(student: Tensor, teacher: Tensor) -> Tensor:
    """`mean_ij (t_i . t_j - s_i . s_j)^2`: `student [N, A]`, `teacher [N, B]` -> scalar."""
    return (student @ student.T - teacher @ teacher.T).square().mean()
