"""The Triton kernels: each program owns some rows, and all columns stream by. Exponentials are base 2."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from graph2mlp.kernels.tiles import load_tile

__all__ = ["divergence_pull", "row_divergences", "squares"]

_LOWEST = tl.constexpr(-1e30)  # a finite start for the running maximum
_NEVER = tl.constexpr(1e30)  # a log-sum-exp whose exponentials are 0: of a row without members


@triton.jit
def _product(
    q, k, own, key, first, start, n_own, n_key,
    D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    STEP: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`q k^T`; with STEP from so many features at a time, for tiles `q` and `k` that no register file holds."""
    if STEP == 0:
        x = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    else:
        PART: tl.constexpr = STEP if STEP < D else D
        x = tl.zeros([ROWS, COLUMNS], tl.float32)
        rows = (first + tl.arange(0, ROWS))[:, None]
        columns = (start + tl.arange(0, COLUMNS))[:, None]
        for part in range(0, D, PART):
            features = part + tl.arange(0, PART)[None, :]
            a = tl.load(own + rows.to(tl.int64) * D + features, mask=rows < n_own, other=0.0)
            b = tl.load(key + columns.to(tl.int64) * D + features, mask=columns < n_key, other=0.0)
            if UPCAST:
                a = a.to(tl.float32)
                b = b.to(tl.float32)
            x = tl.dot(a, tl.trans(b), x, input_precision=PRECISION)
    return x


@triton.jit
def _similarity(x, norms_i, norms_j, same, factor, KERNEL: tl.constexpr):
    """`K [ROWS, COLUMNS]` from products, and its slope without the constant that `fused.py` multiplies in at the end.

    `norms` are squared lengths, `factor` the sign of l2 or the -gamma log2(e) of rbf; `same` marks a row beside itself.
    """
    slope = x
    if KERNEL == "poly":
        x = x * x
    if KERNEL == "l2" or KERNEL == "rbf":
        x = norms_i[:, None] + norms_j[None, :] - 2.0 * x
        x = tl.where(same | (x < 0), 0.0, x)  # a comparison keeps NaN, max would drop it
    if KERNEL == "l2":
        slope = tl.rsqrt(tl.where(x > 0, x, float("inf")))  # 0 where the distance is
        x = factor * tl.sqrt(x)
    if KERNEL == "rbf":
        x = tl.exp2(factor * x)
        slope = x
    return x, slope


@triton.jit
def _weighted(c, slope, k, total, mass, KERNEL: tl.constexpr, PRECISION: tl.constexpr):
    """Add `sum_j w_ij k_j` to `total`, `sum_j w_ij` to `mass`, with w = c slope as the product sees it: rounded."""
    w = c
    if KERNEL != "cosine":
        w = c * slope
    w = w.to(k.dtype)
    if KERNEL == "l2" or KERNEL == "rbf":
        mass += tl.sum(w.to(tl.float32), 1)
    return tl.dot(w, k, total, input_precision=PRECISION), mass


