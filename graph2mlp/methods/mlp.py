"""The control: an MLP that learns from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.labels import HardLabels
from graph2mlp.methods.base import Method, Settings, Stage
from graph2mlp.students.base import StudentSpec

__all__ = ["MLP"]


@dataclass(frozen=True, kw_only=True)
class MLP(Method):
    """A plain MLP on the labelled nodes: what the features are worth without any graph.

    `L = mean_{i in V_L} CE(z_i, y_i)`, with `z = f(x)`, `x [B, F]`, `z [B, C]`. Every distilled student is compared
    with this one, of the same shape.
    """

    paper: ClassVar[str] = "none; the control of every table"
    needs_teacher: ClassVar[bool] = False
    soft_labels: ClassVar[bool] = False
    # Tuned on validation like the students are: a weak control would flatter them.
    defaults: ClassVar[Settings] = {"train": {"weight_decay": 5e-3, "patience": 100}}

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        return {"hard": (1.0, HardLabels(stage.graph.targets))}
