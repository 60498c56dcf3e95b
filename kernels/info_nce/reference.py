"""The formula as published, with the whole N x M matrix: the yardstick for the other forms, for small N only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["reference"]


def reference(
    student: Tensor,
    teacher: Tensor,
    *,
    tau: float | Tensor = 0.075,
    symmetric: bool = False,
    positives: Tensor | None = None,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """`mean_i -log( exp(x_ip) / sum_j exp(x_ij) )`, `x = S T^T / tau`, `p` the positive of row i; see `info_nce`."""
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    logits = student @ teacher.T / tau
    target = torch.arange(len(student), device=student.device) if positives is None else positives
    if labels is not None:
        same = labels[:, None] == labels[None, :]
        same[torch.arange(len(same)), target] = False
        logits = logits.masked_fill(same, -torch.inf)
    losses = F.cross_entropy(logits, target, reduction="none")
    if symmetric:
        losses = (losses + F.cross_entropy(logits.T, target, reduction="none")) / 2
    if weight is not None:
        losses = torch.where(weight == 0, 0, weight * losses)
    if reduction == "none":
        return losses
    return losses.sum() / (weight.sum() if weight is not None else len(losses)) if reduction == "mean" else losses.sum()
