"""One projected signed-gradient step, in place: the only one in this package."""

from __future__ import annotations

import torch
from torch import Tensor

from graph2mlp.errors import KernelError
from graph2mlp.kernels.dispatch import select

__all__ = ["signed_step"]

_BLOCK = 2**16  # numbers at a time: the sign needs no second tensor of the full size, and stays in the cache


def signed_step(delta: Tensor, gradient: Tensor, *, alpha: float, eps: float) -> Tensor:
    """`delta <- clip(delta + alpha sign(gradient), -eps, eps)`, in place; returns `delta` (Madry et al. 2018).

    The sign of 0 is 0. Where the gradient is NaN or infinite, so is the result NaN: torch's own `sign` calls NaN 0, and
    a broken network would look robust.

    Shapes: `delta` and `gradient` alike, of one floating type, any number of dimensions; `delta` contiguous.

    Raises:
        KernelError: they do not match, or `delta` is not contiguous.
    """
    if delta.shape != gradient.shape or delta.dtype != gradient.dtype or not delta.is_floating_point():
        raise KernelError(
            "signed_step: delta and gradient must have one shape and one floating type, got "
            f"{delta.dtype} {list(delta.shape)} and {gradient.dtype} {list(gradient.shape)}."
        )
    if not delta.is_contiguous():
        raise KernelError("signed_step: delta must be contiguous, since it is changed in place; call .contiguous().")
    unsupported = "float64 numbers" if delta.dtype == torch.float64 else None
    with torch.no_grad():
        if select("signed_step", delta, gradient, unsupported=unsupported) == "triton":
            from graph2mlp.kernels.pgd_perturb.fused import fused  # triton has wheels for Linux only

            return fused(delta, gradient.contiguous(), alpha, eps)
        blocks = zip(delta.view(-1).split(_BLOCK), gradient.reshape(-1).split(_BLOCK), strict=True)
        for own, slope in blocks:
            # 0 x NaN is NaN.
            own.add_(slope.sign().add_(slope, alpha=0), alpha=alpha).clamp_(-eps, eps)
    return delta
