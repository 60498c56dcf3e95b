"""The product of a graph and its nodes' rows, with a backward pass that costs what the forward pass does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["spread_from", "sum_neighbours"]

_transposes = WeakTensorKeyDictionary()
"""Adjacency -> its transpose, as long as the adjacency lives."""


def sum_neighbours(adjacency: Tensor, rows: Tensor) -> Tensor:
    """`adjacency [N, N] @ rows [N, D]`, where only `rows` get a gradient; the adjacency is CSR.

    The gradient is the product with the transpose. torch would sort the edges anew for it in every backward pass, which
    takes longer than the product; here that is done once per adjacency, with the same sums in the same order.
    """
    if not (torch.is_grad_enabled() and rows.requires_grad):
        return adjacency @ rows
    if adjacency not in _transposes:
        _transposes[adjacency] = adjacency.t().to_sparse_csr()
    product: Tensor = _Product.apply(adjacency, _transposes[adjacency], rows)  # type: ignore[no-untyped-call]
    return product


def spread_from(rows: Tensor, adjacency: Tensor, *, steps: int, teleport: float) -> Tensor:
    """`H <- (1 - teleport) adjacency H + teleport rows`, `steps` times from `H = rows` (Gasteiger et al., 2019)."""
    now = rows
    for _ in range(steps):
        now = sum_neighbours(adjacency, now) * (1 - teleport) + teleport * rows
    return now


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, transpose: Tensor, rows: Tensor) -> Tensor:
        ctx.transpose = transpose
        return adjacency @ rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transpose @ gradient
