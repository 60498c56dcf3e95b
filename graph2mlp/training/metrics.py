"""How good a model is. Validation selects; test is read once, at the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graph2mlp.data.targets import Targets

__all__ = ["Score", "score"]


@dataclass(frozen=True, order=True)
class Score:
    """The task's metric on validation; among equals the lower loss wins, so a plateau of a few hundred nodes orders."""

    value: float
    negative_loss: float


def score(logits: Tensor, labels: Tensor, targets: Targets) -> Score:
    """Metric and loss of `logits [n, C]` against `labels`, all known."""
    return Score(targets.score(logits, labels), -float(targets.loss(logits, labels)))
