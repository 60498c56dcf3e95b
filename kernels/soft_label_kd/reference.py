"""The formula as published, by autograd: the yardstick for the other forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["reference"]


def reference(
    student: Tensor,
    teacher: Tensor,
    *,
    tau: float = 1.0,
    labels: Tensor | None = None,
    ce_weight: float = 0.0,
    index: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -1,
    reduction: str = "batchmean",
) -> Tensor:
    """`tau^2 sum_c p_c log(p_c / q_c)` per row, p and q the tempered softmaxes of teacher and student, plus the
    cross-entropy of the labelled rows; see `soft_label_kd`.
    """
    every = student.new_ones(len(student)) if weight is None else weight.to(student.dtype)
    student, teacher = (torch.where((every == 0)[:, None], 0, side) for side in (student, teacher))
    soft = every * tau**2 * _divergence(student / tau, teacher / tau)
    hard = torch.zeros_like(soft)
    labelled = every.sum()
    if labels is not None and ce_weight != 0:
        chosen = torch.arange(len(labels), device=labels.device) if index is None else index
        chosen = chosen[(labels[chosen] != ignore_index) & (every[chosen] != 0)]
        entropy = -F.log_softmax(student[chosen], dim=-1).gather(1, labels[chosen, None].long())[:, 0]
        hard = hard.index_add(0, chosen, ce_weight * every[chosen] * entropy)
        labelled = every[chosen].sum()
    if reduction == "none":
        return soft + hard
    if reduction == "sum":
        return (soft + hard).sum()
    width = student.size(1) if reduction == "mean" else 1
    return soft.sum() / (every.sum() * width) + (hard.sum() / labelled if bool(labelled != 0) else 0)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(teacher, dim=-1), F.log_softmax(student, dim=-1)
    p = log_p.exp()
    # 0 log 0 = 0, and without a gradient: the ratio, not the product, is masked.
    return (p * torch.where(p == 0, 0, log_p - log_q)).sum(-1)
