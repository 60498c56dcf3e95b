"""Pieces that the tile kernels share. Imported only by them, so never without triton."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["load_tile"]


@triton.jit
def load_tile(pointer, first, rows, BLOCK: tl.constexpr, D: tl.constexpr, UPCAST: tl.constexpr):
    """Rows `first ...` of a contiguous matrix, zeros beyond its end."""
    index = first + tl.arange(0, BLOCK)
    offsets = index[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
    tile = tl.load(pointer + offsets, mask=(index < rows)[:, None], other=0.0)
    if UPCAST:
        tile = tile.to(tl.float32)
    return tile
