"""GSP: similarities between all pairs of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graph2mlp.losses.base import LossTerms
from graph2mlp.losses.structure import GlobalStructure
from graph2mlp.methods.base import Method, Settings, Stage
from graph2mlp.methods.glnn import GLNN, label_terms
from graph2mlp.methods.lsp import check_weights
from graph2mlp.students.base import StudentSpec

__all__ = ["GSP"]


@dataclass(frozen=True, kw_only=True)
class GSP(Method):
    """All pairs of nodes must be as similar in the student as in the teacher; plus GLNN's labels.

    `L = hard * CE + soft * KL + beta * mean_ij (K(s_i, s_j) - K(h_i, h_j))^2` over all pairs of a batch, `h` and `s`
    the last hidden layers of teacher and student before norm and activation. Shapes: `x [B, F]`, logits `[B, C]`. The
    paper compares projections by two trained heads, whose loss is 0 when both are constant; here the hidden layers
    themselves are compared. The paper weighs the term by kernel (100 for cosine and poly, 1 for l2, 1e5 for rbf, whose
    values are that small), beside labels and in nodes of the training set; here `beta` is 1 whatever the kernel.
    """

    paper: ClassVar[str] = (
        "Joshi, Liu, Xun, Lin, Foo: On Representation Knowledge Distillation for Graph Neural Networks, "
        "IEEE TNNLS 2022 (GSP)"
    )
    defaults: ClassVar[Settings] = GLNN.defaults

    hard: float = 0.0
    """Weight of the true labels."""
    soft: float = 1.0
    """Weight of the teacher's soft labels."""
    temperature: float = 1.0
    """Softens both sides of the soft labels; that term is scaled by its square."""
    beta: float = 1.0
    """Weight of the similarity term."""
    kernel: Literal["cosine", "poly", "l2", "rbf"] = "cosine"
    """Similarity of two nodes: cosine, its square, the distance, or exp(-distance^2 / 2)."""

    def __post_init__(self) -> None:
        check_weights("gsp", self.hard, self.soft, self.beta, self.temperature)

    def loss_terms(self, spec: StudentSpec, stage: Stage) -> LossTerms:
        return {
            **label_terms(self.hard, self.soft, self.temperature, stage.graph.targets),
            "global": (self.beta, GlobalStructure(self.kernel)),
        }
