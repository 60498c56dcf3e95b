"""The similarities LSP knows: from one number per edge to `e_ij`, and back from a gradient to a pull on features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["LAPLACE", "Kernel", "Similarity"]

Kernel: TypeAlias = Literal["cosine", "poly", "dot", "l2", "rbf", "laplace"]

LAPLACE = 100.0
"""What the 1-norm is divided by, as in the authors' code."""


@dataclass(frozen=True)
class Similarity:
    """`e_ij`, as a function of one raw number per edge: cosine, inner product, squared distance or 1-norm."""

    kernel: str
    sign: float
    tau: float
    gamma: float

    @property
    def scale(self) -> float:
        """The factor in front: 1 / tau, with the sign of `l2`."""
        return (self.sign if self.kernel == "l2" else 1.0) / self.tau

    @property
    def normalized(self) -> bool:
        """The raw number is the cosine."""
        return self.kernel in ("cosine", "poly")

    @property
    def distance(self) -> bool:
        """The raw number is a distance: it depends on `x_i - x_j` only."""
        return self.kernel in ("l2", "rbf", "laplace")

    def value(self, raw: Tensor) -> Tensor:
        """`e_ij`, ready for the softmax."""
        if self.kernel == "poly":
            return raw * raw * self.scale
        if self.kernel == "l2":
            return raw.sqrt() * self.scale
        if self.kernel in ("rbf", "laplace"):
            return torch.exp(raw * (-self.gamma if self.kernel == "rbf" else -1 / LAPLACE)) * self.scale
        return raw * self.scale

    def pull(self, raw: Tensor) -> Tensor:
        """`w` in `d e_ij / d x_i = w x_j`, `w (x_j - x_i)` of a distance, or `w sign(x_j - x_i)` of laplace.

        If normalized, x are the rows of length 1.
        """
        if self.kernel == "poly":
            return raw * (2 * self.scale)
        if self.kernel == "l2":  # the norm has derivative 0 at 0
            return torch.where(raw == 0, 0, -self.scale * raw.rsqrt())
        if self.kernel == "rbf":
            return self.value(raw) * (2 * self.gamma)
        if self.kernel == "laplace":
            return self.value(raw) / LAPLACE
        return torch.full_like(raw, self.scale)
