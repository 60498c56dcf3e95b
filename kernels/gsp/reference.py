"""The formula as published, with all N x N (x d) arrays: the yardstick for the other forms, for small N only."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["reference"]


def reference(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: str = "cosine",
    divergence: str = "mse",
    tau: float = 1.0,
    gamma: float = 0.5,
    sign: int = 1,
    diagonal: bool | None = None,
    anchors: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`mean_ij (K_ij(S) - K_ij(T))^2`, or the mean `KL(softmax_j K_ij(T)/tau || softmax_j K_ij(S)/tau)`; see `gsp`."""
    rows = torch.arange(len(student), device=student.device)
    columns = rows if anchors is None else anchors
    diagonal = divergence == "mse" if diagonal is None else diagonal
    members = torch.ones(len(rows), len(columns), dtype=torch.bool, device=student.device)
    if not diagonal:
        members = rows[:, None] != columns[None, :]
    s, t = (_similarity(side, side[columns], kernel, gamma, sign) for side in (student, teacher))
    if divergence == "mse":
        losses = torch.where(members, (s - t).square(), 0).sum(1) / members.sum(1).clamp(min=1)
    else:
        losses = _row_divergence(s / tau, t / tau, members)
    if weight is not None:
        losses = torch.where(weight == 0, 0, weight * losses)
    if reduction == "none":
        return losses
    return losses.sum() / (weight.sum() if weight is not None else len(losses)) if reduction == "mean" else losses.sum()


def _similarity(rows: Tensor, columns: Tensor, kernel: str, gamma: float, sign: int) -> Tensor:
    """`K(x_i, y_j)`: `rows [N, d]`, `columns [M, d]` -> `[N, M]`."""
    if kernel in ("cosine", "poly"):
        cosine = _unit(rows) @ _unit(columns).T
        return cosine if kernel == "cosine" else cosine.square()
    difference = rows[:, None, :] - columns[None, :, :]
    if kernel == "l2":
        distance: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return distance * sign
    return torch.exp(-gamma * difference.square().sum(-1))


def _row_divergence(s: Tensor, t: Tensor, members: Tensor) -> Tensor:
    """`KL(softmax t_i || softmax s_i)` over the members of each row; 0 for a row without members."""
    outside = ~members & members.any(1, keepdim=True)
    log_p, log_q = (torch.log_softmax(x.masked_fill(outside, -torch.inf), 1) for x in (t, s))
    # -inf - -inf has no value: both are taken out before they are subtracted.
    gap = torch.where(members, log_p, 0) - torch.where(members, log_q, 0)
    return (log_p.exp() * gap).sum(1)


def _unit(side: Tensor) -> Tensor:
    """Rows of length 1; rows of zeros stay zeros, without a gradient."""
    empty = (side == 0).all(-1, keepdim=True)
    return side / torch.where(empty, 1, side.square().sum(-1, keepdim=True)).sqrt() * ~empty
