"""The projected signed step on a GPU: one read of each operand, one write."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from graph2mlp.kernels import launch
from graph2mlp.kernels.launch import Tiles

__all__ = ["fused"]

_TILES = Tiles(1, 2048, 4, 1)


@triton.jit
def projected_step(delta, gradient, alpha, eps, count, COLUMNS: tl.constexpr, UPCAST: tl.constexpr):
    """`delta <- clip(delta + alpha sign(gradient), -eps, eps)`; NaN where the gradient is not finite."""
    index = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = index < count
    own = tl.load(delta + index, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(gradient + index, mask=inside, other=0.0).to(tl.float32)
    sign = tl.where(slope > 0, 1.0, tl.where(slope < 0, -1.0, 0.0)) + slope * 0.0
    moved = own + alpha * sign
    # Comparisons, because minimum and maximum drop NaN.
    moved = tl.where(moved > eps, eps, tl.where(moved < -eps, -eps, moved))
    tl.store(delta + index, moved, mask=inside)


def fused(delta: Tensor, gradient: Tensor, alpha: float, eps: float, *, tiles: Tiles = _TILES) -> Tensor:
    """See `signed_step`; both contiguous. Returns `delta`, which has changed."""
    arguments = {"delta": delta, "gradient": gradient, "alpha": alpha, "eps": eps, "count": delta.numel()}
    grid = (triton.cdiv(delta.numel(), tiles.columns),)
    launch.run(projected_step, grid, arguments, {"COLUMNS": tiles.columns}, tiles)
    return delta
