"""Random numbers for the rows of a batch, the same whether one process holds all rows or each of several holds a part.

A process that holds a part draws for the whole batch and keeps its own rows, so the generators of all processes stay
in step, and dropout is what one process would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Part", "dropout", "kept_rows", "part_of_batch"]


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of `total`."""

    start: int
    stop: int
    total: int


_rows: Part | None = None
_entries: Part | None = None


@contextmanager
def part_of_batch(rows: Part, entries: Part | None = None) -> Iterator[None]:
    """In here tensors hold these rows of a batch; sparse rows hold these of all its non-zeros, `entries`."""
    global _rows, _entries
    before = _rows, _entries
    _rows, _entries = rows, entries
    try:
        yield
    finally:
        _rows, _entries = before


def dropout(x: Tensor, rate: float, training: bool = True, *, entries: bool = False) -> Tensor:
    """`F.dropout` of rows `x [B, ...]`, or of the non-zeros `x [nnz]` of sparse rows (`entries`)."""
    part = _entries if entries else _rows
    if part is None or not (training and rate):
        return F.dropout(x, rate, training)
    noise = torch.empty(part.total, *x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return x * noise[part.start : part.stop].div_(1 - rate)


def kept_rows(x: Tensor, rate: float) -> Tensor:
    """Which rows of `x [B, ...]` are kept when each is dropped with probability `rate`: `[B, 1]` bool."""
    part = _rows or Part(0, len(x), len(x))
    return (torch.rand(part.total, 1, device=x.device) >= rate)[part.start : part.stop]
