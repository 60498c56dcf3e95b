"""The Triton kernels that go through the edges row by row: softmax and KL. Exponentials are base 2."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LOG2E", "hub_kl", "hub_lse", "part_of_hub", "row_statistics", "similarity"]

LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
_LOWEST = tl.constexpr(-1e30)  # a finite start for the running maximum: a row without edges needs no special case


@triton.jit
def similarity(raw, scale, gamma, KERNEL: tl.constexpr):
    """`e_ij`; the same as `Similarity.value`."""
    if KERNEL == "poly":
        e = raw * raw * scale
    elif KERNEL == "l2":
        e = tl.sqrt(raw) * scale
    elif KERNEL == "rbf":
        e = tl.exp2(raw * (-gamma * LOG2E)) * scale
    else:
        e = raw * scale
    return e


@triton.jit
def part_of_hub(slot, pointer, owner, n_edges, CHUNK: tl.constexpr):
    """Slots 2k and 2k + 1 are for the hubs that own the first and the last edge of chunk k, if these differ.

    No third one fits into a chunk. Gives the hub's row, where it begins and ends, where its part in the chunk does, and
    whether there is any.
    """
    first = (slot // 2).to(tl.int64) * CHUNK
    last = tl.minimum(first + CHUNK, n_edges) - 1
    live = first < n_edges
    row_first = tl.load(owner + first, mask=live, other=0)
    row_last = tl.load(owner + last, mask=live, other=0)
    row = tl.where(slot % 2 == 0, row_first, row_last)
    begin = tl.load(pointer + row)
    end = tl.load(pointer + row + 1)
    any_hub = live & (end - begin > CHUNK) & ((slot % 2 == 0) | (row_first != row_last))
    return row, begin, end, tl.maximum(begin, first), tl.minimum(end, last + 1), any_hub


@triton.jit
def _merge(top, mass, top2, mass2):
    """Two parts of a row as one; `mass = sum exp(e - top)`."""
    high = tl.maximum(top, top2)  # drops NaN, but the masses do not
    return high, mass * tl.exp2((top - high) * LOG2E) + mass2 * tl.exp2((top2 - high) * LOG2E)


@triton.jit
def _lse(top, mass):
    """Their log-sum-exp; 0 without edges."""
    return tl.where(mass == 0, 0.0, top + tl.log2(tl.where(mass == 0, 1.0, mass)) * _LN2)


@triton.jit
def _kl(
    raw_a, raw_b, begin, length, lse_a, lse_b, scale, gamma,
    KERNEL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`sum P (d - 1) + Q`, `d = log P - log Q`: the KL without its terms of first order, which cancel in the sum."""
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, tl.max(length, 0), COLUMNS):
        step = start + tl.arange(0, COLUMNS)[None, :]
        here = step < length[:, None]
        log_p = similarity(tl.load(raw_a + begin[:, None] + step, mask=here, other=0.0), scale, gamma, KERNEL)
        log_q = similarity(tl.load(raw_b + begin[:, None] + step, mask=here, other=0.0), scale, gamma, KERNEL)
        log_p = log_p - lse_a[:, None]
        log_q = log_q - lse_b[:, None]
        p = tl.exp2(log_p * LOG2E)
        d = log_p - log_q
        near = d * d * (0.5 - d * (1 / 6 - d * (1 / 24 - d * (1 / 120 - d * (1 / 720 - d * (1 / 5040))))))
        term = tl.where(tl.abs(d) < 0.5, p * near, p * (d - 1.0) + tl.exp2(log_q * LOG2E))
        total += tl.sum(tl.where(here, term, 0.0), 1)
    return total


