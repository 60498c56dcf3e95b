"""The Triton kernels that touch features: one number per edge forward, a node's gradient from its edges backward."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from graph2mlp.kernels.lsp.rows import LOG2E, part_of_hub, similarity

__all__ = ["edge_pull", "edge_similarity", "hub_sum", "neighbour_sum"]


@triton.jit
def edge_similarity(
    features, inverse, owner, other, out, n_edges,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DISTANCE: tl.constexpr, NORMALIZED: tl.constexpr,
):  # fmt: skip
    """The raw number of each edge: inner product, cosine or squared distance."""
    e = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = e < n_edges
    i = tl.load(owner + e, mask=live, other=0).to(tl.int64)
    j = tl.load(other + e, mask=live, other=0).to(tl.int64)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, D, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = live[:, None] & (column < D)[None, :]
        x = tl.load(features + i[:, None] * D + column[None, :], mask=mask, other=0.0).to(tl.float32)
        y = tl.load(features + j[:, None] * D + column[None, :], mask=mask, other=0.0).to(tl.float32)
        if DISTANCE:
            total += tl.sum((x - y) * (x - y), 1)
        else:
            total += tl.sum(x * y, 1)
    if NORMALIZED:
        total *= tl.load(inverse + i, mask=live, other=0.0) * tl.load(inverse + j, mask=live, other=0.0)
    tl.store(out + e, total, mask=live)


@triton.jit
def _pull(coefficient, raw, scale, gamma, KERNEL: tl.constexpr):
    """`coefficient` times the same as `Similarity.pull`."""
    if KERNEL == "poly":
        w = coefficient * raw * (2.0 * scale)
    elif KERNEL == "l2":
        w = tl.where(raw == 0, 0.0, coefficient * -scale * tl.rsqrt(tl.where(raw == 0, 1.0, raw)))
    elif KERNEL == "rbf":
        w = coefficient * tl.exp2(raw * (-gamma * LOG2E)) * (2.0 * gamma * scale)
    else:
        w = coefficient * scale
    return w


@triton.jit
def edge_pull(
    raw_a, raw_b, owner, lse_a, lse_b, losses, weight, pull_a, pull_b, n_edges, scale, gamma,
    KERNEL: tl.constexpr, ROWS: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """What each edge pulls its ends together with, for the sides that need it: `dL / de` times the slope of `e`."""
    e = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = e < n_edges
    i = tl.load(owner + e, mask=live, other=0)
    share = tl.load(weight + i, mask=live, other=0.0)
    a = tl.load(raw_a + e, mask=live, other=0.0)
    b = tl.load(raw_b + e, mask=live, other=0.0)
    log_p = similarity(a, scale, gamma, KERNEL) - tl.load(lse_a + i, mask=live, other=0.0)
    log_q = similarity(b, scale, gamma, KERNEL) - tl.load(lse_b + i, mask=live, other=0.0)
    p = tl.exp2(log_p * LOG2E)
    if A:
        gap = log_p - log_q - tl.load(losses + i, mask=live, other=0.0)
        pull = _pull(share * p * gap, a, scale, gamma, KERNEL)
        tl.store(pull_a + e, tl.where(share == 0, 0.0, pull), mask=live)
    if B:
        pull = _pull(share * (tl.exp2(log_q * LOG2E) - p), b, scale, gamma, KERNEL)
        tl.store(pull_b + e, tl.where(share == 0, 0.0, pull), mask=live)


@triton.jit
def neighbour_sum(
    features, inverse, raw, pull, order, pointer, owner, other, out, n_edges,
    D: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, HUBS: tl.constexpr,
    DISTANCE: tl.constexpr, NORMALIZED: tl.constexpr, ORDERED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The gradient of one row: what its edges pull it with. With HUBS, one part of a hub, to be added up later."""
    slot = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    if HUBS:
        row, _, _, begin, end, live = part_of_hub(slot, pointer, owner, n_edges, CHUNK)
    else:
        row = slot
        begin = tl.load(pointer + row)
        end = tl.load(pointer + row + 1)
        live = end - begin <= CHUNK
    if live:
        x = tl.load(features + row.to(tl.int64) * D + column, mask=inside, other=0.0).to(tl.float32)
        scale = 1.0
        if NORMALIZED:
            scale = tl.load(inverse + row)
            x *= scale
        total = tl.zeros([COLUMNS], tl.float32)
        for start in range(begin, end, EDGES):
            k = start + tl.arange(0, EDGES)
            here = k < end
            j = tl.load(other + k, mask=here, other=0).to(tl.int64)
            e = k
            if ORDERED:
                e = tl.load(order + k, mask=here, other=0)
            w = tl.load(pull + e, mask=here, other=0.0)
            mask = here[:, None] & inside[None, :]
            y = tl.load(features + j[:, None] * D + column[None, :], mask=mask, other=0.0).to(tl.float32)
            if DISTANCE:
                y = y - x[None, :]
            if NORMALIZED:  # what lies along the row itself changes its length only
                y = y * tl.load(inverse + j, mask=here, other=0.0)[:, None]
                y = y - tl.load(raw + e, mask=here, other=0.0)[:, None] * x[None, :]
            total += tl.sum(w[:, None] * y, 0)
        if NORMALIZED:
            total *= tl.where(begin < end, scale, 0.0)  # a row without edges may hold NaN
        target = out + slot.to(tl.int64) * D + column
        if ADD:
            total += tl.load(target, mask=inside, other=0.0)
        tl.store(target, total, mask=inside)


@triton.jit
def hub_sum(
    parts, pointer, owner, out, n_edges,
    D: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """The parts of each hub's gradient, in order. The slot that holds the first part adds them up."""
    slot = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < D
    row, begin, end, start, _, live = part_of_hub(slot, pointer, owner, n_edges, CHUNK)
    if live & (start == begin):
        total = tl.load(parts + slot.to(tl.int64) * D + column, mask=inside, other=0.0)
        part = parts + (slot // 2).to(tl.int64) * (2 * D) + column
        for _chunk in range(slot // 2 + 1, ((end + CHUNK - 1) // CHUNK).to(tl.int32)):
            part += 2 * D
            total += tl.load(part, mask=inside, other=0.0)
        target = out + row.to(tl.int64) * D + column
        if ADD:
            total += tl.load(target, mask=inside, other=0.0)
        tl.store(target, total, mask=inside)
