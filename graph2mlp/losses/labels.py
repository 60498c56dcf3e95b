"""Losses on the logits: true labels and a teacher's soft labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from graph2mlp.errors import ConfigError
from graph2mlp.kernels.functional import soft_label_kd
from graph2mlp.losses.base import Batch, LossTerm, no_rows
from graph2mlp.students.base import StudentOutput

__all__ = ["HardLabels", "SoftLabels"]


class HardLabels(LossTerm):
    """Cross-entropy with the true labels, mean over the labelled rows of the batch (zero when there are none)."""

    needs = frozenset({"labels"})

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        rows = batch.labelled()
        if not bool(rows.any()):
            return no_rows(out)
        return F.cross_entropy(out.logits[rows], batch.labels[rows])


class SoftLabels(LossTerm):
    """`t^2 KL(softmax(z_T / t) || softmax(z_S / t))`, summed over classes, mean over rows and teachers.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; over all observed nodes it is GLNN.
    """

    needs = frozenset({"teacher.logits"})

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"temperature must be positive (got {temperature})")
        self.temperature = temperature

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        losses = [soft_label_kd(out.logits, rows.logits, tau=self.temperature) for rows in batch.teachers]
        return sum(losses[1:], losses[0]) / len(losses)
