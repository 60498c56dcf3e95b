"""What several losses do to their rows before they compare them, in plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.kernels.checks import check_positive

__all__ = ["sampled", "scatter_rows", "unit_rows"]

_NOISE = 1e-6


def unit_rows(side: Tensor) -> Tensor:
    """Rows of length 1, `[N, d]`. Rows shorter than a millionth of the longest become zeros and get no gradient.

    They point nowhere: not only rows of zeros, whose gradient `F.normalize` would lift by 1e12. Behind a ReLU, units
    that weight decay has all but silenced leave rows of 1e-25; scaled to length 1 they would get a gradient of 1e25, or
    NaN, for a direction that is rounding.
    """
    length: Tensor = torch.linalg.vector_norm(side, dim=-1, keepdim=True)
    longest = length.detach().nan_to_num(0, 0).amax() if len(side) else 0
    empty = length <= _NOISE * longest
    unit: Tensor = side * (~empty / torch.where(empty, 1, length))
    return unit


def sampled(loss: str, side: Tensor, most: int | None, generator: torch.Generator | None) -> Tensor | None:
    """Indices of `most` random rows of `side`, on its device; None when all of them may stay.

    Raises:
        KernelError: `most` is not positive.
    """
    if most is None:
        return None
    check_positive(loss, "max_samples", most)
    if most >= len(side):
        return None
    device = side.device if generator is None else generator.device
    return torch.randperm(len(side), generator=generator, device=device)[:most].to(side.device)


def scatter_rows(rows: Tensor, index: Tensor | None, count: int) -> Tensor:
    """`out_j = sum_{i: index_i = j} rows_i`, `[count, d]`: always in the same order, on every device."""
    if index is None:
        return rows
    order = torch.argsort(index, stable=True)
    lengths = torch.bincount(index, minlength=count)
    return torch.segment_reduce(rows[order], "sum", lengths=lengths, axis=0, initial=0)
