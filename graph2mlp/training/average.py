"""An average of the weights a training passes through: it answers better than where the last step happened to land."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Polynomial-decay average of a model's weights over its steps t = 1, 2, ...

    `m_t = m_{t-1} + (eta + 1) / (t + eta) (w_t - m_{t-1})`: step s weighs about `s^eta`, so the average looks back over
    a share `1 / (eta + 1)` of the training so far, however long that is. Shamir and Zhang, "Stochastic Gradient Descent
    for Non-smooth Optimization: Convergence Results and Optimal Averaging Schemes", ICML 2013, section 4.

    With few validation nodes, the best of many epochs is partly the luckiest; averages of neighbouring epochs differ
    less, which leaves less to luck. Whole numbers in the state (counters) are not averaged but copied.
    """

    def __init__(self, model: nn.Module, eta: float) -> None:
        self.model, self.eta, self.steps = model, eta, 0
        self.mean: dict[str, Tensor] = {name: one.detach().clone() for name, one in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step."""
        self.steps += 1
        share = min(1.0, (self.eta + 1) / (self.steps + self.eta))
        for name, now in self.model.state_dict().items():
            if now.dtype.is_floating_point:
                self.mean[name].lerp_(now, share)
            else:
                self.mean[name].copy_(now)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs to go on from here."""
        return {**self.mean, "steps": torch.tensor(self.steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave.

        Raises:
            KeyError, RuntimeError: it is of another model, or of none.
        """
        for name, one in self.mean.items():
            one.copy_(state[name])
        self.steps = int(state["steps"])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights in here, and its own again afterwards."""
        own = {name: one.detach().clone() for name, one in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
