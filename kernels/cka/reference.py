"""The formula as published, with whole N x N matrices: the yardstick for `chunked.py`, for small N only."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["reference"]


def reference(student: Tensor, teacher: Tensor) -> Tensor:
    """`HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`, `K = S S^T`, `L = T T^T`, `HSIC(K, L) = tr(K H L H) / (N - 1)^2`."""
    rows = len(student)
    H = torch.eye(rows, dtype=student.dtype, device=student.device) - 1 / rows
    K, L = student @ student.T, teacher @ teacher.T

    def hsic(K: Tensor, L: Tensor) -> Tensor:
        return torch.trace(K @ H @ L @ H) / (rows - 1) ** 2

    return hsic(K, L) / torch.sqrt(hsic(K, K) * hsic(L, L))
