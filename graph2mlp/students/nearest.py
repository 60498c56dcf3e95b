"""The K rows of a bank that a query fits best, and the mean of them that attention makes; nothing here has a gradient.

Two forms with one result: `nearest_reference` is the formula, with all B x N scores at once and a full sort; `nearest`
walks over the bank in blocks with a running best K, so that its memory is O(B K) beside one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Neighbours", "attend", "nearest", "nearest_reference"]

_BLOCK = 8192
"""Rows of the bank per block."""
_QUERIES = 1024
"""Queries per block: a block of scores then takes 32 MB."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Best rows first: `ids [B, K]` positions in the bank, `scores [B, K]` their inner products with the query."""

    ids: Tensor
    scores: Tensor

    def take(self, rows: Tensor) -> Neighbours:
        """Those of the queries `rows [b]`."""
        return Neighbours(self.ids[rows], self.scores[rows])


@torch.no_grad()
def nearest_reference(query: Tensor, bank: Tensor, count: int, *, exclude: Tensor | None = None) -> Neighbours:
    """The `count` largest of `query [B, D] . bank [N, D]` per query; of equal scores the lower id wins.

    `exclude [B]` names one row of the bank per query that is left out: itself.
    """
    scores = query @ bank.T
    if exclude is not None:
        scores[torch.arange(len(query), device=query.device), exclude] = -torch.inf
    values, ids = scores.sort(dim=1, descending=True, stable=True)
    return Neighbours(ids[:, :count], values[:, :count])


@torch.no_grad()
def nearest(query: Tensor, bank: Tensor, count: int, *, exclude: Tensor | None = None) -> Neighbours:
    """What `nearest_reference` gives, in time O(B N D) without the sort, and memory O(B K) beside one block."""
    if torch.compiler.is_exporting():
        # ONNX breaks ties by the lower id itself; with a bias (of zeros) the product is one operator, Gemm.
        values, ids = F.linear(query, bank, bank.new_zeros(len(bank))).topk(count)
        return Neighbours(ids, values)
    parts = [
        _scan(query[start : start + _QUERIES], bank, count, None if exclude is None else exclude[start:])
        for start in range(0, len(query), _QUERIES)
    ]
    if not parts:
        return Neighbours(query.new_empty(0, count, dtype=torch.long), query.new_empty(0, count))
    return Neighbours(torch.cat([part.ids for part in parts]), torch.cat([part.scores for part in parts]))


def attend(near: Neighbours, bank: Tensor, scale: Tensor | float) -> Tensor:
    """`sum_j softmax_j(scale * score_j) bank_j` over each query's K rows: `[B, D]`."""
    weights = (near.scores * scale).softmax(1)
    return (weights.unsqueeze(1) @ F.embedding(near.ids, bank)).squeeze(1)


def _scan(query: Tensor, bank: Tensor, count: int, exclude: Tensor | None) -> Neighbours:
    rows = torch.arange(len(query), device=query.device)
    ids = rows.new_empty(len(query), 0)
    best = query.new_empty(len(query), 0)
    for start in range(0, len(bank), _BLOCK):
        scores = query @ bank[start : start + _BLOCK].T
        if exclude is not None:
            place = exclude[: len(query)] - start
            inside = (place >= 0) & (place < scores.size(1))
            scores[rows[inside], place[inside]] = -torch.inf
        found = _largest(scores, min(count, scores.size(1)))
        # What was found before stands first and has the lower ids, so among equals the order of places is that of ids.
        both, all_ids = torch.cat([best, found.scores], 1), torch.cat([ids, found.ids + start], 1)
        kept = _largest(both, min(count, both.size(1)))
        ids, best = all_ids.gather(1, kept.ids), kept.scores
    return Neighbours(ids, best)


def _largest(scores: Tensor, count: int) -> Neighbours:
    """The `count` largest of each row in descending order, equal ones in the order of their places."""
    values, places = scores.topk(count)
    # topk may pick any of several equal scores: rows where that matters are sorted in full.
    tied = (scores >= values[:, -1:]).sum(1) > count
    places = places.sort(1).values
    values, order = scores.gather(1, places).sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    if bool(tied.any()):
        full = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], places[tied] = full.values[:, :count], full.indices[:, :count]
    return Neighbours(places, values)
