"""The one place that starts a Triton kernel. Imported only by the `fused` modules, so never without triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["Tiles", "padded", "precision", "run"]

INTERPRETED = not isinstance(tl.zeros, triton.JITFunction)
"""Whether kernels run in the interpreter, which knows no bfloat16 arithmetic and multiplies in full precision."""


@dataclass(frozen=True)
class Tiles:
    """How one kernel is cut for one width: `rows` of output per program, `columns` of input per step of its loop."""

    rows: int
    columns: int
    warps: int
    stages: int


def run(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], constants: dict[str, Any], tiles: Tiles) -> None:
    """Start `kernel`, with `UPCAST` set if it has such a constant. The compile-only check replaces this function.

    A kernel sees only pointers: inputs are made dense here (the gradient of a plain sum has stride 0), and the device
    is that of the tensors, which need not be the current one.
    """
    if "UPCAST" in kernel.arg_names:
        constants = {**constants, "UPCAST": INTERPRETED}
    dense = {name: one.contiguous() if isinstance(one, Tensor) else one for name, one in arguments.items()}
    tensors = [one for one in dense.values() if isinstance(one, Tensor)]
    if all(tensor.numel() for tensor in tensors):
        with torch.cuda.device_of(tensors[0]):
            kernel[grid](**dense, **constants, num_warps=tiles.warps, num_stages=tiles.stages)


def padded(side: Tensor) -> Tensor:
    """`[N, d]` as contiguous rows of 16, 32, 64, ... numbers, for whole tiles. Zeros add nothing to a product."""
    width = max(16, triton.next_power_of_2(side.size(1)))
    return F.pad(side, (0, width - side.size(1))).contiguous()


def precision(side: Tensor) -> str:
    """How `tl.dot` multiplies: three tf32 products keep float32's digits; half types have one way only."""
    return "tf32x3" if side.dtype == torch.float32 else "tf32"
