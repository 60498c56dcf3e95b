"""Losses on the logits: true labels and a teacher's soft labels."""

from __future__ import annotations

import math

from torch import Tensor

from graph2mlp.data.targets import Classes, Targets
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import Batch, LossTerm, no_rows
from graph2mlp.students.base import StudentOutput

__all__ = ["HardLabels", "SoftLabels"]


class HardLabels(LossTerm):
    """The loss of the true labels (of classes: cross-entropy), mean over the labelled rows of the batch.

    Zero when there are none.
    """

    needs = frozenset({"labels"})

    def __init__(self, targets: Targets | None = None) -> None:
        super().__init__()
        self.targets = targets or Classes()

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        rows = batch.labelled()
        if not bool(rows.any()):
            return no_rows(out)
        return self.targets.loss(out.logits[rows], batch.labels[rows])


class SoftLabels(LossTerm):
    """`t^2 KL(softmax(z_T / t) || softmax(z_S / t))`, summed over classes, mean over rows and teachers.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; over all observed nodes it is GLNN. What it is
    for labels and for quantities: see `graph2mlp.data.targets`.
    """

    needs = frozenset({"teacher.logits"})

    def __init__(self, temperature: float = 1.0, targets: Targets | None = None) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature must be positive and finite (got {temperature})")
        self.temperature, self.targets = temperature, targets or Classes()

    def forward(self, batch: Batch, out: StudentOutput) -> Tensor:
        losses = [self.targets.soft_loss(out.logits, rows.logits, self.temperature) for rows in batch.teachers]
        return sum(losses[1:], losses[0]) / len(losses)
