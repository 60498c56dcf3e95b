"""How good a model is. Validation selects; test is read once, at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graph2mlp.data.graph import HIDDEN_LABEL

__all__ = ["Score", "accuracy", "agreement", "score"]


@dataclass(frozen=True, order=True)
class Score:
    """Validation accuracy; among equals the lower loss wins, so a plateau of a few hundred nodes still orders."""

    accuracy: float
    negative_loss: float


def score(logits: Tensor, labels: Tensor) -> Score:
    """Accuracy and cross-entropy of `logits [n, C]` against `labels [n]`."""
    return Score(accuracy(logits, labels), -float(F.cross_entropy(logits, labels)))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label, a fraction; rows without a label do not count; NaN for none."""
    known = labels != HIDDEN_LABEL
    logits, labels = logits[known], labels[known]
    if not labels.numel():
        return float("nan")
    return float((logits.argmax(-1) == labels).float().mean())


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of rows on which two `[n, C]` logits name the same class."""
    return float((a.argmax(-1) == b.argmax(-1)).float().mean()) if torch.numel(a) else float("nan")
