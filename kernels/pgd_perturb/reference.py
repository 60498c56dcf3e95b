"""The search as published, step by step, every intermediate a tensor of its own: the yardstick for `pgd_perturb`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["reference"]


def reference(loss: Callable[[Tensor], Tensor], start: Tensor, *, eps: float, alpha: float, steps: int) -> Tensor:
    """`delta <- clip(delta + alpha sign(d loss / d delta), -eps, eps)`, `steps` times from `start`."""
    delta = start
    for _ in range(steps):
        point = delta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point)
        moved = delta + alpha * torch.where(torch.isfinite(gradient), gradient.sign(), torch.nan)
        delta = moved.clamp(-eps, eps)
    return delta
