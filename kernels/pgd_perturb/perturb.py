"""The public function: the search around any model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graph2mlp.errors import KernelError
from graph2mlp.kernels.checks import check_positive
from graph2mlp.kernels.dispatch import backend
from graph2mlp.kernels.pgd_perturb.reference import reference
from graph2mlp.kernels.pgd_perturb.step import signed_step
from graph2mlp.kernels.pgd_perturb.still import fixed_parameters, kept_statistics

__all__ = ["pgd_perturb"]


def pgd_perturb(
    model: nn.Module,
    x: Tensor,
    loss_fn: Callable[[Any], Tensor],
    *,
    eps: float,
    steps: int = 5,
    alpha: float | None = None,
    random_start: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise that hurts: `max loss_fn(model(x + delta))` over `|delta| <= eps` per number (Madry et al. 2018; NOSMOG).

    `steps` times `delta <- clip(delta + alpha sign(gradient), -eps, eps)`, from a uniform start in the box or from 0.
    Only the gradient of delta is computed: no parameter's `.grad` is touched, and the parameters, `x` and all flags are
    as before, also after an exception. Not safe while another thread trains the same model.

    Normalisation with running statistics uses them and does not update them, whatever the mode of the model, so the
    noise of one row does not depend on the others. Everything else keeps its mode: in a model in training dropout is
    live, with a new mask in each step from torch's global generator. Call `model.eval()` first to leave it out.

    Shapes: `x` of any shape, a floating type; returns delta like `x`, detached. To train on it, call
    `loss_fn(model(x + delta))`.

    Args:
        loss_fn: from the output of the model to a scalar, which is to grow.
        eps: half the width of the box; 0 gives no noise.
        alpha: size of a step; `eps / 4` if None, as in NOSMOG's code.
        random_start: start uniformly in the box instead of at 0.
        generator: of the start, on any device.

    Raises:
        KernelError: a setting out of range, `x` of an integer type, or a loss that is no scalar or ignores `x`.
    """
    alpha = _check(x, eps, steps, alpha)
    base = x.detach()
    delta = torch.zeros_like(base, memory_format=torch.contiguous_format)
    if random_start:
        device = x.device if generator is None else generator.device
        delta.copy_(torch.empty(x.shape, dtype=x.dtype, device=device).uniform_(-eps, eps, generator=generator))
    if eps == 0:
        return delta

    def loss(point: Tensor) -> Tensor:
        value = loss_fn(model(base + point))
        if value.dim() or not value.requires_grad:
            raise KernelError(
                f"pgd_perturb: loss_fn must return a scalar that depends on the input, got shape {list(value.shape)}"
                f"{'' if value.requires_grad else ' without a gradient'}. Reduce it, and detach nothing on the way."
            )
        return value

    with torch.enable_grad(), kept_statistics(model), fixed_parameters(model):
        if backend() == "dense":
            return reference(loss, delta, eps=eps, alpha=alpha, steps=steps)
        for _ in range(steps):
            point = delta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(point), point)
            signed_step(delta, gradient, alpha=alpha, eps=eps)
    return delta


def _check(x: Tensor, eps: float, steps: int, alpha: float | None) -> float:
    """The size of a step."""
    if not x.is_floating_point() or x.layout != torch.strided:
        raise KernelError(f"pgd_perturb: x must be dense and of a floating type, got {x.dtype}, {x.layout}.")
    if not (eps >= 0 and math.isfinite(eps)):
        raise KernelError(f"pgd_perturb: eps must be 0 or more and finite, got {eps}.")
    if steps < 1:
        raise KernelError(f"pgd_perturb: steps must be at least 1, got {steps}.")
    if alpha is None:
        return eps / 4
    check_positive("pgd_perturb", "alpha", alpha)
    return alpha
