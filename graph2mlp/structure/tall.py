"""Linear algebra on matrices of many rows and few columns, in place and in blocks: no second matrix of that size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from graph2mlp.memory import as_many_as_fit

__all__ = ["column_blocks", "gram", "row_blocks", "turn_", "whitening"]

_ROWS = 1 << 16


def row_blocks(rows: Tensor) -> Iterator[slice]:
    """Which rows of `rows [N, w]` to work on at once."""
    return (slice(start, start + _ROWS) for start in range(0, len(rows), _ROWS))


def column_blocks(rows: Tensor, most: int) -> Sequence[Tensor]:
    """Numbers of the columns that are worked on at once, `most` if there is room; each takes four vectors."""
    most = as_many_as_fit(most, bytes_each=16 * len(rows))
    return torch.arange(rows.size(1)).tensor_split(-(-rows.size(1) // most))


def gram(rows: Tensor) -> Tensor:
    """`rows^T rows`, `[w, w]` float64: in float32 small directions would drown in the rounding of large ones."""
    found = torch.zeros(rows.size(1), rows.size(1), dtype=torch.float64)
    for part in row_blocks(rows):
        here = rows[part].double()
        found += here.T @ here
    return found


def whitening(products: Tensor, *, rounding: float) -> Tensor:
    """`white [w, k]` float64, so that the columns of `rows @ white` are orthonormal; `products` is `gram(rows)`.

    A direction that is shorter than `rounding` times the longest one is left out: `k <= w`. The longest comes last.
    """
    lengths, turn = torch.linalg.eigh(products)
    keep = lengths > (rounding**2) * lengths[-1]
    white: Tensor = turn[:, keep] * lengths[keep].rsqrt()
    return white


def turn_(rows: Tensor, onto: Tensor) -> None:
    """`rows [N, w] @ onto [w, k]` in place of `rows`, whose columns from k on become zero."""
    square = torch.zeros(rows.size(1), rows.size(1))
    square[:, : onto.size(1)] = onto
    for part in row_blocks(rows):
        rows[part] = rows[part] @ square