@triton.jit
def row_statistics(
    raw_a, raw_b, pointer, owner, lse_a, lse_b, losses, parts, n_rows, n_edges, scale, gamma,
    KERNEL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, HUBS: tl.constexpr,
):  # fmt: skip
    """Log-sum-exps and KL of whole rows, teacher a, student b; with HUBS, maxima and masses of the parts of hubs."""
    own = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if HUBS:
        _, _, _, begin, end, live = part_of_hub(own, pointer, owner, n_edges, CHUNK)
    else:
        inside = own < n_rows
        begin = tl.load(pointer + own, mask=inside, other=0)
        end = tl.load(pointer + own + 1, mask=inside, other=0)
        live = inside & (end - begin <= CHUNK)
    length = tl.where(live, end - begin, 0)
    top_a = tl.full([ROWS], _LOWEST, tl.float32)
    top_b = top_a
    mass_a = tl.zeros([ROWS], tl.float32)
    mass_b = mass_a
    for start in range(0, tl.max(length, 0), COLUMNS):
        step = start + tl.arange(0, COLUMNS)[None, :]
        here = step < length[:, None]
        a = similarity(tl.load(raw_a + begin[:, None] + step, mask=here, other=0.0), scale, gamma, KERNEL)
        b = similarity(tl.load(raw_b + begin[:, None] + step, mask=here, other=0.0), scale, gamma, KERNEL)
        a = tl.where(here, a, _LOWEST)
        b = tl.where(here, b, _LOWEST)
        high_a = tl.max(a, 1)
        high_b = tl.max(b, 1)
        p = tl.where(here, tl.exp2((a - high_a[:, None]) * LOG2E), 0.0)
        q = tl.where(here, tl.exp2((b - high_b[:, None]) * LOG2E), 0.0)
        top_a, mass_a = _merge(top_a, mass_a, high_a, tl.sum(p, 1))
        top_b, mass_b = _merge(top_b, mass_b, high_b, tl.sum(q, 1))
    if HUBS:
        tl.store(parts + own * 4, top_a, mask=live)
        tl.store(parts + own * 4 + 1, mass_a, mask=live)
        tl.store(parts + own * 4 + 2, top_b, mask=live)
        tl.store(parts + own * 4 + 3, mass_b, mask=live)
    else:
        all_a = _lse(top_a, mass_a)
        all_b = _lse(top_b, mass_b)
        loss = _kl(raw_a, raw_b, begin, length, all_a, all_b, scale, gamma, KERNEL, ROWS, COLUMNS)
        tl.store(lse_a + own, all_a, mask=live)
        tl.store(lse_b + own, all_b, mask=live)
        tl.store(losses + own, loss, mask=live)


@triton.jit
def hub_lse(
    pointer, owner, parts, lse_a, lse_b, n_edges, ROWS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """The parts of each hub, in order, as one row. The slot that holds the first part does it."""
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, begin, end, start, _, live = part_of_hub(slot, pointer, owner, n_edges, CHUNK)
    live = live & (start == begin)
    chunk = slot // 2
    count = tl.where(live, ((end + CHUNK - 1) // CHUNK).to(tl.int32) - chunk, 0)
    top_a = tl.full([ROWS], _LOWEST, tl.float32)
    top_b = top_a
    mass_a = tl.zeros([ROWS], tl.float32)
    mass_b = mass_a
    for step in range(0, tl.max(count, 0)):
        here = step < count
        # It owns the first edge of every chunk it reaches into, so its later parts lie in even slots.
        part = parts + tl.where(step == 0, slot, 2 * (chunk + step)) * 4
        next_a = tl.load(part, mask=here, other=_LOWEST)
        next_b = tl.load(part + 2, mask=here, other=_LOWEST)
        top_a, mass_a = _merge(top_a, mass_a, next_a, tl.load(part + 1, mask=here, other=0.0))
        top_b, mass_b = _merge(top_b, mass_b, next_b, tl.load(part + 3, mask=here, other=0.0))
    tl.store(lse_a + row, _lse(top_a, mass_a), mask=live)
    tl.store(lse_b + row, _lse(top_b, mass_b), mask=live)


@triton.jit
def hub_kl(
    raw_a, raw_b, pointer, owner, lse_a, lse_b, parts, n_edges, scale, gamma,
    KERNEL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The KL of the parts of hubs, to be added up."""
    slot = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, _, _, begin, end, live = part_of_hub(slot, pointer, owner, n_edges, CHUNK)
    all_a = tl.load(lse_a + row, mask=live, other=0.0)
    all_b = tl.load(lse_b + row, mask=live, other=0.0)
    length = tl.where(live, end - begin, 0)
    loss = _kl(raw_a, raw_b, begin, length, all_a, all_b, scale, gamma, KERNEL, ROWS, COLUMNS)
    tl.store(parts + slot, loss, mask=live)
