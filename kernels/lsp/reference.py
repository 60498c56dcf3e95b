"""The formula as published, one node after the other: the yardstick for the other forms, for small graphs only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.kernels.neighbours import NeighbourIndex
from graph2mlp.kernels.operator import statistics_dtype

__all__ = ["reference"]


def reference(
    student: Tensor,
    teacher: Tensor,
    graph: NeighbourIndex,
    *,
    kernel: str = "cosine",
    sign: float = -1.0,
    tau: float = 1.0,
    gamma: float = 0.5,
    reduction: str = "nodes",
) -> Tensor:
    """`KL(softmax_j e(t_i, t_j) || softmax_j e(s_i, s_j))` over the in-neighbours j of each node i; see `lsp`."""
    dtype = statistics_dtype(student, teacher)
    student, teacher = student.to(dtype), teacher.to(dtype)
    nothing = student[:0].sum() + teacher[:0].sum()  # 0, and still a function of both sides
    pointer: list[int] = graph.pointer.tolist()
    losses = []
    for i in range(graph.num_nodes):
        neighbours = graph.source[pointer[i] : pointer[i + 1]]
        if not len(neighbours):
            losses.append(nothing)
            continue
        log_q, log_p = (
            torch.log_softmax(_similarity(h[i], h[neighbours], kernel, sign, gamma) / tau, 0)
            for h in (student, teacher)
        )
        losses.append(F.kl_div(log_q, log_p, reduction="sum", log_target=True))
    rows = torch.stack(losses)
    if reduction == "none":
        return rows
    occupied = int((graph.degree > 0).sum())
    return rows.sum() / max({"nodes": occupied, "edges": graph.num_edges, "sum": 1}[reduction], 1)


def _similarity(own: Tensor, others: Tensor, kernel: str, sign: float, gamma: float) -> Tensor:
    """`e(own, others)`: `own [d]`, `others [n, d]` -> `[n]`."""
    if kernel == "dot":
        return others @ own
    if kernel in ("cosine", "poly"):
        cosine = F.linear(_unit(others), _unit(own))
        return cosine if kernel == "cosine" else cosine.square()
    if kernel == "l2":
        distance: Tensor = torch.linalg.vector_norm(others - own, dim=-1)
        return sign * distance
    if kernel == "rbf":
        return torch.exp(-gamma * (others - own).square().sum(-1))
    return torch.exp(-(others - own).abs().sum(-1) / 100)


def _unit(x: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays zeros and has no direction, so its gradient is 0."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length == 0, torch.inf, length)
