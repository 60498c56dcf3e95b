"""G-CRD: contrast between nodes, across the two networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from graph2mlp.errors import ConfigError
from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.contrast import Contrast
from graph2mlp.methods.base import Method, Settings, Stage
from graph2mlp.methods.glnn import GLNN, label_terms
from graph2mlp.methods.lsp import check_weights
from graph2mlp.students.base import StudentSpec

__all__ = ["GCRD"]


@dataclass(frozen=True, kw_only=True)
class GCRD(Method):
    """Each student row must find its own node's teacher row among those of the batch; plus GLNN's labels.

    `L = hard * CE + soft * KL + beta * mean_i -log( exp(u_i.v_i / tau) / sum_j exp(u_i.v_j / tau) )`, `u` and `v` the
    last hidden layers of student and teacher through one trained head each (`Linear -> BatchNorm -> ReLU`, rows of
    length 1). Shapes: `x [B, F]`, logits `[B, C]`. Gradient flows into both heads and the student, never the teacher.

    The student's layer is taken after activation and dropout, as in the paper (batch normalisation, where there is
    some, comes later); the teacher's before its activation, as knowledge files hold it. Nodes are those of a batch,
    labelled or not; the paper draws them from the labelled ones, with heads 256 wide and a beta of 0.1, or 0.01 beside
    soft labels. Only this direction: the student's rows look for the teacher's. Heads end in a ReLU, so no two rows are
    opposite.
    """

    paper: ClassVar[str] = (
        "Joshi, Liu, Xun, Lin, Foo: On Representation Knowledge Distillation for Graph Neural Networks, "
        "IEEE TNNLS 2022 (G-CRD)"
    )
    defaults: ClassVar[Settings] = GLNN.defaults

    hard: float = 0.0
    """Weight of the true labels."""
    soft: float = 1.0
    """Weight of the teacher's soft labels."""
    temperature: float = 1.0
    """Softens both sides of the soft labels; that term is scaled by its square."""
    beta: float = 0.05
    """Weight of the contrast."""
    tau: float = 0.075
    """Temperature of the contrast."""
    width: int = 128
    """Width of the heads."""

    def __post_init__(self) -> None:
        check_weights("g_crd", self.hard, self.soft, self.beta, self.temperature)
        if not (0 < self.tau < math.inf and self.width >= 1):
            raise ConfigError(f"g_crd needs a finite tau > 0 and width >= 1 (got {self.tau}, {self.width})")

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        contrast = Contrast(spec, stage.teacher_widths, tau=self.tau, width=self.width)
        return {
            **label_terms(self.hard, self.soft, self.temperature, stage.graph.targets),
            "contrast": (self.beta, contrast),
        }
