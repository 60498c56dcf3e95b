"""GLNN: soft labels on every observed node."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from graph2mlp.data.targets import Targets
from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.labels import HardLabels, SoftLabels
from graph2mlp.methods.base import Method, Settings, Stage
from graph2mlp.students.base import StudentSpec

__all__ = ["GLNN", "label_terms"]


@dataclass(frozen=True, kw_only=True)
class GLNN(Method):
    """An MLP learns a GNN's soft labels for all observed nodes, labelled or not.

    `L = hard * mean_{i in V_L} CE(z_i, y_i) + soft * mean_{i in V_obs} t^2 KL(p^T_i || p_i)`, with `p = softmax(z / t)`

    Shapes: `x [B, F]`, teacher logits `z^T [B, C]`, student logits `z = f(x) [B, C]`. The graph enters through the
    targets only. One joint step per batch; the reference code alternates the two terms.
    """

    paper: ClassVar[str] = (
        "Zhang, Liu, Sun, Shah: Graph-less Neural Networks: Teaching Old MLPs New Tricks via Distillation, ICLR 2022"
    )

    defaults: ClassVar[Settings] = {"train": {"burn_in": 20}}

    hard: float = 0.0
    """Weight of the true labels."""
    soft: float = 1.0
    """Weight of the teacher's soft labels."""
    temperature: float = 1.0
    """Softens both sides; the loss is scaled by its square."""

    def __post_init__(self) -> None:
        if not (self.hard >= 0 and self.soft >= 0 and 0 < self.hard + self.soft < math.inf):
            raise ConfigError(f"glnn needs weights of at least 0, not both 0 (got hard={self.hard}, soft={self.soft})")
        SoftLabels(self.temperature)  # refuses an impossible one before anything is trained

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        return label_terms(self.hard, self.soft, self.temperature, stage.graph.targets)


def label_terms(hard: float, soft: float, temperature: float, targets: Targets) -> LossTerms:
    """True and soft labels, each left out when its weight is 0."""
    terms = {"hard": (hard, HardLabels(targets)), "soft": (soft, SoftLabels(temperature, targets))}
    return {name: pair for name, pair in terms.items() if pair[0]}
