"""Node features, dense or sparse, and the one layer that reads either.

Bag-of-words graphs are 98 to 99.9 % zeros. They stay sparse from file to student: a graph holds them as a torch CSR
matrix, a mini-batch as `SparseRows`, and `FeatureLinear` multiplies both without ever making them dense.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graph2mlp.noise import dropout

__all__ = [
    "FeatureLinear",
    "Features",
    "SparseRows",
    "all_finite",
    "as_tensor",
    "dense_rows",
    "drop_features",
    "num_rows",
    "project",
    "row_slice",
    "sparse_csr",
    "take_rows",
    "unit_rows",
]

# Said once per process by every torch of the last years; the operations used here are covered by our tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)


_PIECE = 1 << 16


@dataclass(frozen=True, eq=False)
class SparseRows:
    """B sparse rows of width F: the non-zeros of row i are `indices[offsets[i]:offsets[i + 1]]`.

    Shapes: `indices [nnz]` int64, `offsets [B + 1]` int64, `values [nnz]` float32.
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor
    width: int

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    def to(self, device: torch.device) -> SparseRows:
        """The same rows on `device`."""
        return SparseRows(self.indices.to(device), self.offsets.to(device), self.values.to(device), self.width)


Features: TypeAlias = Tensor | SparseRows
"""Rows of features: dense `[B, F]`, torch CSR `[N, F]`, or `SparseRows`."""


def sparse_csr(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A checked torch CSR matrix: an index out of range would otherwise crash the process much later."""
    return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=True)


def all_finite(values: Tensor) -> bool:
    """Whether no number is NaN or infinite, looked at in pieces: `isfinite` of it all needs as much memory again."""
    return all(bool(torch.isfinite(piece).all()) for piece in values.split(_PIECE))


def num_rows(features: Features) -> int:
    """The number of rows, whatever the layout."""
    return len(features) if isinstance(features, SparseRows) else features.size(0)


def take_rows(x: Tensor, ids: Tensor | None = None) -> Features:
    """Rows `ids [B]` of `x [N, F]` (all rows when None); CSR gives `SparseRows`, dense gives dense."""
    if x.layout != torch.sparse_csr:
        return x if ids is None else x[ids]
    crow, col, values = x.crow_indices(), x.col_indices(), x.values()
    if ids is None:
        return SparseRows(col, crow, values, x.size(1))
    counts = crow[ids + 1] - crow[ids]
    offsets = torch.zeros(ids.numel() + 1, dtype=torch.long, device=ids.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    # Position of every kept non-zero: start of its row in x, plus its rank within the row.
    shift = torch.repeat_interleave(crow[ids] - offsets[:-1], counts)
    position = shift + torch.arange(shift.numel(), device=ids.device)
    return SparseRows(col[position], offsets, values[position], x.size(1))


def row_slice(features: Features, start: int, stop: int) -> Features:
    """Rows `start` to `stop` of a batch."""
    if not isinstance(features, SparseRows):
        return features[start:stop]
    first, last = features.offsets[[start, stop]].tolist()
    offsets = features.offsets[start : stop + 1] - first
    return SparseRows(features.indices[first:last], offsets, features.values[first:last], features.width)


def as_tensor(features: Features) -> Tensor:
    """The same rows as one tensor, torch CSR for `SparseRows`, for layers that ask a tensor's questions."""
    if isinstance(features, Tensor):
        return features
    # The offsets and indices come from a checked matrix.
    parts = (features.offsets, features.indices, features.values)
    return torch.sparse_csr_tensor(*parts, (len(features), features.width), check_invariants=False)


def dense_rows(features: Features) -> Tensor:
    """The same rows as a dense `[B, F]` tensor, for code that cannot read sparse rows."""
    tensor = as_tensor(features)
    return tensor.to_dense() if tensor.layout == torch.sparse_csr else tensor


def drop_features(features: Features, rate: float, training: bool) -> Features:
    """Dropout of single features; of sparse rows only the non-zeros, since a zero stays zero."""
    if not (training and rate):
        return features
    if isinstance(features, SparseRows):
        values = dropout(features.values, rate, entries=True)
        return SparseRows(features.indices, features.offsets, values, features.width)
    return dropout(features, rate)


def unit_rows(features: SparseRows) -> SparseRows:
    """Rows scaled to length 1; a row without non-zeros stays as it is."""
    counts = features.offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(features), device=counts.device), counts)
    squares = torch.zeros(len(features), device=counts.device).index_add_(0, row, features.values.square())
    values = features.values * squares.clamp(min=1e-24).rsqrt()[row]
    return SparseRows(features.indices, features.offsets, values, features.width)


def project(features: Features, weight: Tensor) -> Tensor:
    """`features [B, F] @ weight [F, H] -> [B, H]`, with a gradient for `weight`."""
    if isinstance(features, SparseRows):
        return F.embedding_bag(
            features.indices,
            weight,
            features.offsets,
            mode="sum",
            per_sample_weights=features.values,
            include_last_offset=True,
        )
    if features.layout == torch.sparse_csr:
        product: Tensor = torch.sparse.mm(features, weight)
        return product
    return features @ weight


class FeatureLinear(nn.Module):
    """`x W + b` for dense and sparse rows: `[B, F] -> [B, H]`.

    The weight is stored `[F, H]`, transposed against `nn.Linear`, because a sparse row then reads whole rows of it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, fan_in: int | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        # The initial distribution of nn.Linear; `fan_in` says how wide the whole input is when this is a part of it.
        bound = (fan_in or in_features) ** -0.5
        self.weight = nn.Parameter(torch.empty(in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Features) -> Tensor:
        out = project(x, self.weight)
        return out if self.bias is None else out + self.bias
