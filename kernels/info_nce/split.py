"""The split form: the positive pair stays outside the softmax sum, and comes back here.

`z = log sum_{j != p} exp(x_ij) - x_ip` is the mass off the positive, relative to the positive. Loss and gradient are
smooth functions of it that lose no digits when the student is good; the textbook `log sum_j exp(x_ij) - x_ip` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Positives"]


@dataclass(frozen=True, eq=False)
class Positives:
    """The N positive pairs `(i, p(i))`: their logits `x [N]`, and where each lies."""

    x: Tensor
    index: Tensor | None
    """`p(i)`, `[N]`; None means i itself."""

    @staticmethod
    def of(student: Tensor, teacher: Tensor, index: Tensor | None) -> Positives:
        """Their logits as N row products, in float32 or better."""
        dtype = torch.promote_types(student.dtype, torch.float32)
        chosen = teacher if index is None else teacher[index]
        return Positives((student.to(dtype) * chosen.to(dtype)).sum(-1), index)

    def rows(self, matrix: Tensor) -> Tensor:
        """Row `p(i)` of `matrix`, for every i."""
        return matrix if self.index is None else matrix[self.index]

    def loss(self, lse: Tensor) -> tuple[Tensor, Tensor]:
        """`softplus(z)` and `1 - P_ip = sigmoid(z)` from `lse [N]`, the log-sum-exp over all but the positive."""
        z = lse - self.x
        # softplus(z) is log1p(exp(z)) for every z, without torch's shortcut above a threshold.
        return torch.clamp(z, min=0) + torch.log1p(torch.exp(-z.abs())), torch.sigmoid(z)
