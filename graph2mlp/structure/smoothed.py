"""Positions from edges and features together: the leading directions of the features after smoothing over the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from graph2mlp.data.features import SparseRows, as_tensor, unit_rows
from graph2mlp.data.graph import GraphData
from graph2mlp.errors import DataError
from graph2mlp.structure.adjacency import normalised_adjacency
from graph2mlp.structure.tall import column_blocks, gram, turn_, whitening

__all__ = ["LARGE", "smoothed_features"]

Product: TypeAlias = Callable[[Tensor], Tensor]

_EXTRA = 10
"""Further columns of the search, dropped at the end: the last wanted direction converges as fast as its gap to them."""
_ROUNDS = 6
_COLUMNS = 20
"""Columns of a large graph that are smoothed at once."""

LARGE = 50_000
"""Nodes above which bases are made from inner products, in place, and not by Householder reflections, which take three
matrices more. Both find the same directions up to rounding."""

_ROUNDING = 1e-5
"""In float32 a direction or a row that is shorter than this share of the longest one is noise."""


def smoothed_features(graph: GraphData, *, dim: int, seed: int, steps: int = 2) -> tuple[Tensor, Tensor]:
    """The `dim` leading left singular vectors of `A^steps X`, times their values -> (`[N, dim]` float32, `known [N]`).

    `A = D^-1/2 (Adj + I) D^-1/2` over edges of both directions; rows of sparse X (bags of words) have length 1, columns
    of dense X mean 0 and deviation 1. Each row is scaled to length 1; signs are fixed by the largest entry.

    Randomised subspace iteration (Halko, Martinsson, Tropp: "Finding Structure with Randomness", SIAM Review 2011)
    multiplies by A and X in turn. `A^steps X` itself, dense and N x F, is never formed.

    Nodes without edges are left out and not known. Nothing is smoothed there: the row would repeat the node's own
    features, which the student reads anyway, and since no average shortens them they would fill the leading columns.
    So a node without edges is asked as a new one without neighbours is: zeros. Nor is a node known whose surroundings
    have no features. A rank below `dim` leaves the last columns zero.
    """
    adjacency, connected = normalised_adjacency(graph, self_loops=True)
    features, features_transposed = _features(graph)

    def smooth(rows: Tensor) -> Tensor:
        if len(rows) > LARGE:
            for columns in column_blocks(rows, _COLUMNS):
                rows[:, columns] = repeated(rows[:, columns])
            return rows
        return repeated(rows)

    def repeated(rows: Tensor) -> Tensor:
        for _ in range(steps):
            rows = adjacency @ rows
        return rows

    generator = torch.Generator().manual_seed(seed)
    right = torch.randn(graph.num_features, min(dim + _EXTRA, graph.num_features), generator=generator)
    for _ in range(_ROUNDS):
        # Without these the columns would all turn towards the first direction, and float32 would lose the others.
        left = _orthonormal(smooth(features(right)))
        right = torch.linalg.qr(features_transposed(smooth(left))).Q
        del left  # before the next is there
    rows = smooth(features(right))
    values, turn = _singular(rows)
    if not bool(values[0] > 0):
        raise DataError(
            f"The features of graph '{graph.name}' are zero, or the same, for all nodes with edges; there is nothing "
            "to smooth. Use structure.encoder=laplacian."
        )
    count = min(dim, int((values > _ROUNDING * values[0]).sum()))
    return _scaled(_turned(rows, turn[:, :count]), connected, dim)


def _turned(rows: Tensor, onto: Tensor) -> Tensor:
    """`rows @ onto`, not U S of the decomposition, so that a row of zeros stays exactly that; large ones in place."""
    if len(rows) <= LARGE:
        return rows @ onto
    turn_(rows, onto)
    return rows[:, : onto.size(1)]


def _scaled(rows: Tensor, connected: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Rows `[N, k]` of length 1 with fixed signs of their columns, filled up with zeros -> `[N, dim]`; and `known`."""
    largest = torch.stack([column[column.abs().argmax()] for column in rows.T])
    rows *= torch.sign(largest)
    length = rows.norm(dim=1, keepdim=True)
    known = connected & (length.squeeze(1) > _ROUNDING * length.max())
    rows /= length
    rows[~known] = 0
    out = torch.zeros(len(rows), dim)
    out[:, : rows.size(1)] = rows
    return out, known


def _orthonormal(rows: Tensor) -> Tensor:
    """A basis of what the columns of `rows [N, w]` span, in place of them where they are large.

    Rounding leaves the short directions of a large one a little oblique; what matters here is that none is lost.
    """
    if len(rows) <= LARGE:
        basis: Tensor = torch.linalg.qr(rows).Q
        return basis
    turn_(rows, whitening(gram(rows), rounding=_ROUNDING).flip(1).float())
    return rows


def _singular(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values `[w]` of `rows [N, w]`, descending, and its right singular vectors as columns `[w, w]`."""
    if len(rows) <= LARGE:
        _, values, turn = torch.linalg.svd(torch.linalg.qr(rows, mode="r").R)
        return values, turn.T
    squares, vectors = torch.linalg.eigh(gram(rows))
    return squares.flip(0).clamp(min=0).sqrt().float(), vectors.flip(1).float()


def _features(graph: GraphData) -> tuple[Product, Product]:
    """Multiplication by the scaled features X `[N, F]`, and by their transpose.

    Dense columns may have any unit and zero; without scaling, the largest would be the leading direction. Where they
    have one unit (amazon:Photo, 35 % ones; digits) rows of length 1 measured the same accuracy.
    """
    rows = graph.features()
    if isinstance(rows, SparseRows):
        x = as_tensor(unit_rows(rows))
        transposed = x.t().to_sparse_csr()
        return lambda right: x @ right, lambda left: transposed @ left
    deviation, mean = torch.std_mean(rows, 0)
    scale = torch.where(deviation > _ROUNDING * mean.abs(), 1 / deviation, 0).unsqueeze(1)
    return (
        lambda right: (rows @ (scale * right)).sub_(mean @ (scale * right)),
        lambda left: scale * (rows.T @ left - torch.outer(mean, left.sum(0))),
    )