@triton.jit
def _store(
    out, own_x, first, n_own, total, mass,
    ROWS: tl.constexpr, D: tl.constexpr, KERNEL: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`sum_j w_ij k_j`, or `sum_j w_ij (q_i - k_j)` for distances."""
    if KERNEL == "l2" or KERNEL == "rbf":
        total = mass[:, None] * load_tile(own_x, first, n_own, ROWS, D, UPCAST).to(tl.float32) - total
    own = first + tl.arange(0, ROWS)
    offsets = own[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
    tl.store(out + offsets, total, mask=(own < n_own)[:, None])


@triton.jit
def squares(
    own_x, own_y, key_x, key_y, own_x_norm, own_y_norm, key_x_norm, key_y_norm, own_ids, key_ids,
    own_share, key_share, losses, out, n_own, n_key, factor,
    X: tl.constexpr, Y: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
    KERNEL: tl.constexpr, DIAGONAL: tl.constexpr, LOSS: tl.constexpr, PULL: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`losses_i = sum_j (K(x)_ij - K(y)_ij)^2`, and the pull-back to x of `(a_i + b_j) (K(x)_ij - K(y)_ij)`."""
    first = tl.program_id(0) * ROWS
    own = first + tl.arange(0, ROWS)
    inside = own < n_own
    if STEP == 0:
        qx = load_tile(own_x, first, n_own, ROWS, X, UPCAST)
        qy = load_tile(own_y, first, n_own, ROWS, Y, UPCAST)
    else:
        qx = own_x
        qy = own_y
    id_i = tl.load(own_ids + own, mask=inside, other=-1)
    share_i = tl.load(own_share + own, mask=inside, other=0.0)
    x_i = tl.load(own_x_norm + own, mask=inside, other=0.0)
    y_i = tl.load(own_y_norm + own, mask=inside, other=0.0)
    loss = tl.zeros([ROWS], tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, X], tl.float32)
    for start in range(0, n_key, COLUMNS):
        key = start + tl.arange(0, COLUMNS)
        valid = key < n_key
        if STEP == 0:
            kx = load_tile(key_x, start, n_key, COLUMNS, X, UPCAST)
            ky = load_tile(key_y, start, n_key, COLUMNS, Y, UPCAST)
        else:
            kx = key_x
            ky = key_y
        x_j = tl.load(key_x_norm + key, mask=valid, other=0.0)
        y_j = tl.load(key_y_norm + key, mask=valid, other=0.0)
        same = id_i[:, None] == tl.load(key_ids + key, mask=valid, other=-2)[None, :]
        y = _product(qy, ky, own_y, key_y, first, start, n_own, n_key, Y, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        y, _ = _similarity(y, y_i, y_j, same, factor, KERNEL)
        x = _product(qx, kx, own_x, key_x, first, start, n_own, n_key, X, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        x, slope = _similarity(x, x_i, x_j, same, factor, KERNEL)
        left_out = (key >= n_key)[None, :]
        if not DIAGONAL:
            left_out = left_out | same
        gap = tl.where(left_out, 0.0, x - y)
        if LOSS:
            loss += tl.sum(gap * gap, 1)
        if PULL:
            share_j = tl.load(key_share + key, mask=valid, other=0.0)
            c = (share_i[:, None] + share_j[None, :]) * gap
            if STEP != 0:
                kx = load_tile(key_x, start, n_key, COLUMNS, X, UPCAST)
            total, mass = _weighted(c, slope, kx, total, mass, KERNEL, PRECISION)
    if LOSS:
        tl.store(losses + own, loss, mask=inside)
    if PULL:
        _store(out, own_x, first, n_own, total, mass, ROWS, X, KERNEL, UPCAST)


@triton.jit
def _online(x, top, mass):
    """Exponentials of a tile, and the running maximum and sum after it; `fade` takes older sums to the new maximum."""
    higher = tl.maximum(top, tl.max(x, 1))  # drops NaN, but the exponential below does not
    e = tl.exp2(x - higher[:, None])
    fade = tl.exp2(top - higher)
    return e, fade, higher, mass * fade + tl.sum(e, 1)


@triton.jit
def row_divergences(
    own_x, own_y, key_x, key_y, own_x_norm, own_y_norm, key_x_norm, key_y_norm, own_ids, key_ids,
    losses, x_lse, y_lse, mean, n_own, n_key, factor, scale,
    X: tl.constexpr, Y: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
    KERNEL: tl.constexpr, DIAGONAL: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """KL of the softmaxes of `scale K(y)` and `scale K(x)`, all to base 2.

    Also both log-sum-exps, and the mean of `K(y) - K(x)` under the softmax of y.
    """
    first = tl.program_id(0) * ROWS
    own = first + tl.arange(0, ROWS)
    inside = own < n_own
    if STEP == 0:
        qx = load_tile(own_x, first, n_own, ROWS, X, UPCAST)
        qy = load_tile(own_y, first, n_own, ROWS, Y, UPCAST)
    else:
        qx = own_x
        qy = own_y
    id_i = tl.load(own_ids + own, mask=inside, other=-1)
    x_i = tl.load(own_x_norm + own, mask=inside, other=0.0)
    y_i = tl.load(own_y_norm + own, mask=inside, other=0.0)
    x_top = tl.full([ROWS], _LOWEST, tl.float32)
    y_top = tl.full([ROWS], _LOWEST, tl.float32)
    x_mass = tl.zeros([ROWS], tl.float32)
    y_mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, n_key, COLUMNS):
        key = start + tl.arange(0, COLUMNS)
        valid = key < n_key
        if STEP == 0:
            kx = load_tile(key_x, start, n_key, COLUMNS, X, UPCAST)
            ky = load_tile(key_y, start, n_key, COLUMNS, Y, UPCAST)
        else:
            kx = key_x
            ky = key_y
        x_j = tl.load(key_x_norm + key, mask=valid, other=0.0)
        y_j = tl.load(key_y_norm + key, mask=valid, other=0.0)
        same = id_i[:, None] == tl.load(key_ids + key, mask=valid, other=-2)[None, :]
        x = _product(qx, kx, own_x, key_x, first, start, n_own, n_key, X, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        x, _ = _similarity(x, x_i, x_j, same, factor, KERNEL)
        y = _product(qy, ky, own_y, key_y, first, start, n_own, n_key, Y, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        y, _ = _similarity(y, y_i, y_j, same, factor, KERNEL)
        left_out = (key >= n_key)[None, :]
        if not DIAGONAL:
            left_out = left_out | same
        _, _, x_top, x_mass = _online(tl.where(left_out, float("-inf"), x * scale), x_top, x_mass)
        e, fade, y_top, y_mass = _online(tl.where(left_out, float("-inf"), y * scale), y_top, y_mass)
        total = total * fade + tl.sum(e * tl.where(left_out, 0.0, y - x), 1)
    empty = y_mass == 0  # a row without members
    x_mass = tl.where(empty, 1.0, x_mass)
    y_mass = tl.where(empty, 1.0, y_mass)
    total = total / y_mass
    # Not the difference of the two log-sum-exps: those are larger numbers.
    loss = total * scale - ((y_top - x_top) + tl.log2(y_mass / x_mass))
    tl.store(losses + own, loss, mask=inside)
    tl.store(x_lse + own, tl.where(empty, _NEVER, x_top + tl.log2(x_mass)), mask=inside)
    tl.store(y_lse + own, tl.where(empty, _NEVER, y_top + tl.log2(y_mass)), mask=inside)
    tl.store(mean + own, total, mask=inside)


@triton.jit
def _coefficient(x, y, lse, other, scale, TEACHER: tl.constexpr):
    """Of row i or of row j: `Q - P` for a student x, `P (K(x) - K(y) - mean)` for a teacher x."""
    p = tl.exp2(x * scale - lse)
    if TEACHER:
        return p * (x - y - other)
    return p - tl.exp2(y * scale - other)


@triton.jit
def divergence_pull(
    own_x, own_y, key_x, key_y, own_x_norm, own_y_norm, key_x_norm, key_y_norm, own_ids, key_ids,
    own_lse, own_other, own_share, key_lse, key_other, key_share, out, n_own, n_key, factor, scale,
    X: tl.constexpr, Y: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
    KERNEL: tl.constexpr, DIAGONAL: tl.constexpr, TEACHER: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The pull-back to x of `a_i c_ij + b_j c_ji`; `other` is the lse of y, or the mean if x is the teacher."""
    first = tl.program_id(0) * ROWS
    own = first + tl.arange(0, ROWS)
    inside = own < n_own
    if STEP == 0:
        qx = load_tile(own_x, first, n_own, ROWS, X, UPCAST)
        qy = load_tile(own_y, first, n_own, ROWS, Y, UPCAST)
    else:
        qx = own_x
        qy = own_y
    id_i = tl.load(own_ids + own, mask=inside, other=-1)
    x_i = tl.load(own_x_norm + own, mask=inside, other=0.0)
    y_i = tl.load(own_y_norm + own, mask=inside, other=0.0)
    lse_i = tl.load(own_lse + own, mask=inside, other=_NEVER)
    other_i = tl.load(own_other + own, mask=inside, other=_NEVER)
    share_i = tl.load(own_share + own, mask=inside, other=0.0)
    mass = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, X], tl.float32)
    for start in range(0, n_key, COLUMNS):
        key = start + tl.arange(0, COLUMNS)
        valid = key < n_key
        if STEP == 0:
            kx = load_tile(key_x, start, n_key, COLUMNS, X, UPCAST)
            ky = load_tile(key_y, start, n_key, COLUMNS, Y, UPCAST)
        else:
            kx = key_x
            ky = key_y
        x_j = tl.load(key_x_norm + key, mask=valid, other=0.0)
        y_j = tl.load(key_y_norm + key, mask=valid, other=0.0)
        lse_j = tl.load(key_lse + key, mask=valid, other=_NEVER)
        other_j = tl.load(key_other + key, mask=valid, other=_NEVER)
        share_j = tl.load(key_share + key, mask=valid, other=0.0)
        same = id_i[:, None] == tl.load(key_ids + key, mask=valid, other=-2)[None, :]
        y = _product(qy, ky, own_y, key_y, first, start, n_own, n_key, Y, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        y, _ = _similarity(y, y_i, y_j, same, factor, KERNEL)
        x = _product(qx, kx, own_x, key_x, first, start, n_own, n_key, X, ROWS, COLUMNS, STEP, PRECISION, UPCAST)
        x, slope = _similarity(x, x_i, x_j, same, factor, KERNEL)
        left_out = (key >= n_key)[None, :]
        if not DIAGONAL:
            left_out = left_out | same
        c = share_i[:, None] * _coefficient(x, y, lse_i[:, None], other_i[:, None], scale, TEACHER)
        c += share_j[None, :] * _coefficient(x, y, lse_j[None, :], other_j[None, :], scale, TEACHER)
        c = tl.where(left_out, 0.0, c)
        if STEP > 0:
            kx = load_tile(key_x, start, n_key, COLUMNS, X, UPCAST)
        total, mass = _weighted(c, slope, kx, total, mass, KERNEL, PRECISION)
    _store(out, own_x, first, n_own, total, mass, ROWS, X, KERNEL, UPCAST)
