"""Leading eigenvectors of a large symmetric sparse matrix, in bounded time and memory: filtered subspace iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.structure.tall import column_blocks, gram, row_blocks, turn_, whitening

__all__ = ["leading_eigenvectors"]

_EXTRA = 8
"""Further columns of the search, dropped at the end: the last wanted vector converges as fast as its gap to them."""
_ROUNDS = 5
_DEGREE = 8
_COLUMNS = 40
"""Columns that are filtered at once: the filter needs two more blocks of so many."""
_ROUNDING = 1e-6
"""In float32 a direction that is shorter than this share of the longest one is noise."""


def leading_eigenvectors(matrix: Tensor, count: int, *, support: Tensor, seed: int) -> Tensor:
    """The `count` eigenvectors of the largest eigenvalues -> `[N, count]` float32, orthonormal, largest first.

    `matrix` is torch CSR `[N, N]` float32, symmetric, with eigenvalues in [-1, 1]. `support [N]` bool names the rows
    that are not empty; the vectors are zero elsewhere.

    Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago, Chelikowsky: "Self-consistent-field calculations using
    Chebyshev-filtered subspace iteration", J. Comput. Phys. 2006): a polynomial that is small on the unwanted part of
    the spectrum, [-1, smallest value of the search space so far], and grows beyond it, then Rayleigh-Ritz. The number
    of rounds is fixed, so it cannot fail to converge and equal seeds take equal steps: what eigenvectors lie close
    together at the end of the list may still be mixed, and the span of the others is right. Costs
    `_ROUNDS (_DEGREE + 1)` products with the matrix, and memory for `count + 8 + 80` vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(matrix.size(0), count + _EXTRA, generator=generator)
    rows[~support] = 0
    lower = 0.0  # no value is known yet: half of the spectrum is damped
    for _ in range(_ROUNDS):
        for columns in column_blocks(rows, _COLUMNS):
            rows[:, columns] = _filtered(matrix, rows[:, columns].contiguous(), lower)
        values = _rayleigh_ritz(matrix, rows)
        lower = min(max(float(values[-1]), -0.5), 0.99)
    return rows[:, :count]


def _filtered(matrix: Tensor, rows: Tensor, lower: float) -> Tensor:
    """The Chebyshev polynomial of the interval [-1, lower], of degree `_DEGREE`, applied to `rows`."""
    centre, half = (lower - 1) / 2, (lower + 1) / 2
    before, now = rows, (matrix @ rows).add_(rows, alpha=-centre).div_(half)
    for _ in range(1, _DEGREE):
        # T_k+1 = 2 (A - c) / e T_k - T_k-1, written over T_k-1.
        before.addmm_(matrix, now, beta=-1, alpha=2 / half).add_(now, alpha=-2 * centre / half)
        before, now = now, before
    return now


def _rayleigh_ritz(matrix: Tensor, rows: Tensor) -> Tensor:
    """Turn `rows` in place into the best approximate eigenvectors of their span; returns their values, descending."""
    scale = rows.norm(dim=0).clamp(min=1e-30)
    rows /= scale
    action = torch.zeros(rows.size(1), rows.size(1), dtype=torch.float64)
    white = whitening(gram(rows), rounding=_ROUNDING)
    for columns in column_blocks(rows, _COLUMNS):
        product = matrix @ rows[:, columns].contiguous()
        for part in row_blocks(rows):
            action[:, columns] += rows[part].double().T @ product[part].double()
    projected = white.T @ action @ white
    values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
    turn_(rows, (white @ vectors.flip(1)).float())  # a lost direction becomes a column of zeros
    descending: Tensor = values.flip(0)
    return descending
