"""The formula as published, edge by edge with E x C numbers: the yardstick for `targets.py`, for small graphs only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["reference"]


def reference(
    student_logits: Tensor,
    teacher_logits: Tensor,
    edge_index: Tensor,
    *,
    tau: float = 1.0,
    reduction: str = "edges",
) -> Tensor:
    """`KL(softmax(z^t_j / tau) || softmax(z_i / tau))` of every edge j -> i: mean, sum, or sum per occupied node."""
    source, target = edge_index
    log_p, log_q = F.log_softmax(teacher_logits / tau, -1), F.log_softmax(student_logits / tau, -1)
    losses = F.kl_div(log_q[target], log_p[source], reduction="none", log_target=True).sum(-1)
    return losses.sum() / max({"edges": len(losses), "nodes": len(target.unique()), "sum": 1}[reduction], 1)
